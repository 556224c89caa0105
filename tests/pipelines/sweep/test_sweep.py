"""A small sweep end to end, on data made in the test: selection, confirmation, test scoring, resumption, failures."""

import fcntl
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from pipelines.commands import run
from pipelines.report import build_table, selected_configurations
from pipelines.settings import SweepSettings, parse
from pipelines.sweep.data import prepare_data
from pipelines.sweep.run import LOCK, run_sweep
from pipelines.tracking import read_results
from pipelines.train import journal
from pipelines.train.capture import LOG
from pipelines.train.folder import TEST_USERS
from recloss.errors import InputError

FIXED = {"optim.weight_decay": 0, "backbone.dim": 8}
SHARED = {
    "train.epochs": 6,
    "train.valid_every": 2,
    "train.negatives": 6,
    "train.batch_size": 64,
    "protocol.cutoffs": [5],
    "protocol.metric": "ndcg_5",
}


def settings(prepared: Path, losses: dict, **more) -> SweepSettings:
    raw = {
        "name": "toy",
        "data": [{"name": "toy", "path": str(prepared)}],
        "backbones": {"mf": None},
        "losses": {name: FIXED | section for name, section in losses.items()},
        "settings": SHARED,
        "confirm_seeds": [1, 2],
        "baselines": ["bpr"] if "bpr" in losses else [],
    }
    return parse(SweepSettings, raw | more, "toy")


def sweep(chosen: SweepSettings, storage: Path) -> bool:
    uri = f"sqlite:///{storage}/mlflow.db"
    return run_sweep(chosen, storage=storage, tracking_uri=uri, spaces=None, console=Console(quiet=True))


def results(storage: Path):
    return read_results(f"sqlite:///{storage}/mlflow.db", "toy")


def events(folder: Path, kind: str):
    return [event for event in journal.read(folder) if event["event"] == kind]


LOSSES = {"bpr": {"optim.lr": 0.01}, "sl": {"optim.lr": 0.1, "loss.tau": [0.1, 0.2]}}


@pytest.fixture(scope="module")
def finished(prepared, tmp_path_factory, ray_local) -> Path:
    storage = tmp_path_factory.mktemp("finished")
    assert sweep(settings(prepared, LOSSES), storage)
    return storage


def test_the_table_is_what_the_confirmed_models_scored(finished):
    found = results(finished)
    grid = [trial for trial in found.trials if trial.stages == ("grid",)]
    confirmed = [trial for trial in found.trials if trial.stages == ("confirm",)]
    assert len(grid) == 3
    assert len(confirmed) == 4
    assert {trial.status for trial in found.trials} == {"FINISHED"}
    bests = {}
    for trial in grid:
        finish = events(finished / "toy" / trial.hash, "finish")[0]
        bests.setdefault(trial.loss, {})[trial.params.get("loss.tau")] = finish["best"]
    for loss, points in bests.items():
        tau = max(points, key=points.get)
        assert {t.params.get("loss.tau") for t in confirmed if t.loss == loss} == {tau}
    table = build_table(found, ["recall_5"])
    for row in table.rows:
        hashes = [t.hash for t in confirmed if t.loss == row.loss]
        scores = [events(finished / "toy" / name, "test")[0]["metrics"]["test/recall_5"] for name in hashes]
        assert row.scores[0].mean == pytest.approx(statistics.fmean(scores))
        assert row.scores[0].std == pytest.approx(statistics.stdev(scores))


def test_grid_trials_never_see_the_test_split(finished):
    for trial in results(finished).trials:
        folder = finished / "toy" / trial.hash
        scored = "confirm" in trial.stages
        assert bool(events(folder, "test")) == scored
        assert (folder / TEST_USERS).exists() == scored
        assert any(name.startswith("test/") for name in trial.metrics) == scored


