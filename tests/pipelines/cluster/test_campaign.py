"""The fault campaign in short: a few faults, made data, and a campaign that finds what is wrong."""

import importlib
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def reliability(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("reliability")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="simulated nodes need the addresses 127.0.0.2, 127.0.0.3")
def test_a_sweep_under_faults_equals_one_that_is_left_alone(reliability, write_sweep):
    kinds = [
        "kill -9 of a trial's process",
        "kill -9 of a node's raylet",
        "checkpoint cut in half while the driver is down",
    ]
    sweep = yaml.safe_load(write_sweep(epochs=600).read_text())
    sweep["settings"]["train.valid_every"] = 5
    with TemporaryDirectory(prefix="rl", ignore_cleanup_errors=True) as folder:  # a short path, for Ray's sockets
        alone, struck, found = reliability.campaign(Path(folder), sweep, kinds, len(kinds), seed=0, seconds=600)
        assert found == []
        assert sorted(kind for kind, _ in struck.outcome.struck) == sorted(kinds)
        assert (alone.outcome.runs, alone.outcome.again, alone.outcome.surprises) == (1, 0, [])
        assert struck.outcome.runs >= 2

        trial = alone.results.trials[0].hash
        shutil.copytree(alone.trials, spoilt := Path(folder) / "spoilt")
        (spoilt / trial / reliability.MODEL).write_bytes(b"another")
        with closing(sqlite3.connect(struck.database)) as connection, connection:
            connection.execute("update runs set status = 'RUNNING' where name = 'sweep'")
        other = reliability.Left(struck.outcome, struck.results, spoilt, struck.database)
        assert reliability.differences(alone, other, Path(folder) / "again") == [
            f"trial {trial}: another {reliability.MODEL}",
            "a run is still RUNNING: sweep",
        ]


def test_the_page_says_what_was_done_and_what_came_of_it(reliability):
    quiet = reliability.Outcome(seconds=100, runs=1, validations=480)
    kill, full = "kill -9 of a trial's process", "storage full for a while"
    struck = [(kill, 1), (full, 2), (kill, 1)]
    disturbed = reliability.Outcome(300, 2, 480, 3, struck, ["exit code 1: a | b"])
    page = reliability.page(quiet, disturbed, [], 48, "python benchmarks/reliability.py", "A note.")
    assert (
        "A sweep of 48 trials on MovieLens-100K, left alone and under 3 faults. **They are equal, bit for bit**" in page
    )
    assert f"| {kill} | 2 | 2 |" in page
    assert f"| {full} | 1 | 2 |" in page
    assert "| all | 3 | 4 |" in page
    assert "less than 20 of 2400 epochs again (1%), and made 3 validations again" in page
    assert "* `exit code 1: a | b`" in page
    worse = reliability.page(quiet, disturbed, ["trial x is missing"], 48, "c", "")
    assert "**differ in 1 places**" in worse
    assert "* trial x is missing" in worse
    assert "equal, bit for bit" not in worse


def test_each_kind_of_fault_is_drawn_as_often_as_the_others(reliability):
    import random

    faults = importlib.import_module("faults")
    drawn = faults.draw(56, list(faults.FAULTS), random.Random(0))
    assert {drawn.count(kind) for kind in faults.FAULTS} == {7}
    assert drawn != sorted(drawn)
    assert drawn == faults.draw(56, list(faults.FAULTS), random.Random(0))