def test_its_status_is_read_from_the_store_alone(finished, capsys, tmp_path):
    store = f"sqlite:///{finished}/mlflow.db"
    assert run(["sweep", "status", "toy", "--storage", str(tmp_path), "--tracking-uri", store]) == 0
    printed = capsys.readouterr().out
    assert f"complete; it was driven by process {os.getpid()} on {socket.gethostname()}" in printed
    lines = {line.split("  ")[0].strip(): line.split()[5:] for line in printed.splitlines() if "|" in line}
    assert lines["toy | mf | bpr"][:4] == ["3/3", "0", "0", "0"]
    assert lines["toy | mf | sl"][:4] == ["4/4", "0", "0", "0"]
    best = max(
        events(finished / "toy" / t.hash, "finish")[0]["best"] for t in results(finished).trials if t.loss == "sl"
    )
    assert float(lines["toy | mf | sl"][4]) == pytest.approx(best, abs=6e-5)
    assert "trials: 7/7 done" in printed
    assert run(["sweep", "status", "tyo", "--tracking-uri", store]) == 2
    assert "unknown sweep 'tyo'; did you mean 'toy'?" in capsys.readouterr().err


def test_every_trial_has_its_log_and_its_cost(finished):
    found = results(finished)
    assert {trial.failures for trial in found.trials} == {()}
    for trial in found.trials:
        log = (finished / "toy" / trial.hash / LOG).read_text()
        assert [line.split()[:2] for line in log.splitlines()] == [["epoch", "2"], ["epoch", "4"], ["epoch", "6"]]
        finish = events(finished / "toy" / trial.hash, "finish")[0]
        assert trial.cost == pytest.approx(finish["cost"])
        assert trial.cost["cpu_seconds"] > 0
        assert trial.cost["gpu_seconds"] == 0
        assert 50e6 < trial.cost["peak_memory"] < 5e9
    logs = list((finished / "artifacts").rglob(LOG))
    assert len(logs) == len(found.trials)
    costs = {s.loss: s.cost for s in selected_configurations(found)}
    assert {cost.trials for cost in costs.values()} == {3, 4}
    total = sum(cost.cpu_hours for cost in costs.values()) * 3600
    assert total == pytest.approx(sum(trial.cost["cpu_seconds"] for trial in found.trials))


def snapshot(storage: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in (storage / "toy").glob("*/*") if file.is_file()}


def test_running_it_again_trains_nothing_and_an_extension_trains_only_what_is_new(finished, prepared, ray_local):
    before, known = snapshot(finished), results(finished).trials
    assert sweep(settings(prepared, LOSSES), finished)
    assert {file: mtime for file, mtime in snapshot(finished).items() if not file.endswith("trial.json")} == {
        file: mtime for file, mtime in before.items() if not file.endswith("trial.json")
    }
    assert results(finished).trials == known

    assert sweep(settings(prepared, LOSSES, confirm_seeds=[1, 2, 3]), finished)
    new = {trial.hash for trial in results(finished).trials} - {trial.hash for trial in known}
    assert len(new) == 2, "one more confirmation for each cell"
    after = snapshot(finished)
    assert all(after[file] == before[file] for file in before if not file.endswith("trial.json"))


def test_a_diverged_grid_point_is_a_failure_and_never_selected(prepared, tmp_path, ray_local):
    losses = {"bpr": {"optim.lr": [0.01, 1e30]}, "sl": {"optim.lr": 0.1, "loss.tau": 0.2}}
    assert sweep(settings(prepared, losses), tmp_path)
    found = results(tmp_path)
    failed = [trial for trial in found.trials if trial.status == "FAILED"]
    assert [(trial.loss, trial.params["optim.lr"]) for trial in failed] == [("bpr", "1e+30")]
    assert failed[0].error.startswith("DivergedError: the loss is ")
    assert failed[0].error.endswith("(optim.lr=1e+30)")
    assert failed[0].failures == ("diverged",)
    assert "DivergedError" in (tmp_path / "toy" / failed[0].hash / LOG).read_text()
    assert failed[0].metrics == {}
    assert all(score.mean is not None for row in build_table(found, None).rows for score in row.scores)

    assert sweep(settings(prepared, {"bpr": {"optim.lr": [1e30]}, "sl": losses["sl"]}), tmp_path)
    table = build_table(results(tmp_path), None)
    missing = {row.loss: [score.mean is None for score in row.scores] for row in table.rows}
    assert missing == {"bpr": [True, True], "sl": [False, False]}
    assert any("DivergedError" in note for note in table.notes)


def command(file: Path, storage: Path) -> subprocess.Popen:
    arguments = [sys.executable, "-m", "pipelines.cli", "sweep", str(file), "--storage", str(storage)]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(arguments, start_new_session=True, **output)


def trial_folders(folder: Path) -> list[Path]:
    return sorted(file.parent for file in folder.glob(f"*/{journal.FILE}"))


def long_sweep(prepared: Path) -> SweepSettings:
    long = SHARED | {"train.epochs": 60, "train.patience": 100}
    chosen = {"sl": {"optim.lr": 0.1, "loss.tau": [0.1, 0.2]}}
    return settings(prepared, chosen, settings=long, confirm_seeds=[1])


@pytest.fixture(scope="module")
def uninterrupted(prepared, tmp_path_factory, ray_local):
    storage = tmp_path_factory.mktemp("uninterrupted")
    assert sweep(long_sweep(prepared), storage)
    return [comparable(trial) for trial in results(storage).trials]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_that_is_interrupted_ends_like_one_that_is_not(ending, prepared, uninterrupted, tmp_path):
    file = tmp_path / "toy.yaml"
    file.write_text(yaml.safe_dump(long_sweep(prepared).model_dump(mode="json")))
    process = command(file, tmp_path)
    deadline = time.monotonic() + 120
    while not any(events(folder, "valid")[5:] for folder in trial_folders(tmp_path / "toy")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    if ending == signal.SIGINT:  # Ctrl-C twice, which a terminal sends to all processes of the command
        for _ in range(2):
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.3)
    else:
        process.send_signal(ending)
    output = process.communicate(timeout=120)[0]
    if ending == signal.SIGINT:
        assert process.returncode == 130, output
        assert "interrupted; nothing is lost. To go on: recloss sweep" in output
        assert "Traceback" not in output
        assert {trial.status for trial in results(tmp_path).trials} <= {"FINISHED", "KILLED"}
    started = {folder: journal.read(folder)[0]["time"] for folder in trial_folders(tmp_path / "toy")}
    assert sweep(long_sweep(prepared), tmp_path)
    for folder, start in started.items():
        assert journal.read(folder)[0]["time"] == start, "a trial that was cut off is resumed"
    assert [comparable(trial) for trial in results(tmp_path).trials] == uninterrupted


def comparable(trial):
    metrics = {name: value for name, value in trial.metrics.items() if "seconds" not in name}
    return trial.hash, trial.stages, trial.status, trial.params, metrics


def test_a_second_driver_is_refused(prepared, tmp_path):
    (tmp_path / "toy").mkdir()
    with open(tmp_path / "toy" / LOCK, "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(f"process {os.getpid()} on a host")
        file.flush()
        with pytest.raises(InputError, match=rf"sweep 'toy' is being run by process {os.getpid()} on a host"):
            sweep(settings(prepared, LOSSES), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": SHARED | {"protocol.cutoffs": [5, 500]}}, "K = 500 is larger than the catalogue"),
        ({"data": [{"name": "toy", "path": "nowhere"}]}, "nowhere: no prepared dataset; give 'fetch' or 'raw'"),
        ({"settings": SHARED | {"loss.tau": 1}}, "the loss 'bpr' has no parameters"),
        ({"settings": SHARED | {"train.negativs": 1}}, "did you mean 'negatives'?"),
    ],
)
def test_a_mistake_is_found_before_anything_is_written(change, message, prepared, tmp_path):
    with pytest.raises(InputError) as caught:
        sweep(settings(prepared, LOSSES, **change), tmp_path)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_trial_that_cannot_fit_is_refused_with_the_numbers(prepared, tmp_path, ray_local):
    with pytest.raises(InputError, match="resources: a worker of a trial needs 32 CPU on one node .* nodes have 2 CPU"):
        sweep(settings(prepared, LOSSES, resources={"cpus": 32, "workers": 2}), tmp_path)
    assert not list((tmp_path / "toy").glob("*/journal.jsonl"))


def test_the_sweep_prepares_a_log_and_refuses_a_folder_of_other_settings(raw_log, tmp_path):
    def data(**prepare):
        columns = {"user": "who", "item": "what", "rating": "stars"}
        prepare = {"format": "csv", "columns": columns, "k_core": 3} | prepare
        raw = {"name": "mine", "path": str(tmp_path / "mine"), "raw": str(raw_log), "prepare": prepare}
        return settings(tmp_path, LOSSES, data=[raw]).data[0]

    made = prepare_data(data(), print)
    assert prepare_data(data(), print).fingerprint == made.fingerprint
    with pytest.raises(InputError, match="mine: prepared with other settings than data 'mine' of the sweep"):
        prepare_data(data(min_rating=4), print)
