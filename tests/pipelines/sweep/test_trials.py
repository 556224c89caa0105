"""The attempts at one task, in this process: what is tried again, what is recorded, what is given up."""

import errno
import os
import subprocess
import sys
import time
import types

import pytest
import torch

from pipelines.prepare import load
from pipelines.settings import ResourceSettings, make_trial
from pipelines.sweep import attempts
from pipelines.sweep.attempts import CRASHES, Attempts, latest_micro_batch, next_micro_batch
from pipelines.train import failures, journal, patience
from pipelines.train.cost import Cost, Meter
from pipelines.train.folder import CHECKPOINT, MODEL, TEST_USERS, status
from pipelines.train.tasks import work
from pipelines.train.trial import train_trial
from recloss.errors import InputError
from recloss.loop import DivergedError

SHORT = {
    "train.epochs": 6,
    "train.valid_every": 2,
    "train.negatives": 6,
    "train.batch_size": 64,
    "backbone.dim": 8,
    "protocol.cutoffs": [5],
    "protocol.metric": "ndcg_5",
    "optim.lr": 0.1,
}


def trial(prepared, loss="sl", **dotted):
    return make_trial(
        load(prepared).fingerprint, "mf", loss, SHORT | {k.replace("__", "."): v for k, v in dotted.items()}
    )


def task(prepared, folder, a_trial=None, **changes):
    plain = {
        "trial": (a_trial or trial(prepared)).model_dump(mode="json"),
        "data": str(prepared),
        "folder": str(folder / "trial"),
        "test": False,
        "until": None,
        "resources": ResourceSettings().model_dump(),
        "stop": str(folder / "stop"),
        "since": time.time(),
    }
    return plain | changes


def ignore(validation):
    pass


def measured(folder):
    return [event["metrics"].get("valid/ndcg_5") for event in journal.read(folder) if event["event"] == "valid"]


@pytest.fixture
def failing(monkeypatch):
    """Makes training raise errors, one at each validation, or with ``at_once`` one each time that it begins."""

    def arrange(*errors, at_once=False):
        waiting = list(errors)

        def may_raise():
            if waiting:
                raise waiting.pop(0)

        def train(a_trial, data, folder, resources, report, **limits):
            def report_and_raise(validation):
                report(validation)
                may_raise()

            return train_trial(a_trial, data, folder, resources, ignore if at_once else report_and_raise, **limits)

        def work_or_raise(*arguments):
            if at_once:
                may_raise()
            return work(*arguments)

        monkeypatch.setattr(attempts, "train_trial", train)
        monkeypatch.setattr("pipelines.train.trial.work", work_or_raise)
        return waiting

    return arrange


@pytest.fixture
def pauses(monkeypatch):
    """Pauses cost no time; how long they were."""
    slept = []
    monkeypatch.setattr(patience, "time", types.SimpleNamespace(sleep=slept.append))
    return slept


OUT_OF_MEMORY = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000000000 bytes."


class RayActorError(Exception):
    """Stands for Ray's."""


def wrapped(error):
    """As Ray Train hands over what a worker raised."""
    outer = RuntimeError("The worker group failed")
    outer.worker_failures = {1: error}
    return outer


def chained(outer, inner):
    try:
        try:
            raise inner
        except type(inner):
            raise outer  # noqa: B904
    except type(outer) as error:
        return error


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (
            DivergedError("the loss is nan in epoch 3, step 7"),
            "diverged",
            "DivergedError: the loss is nan in epoch 3, step 7",
        ),
        (MemoryError(), "out of memory", "MemoryError"),
        (RuntimeError(OUT_OF_MEMORY), "out of memory", f"RuntimeError: {OUT_OF_MEMORY}"),
        (torch.OutOfMemoryError("CUDA out of memory."), "out of memory", "OutOfMemoryError: CUDA out of memory."),
        (
            OSError(errno.ENOMEM, "Cannot allocate memory"),
            "out of memory",
            "OSError: [Errno 12] Cannot allocate memory",
        ),
        *((OSError(number, "told"), "storage", f"OSError: [Errno {number}] told") for number in (5, 28, 30, 116, 122)),
        (
            chained(RuntimeError("[enforce fail at inline_container.cc:672]"), OSError(28, "No space left on device")),
            "storage",
            "OSError: [Errno 28] No space left on device",
        ),
        (chained(OSError(28, "No space"), DivergedError("nan")), "storage", "OSError: [Errno 28] No space"),
        (RayActorError("The actor died unexpectedly\nbecause"), "crash", "RayActorError: The actor died unexpectedly"),
        (wrapped(DivergedError("nan")), "diverged", "DivergedError: nan"),
        (wrapped(MemoryError("big")), "out of memory", "MemoryError: big"),
        (wrapped(RayActorError("dead")), "crash", "RayActorError: dead"),
        (wrapped(ValueError("a\nb")), "error", "ValueError: a"),
        (PermissionError(errno.EACCES, "no"), "error", "PermissionError: [Errno 13] no"),
        (InputError("mine"), "error", "InputError: mine"),
        (ValueError("out of memory"), "error", "ValueError: out of memory"),
    ],
)
def test_a_failure_is_told_by_what_lies_below_it(error, kind, text):
    assert failures.diagnose(error) == (kind, text)


def test_a_diverged_trial_is_recorded_with_step_and_parameters(prepared, tmp_path):
    diverging = trial(prepared, optim__lr=1e30, loss__tau=1e-30)
    assert Attempts(task(prepared, tmp_path, diverging), ignore).run() is None
    last = journal.read(tmp_path / "trial")[-1]
    assert (last["event"], last["kind"]) == ("fail", "diverged")
    assert "in epoch 1, step " in last["error"]
    assert "(loss.tau=1e-30, " in last["error"]
    assert last["error"].endswith("optim.lr=1e+30)")
    assert last["cost"]["cpu_seconds"] > 0
    assert status(tmp_path / "trial") == "failed"


def test_out_of_memory_halves_the_micro_batch_of_a_loss_that_allows_it(prepared, tmp_path, failing, monkeypatch):
    left = failing(MemoryError("one"), RuntimeError(OUT_OF_MEMORY))
    sizes = []
    train = attempts.train_trial

    def spy(*arguments, micro_batch, **limits):
        sizes.append(micro_batch)
        return train(*arguments, micro_batch=micro_batch, **limits)

    monkeypatch.setattr(attempts, "train_trial", spy)
    assert Attempts(task(prepared, tmp_path), ignore).run() is None
    assert (sizes, left) == ([None, 32, 16], [])
    events = journal.read(tmp_path / "trial")
    assert [failure["kind"] for failure in events[0]["failures"]] == ["out of memory"] * 2
    assert events[0]["failures"][0]["error"] == "MemoryError: one"
    assert events[0]["environment"]["micro_batch"] == "16"
    assert events[-1]["event"] == "finish"

    whole = tmp_path / "whole"
    train_trial(trial(prepared), prepared, whole, ResourceSettings(), ignore)
    assert measured(tmp_path / "trial") == pytest.approx(measured(whole), abs=1e-4)


def test_out_of_memory_ends_a_trial_at_an_eighth_of_the_batch(prepared, tmp_path, failing):
    left = failing(*[MemoryError(str(number)) for number in range(6)], at_once=True)
    assert Attempts(task(prepared, tmp_path), ignore).run() is None
    events = journal.read(tmp_path / "trial")
    assert (events[-1]["event"], events[-1]["kind"], events[-1]["error"]) == ("fail", "out of memory", "MemoryError: 3")
    assert len(left) == 2, "64 rows, then 32, 16 and 8"
    assert status(tmp_path / "trial") == "cut off", (
        "the next run of the sweep, perhaps with more memory, tries it again"
    )


def test_a_loss_that_sees_other_rows_is_not_cut_into_pieces(prepared, tmp_path, failing):
    left = failing(MemoryError("one"), MemoryError("two"), at_once=True)
    assert Attempts(task(prepared, tmp_path, trial(prepared, "bsl")), ignore).run() is None
    last = journal.read(tmp_path / "trial")[-1]
    assert (last["kind"], last["error"], len(left)) == ("out of memory", "MemoryError: one", 1)


@pytest.mark.parametrize(
    ("latest", "rows", "workers", "wanted"),
    [
        (None, 64, 1, 32),
        (32, 64, 1, 16),
        (16, 64, 1, 8),
        (8, 64, 1, 8),
        (None, 64, 2, 16),
        (None, 1, 1, None),
        (None, 3, 1, 2),
    ],
)
def test_next_micro_batch(prepared, latest, rows, workers, wanted):
    environment = {} if latest is None else {"micro_batch": str(latest)}
    start = {"event": "start", "environment": environment}
    fail = {"event": "fail", "kind": "out of memory"}
    a_trial = trial(prepared, train__batch_size=rows)
    assert next_micro_batch([start, fail], a_trial, workers) == wanted
    assert next_micro_batch([start], a_trial, workers) == latest_micro_batch([start]) == latest
    assert next_micro_batch([start, {"event": "fail", "kind": "crash"}], a_trial, workers) == latest


def test_a_trial_waits_for_the_storage_and_resumes(prepared, tmp_path, failing, pauses):
    full = [OSError(errno.ENOSPC, "No space left on device") for _ in range(3)]
    left = failing(*full)
    assert Attempts(task(prepared, tmp_path), ignore).run() is None
    assert left == []
    assert pauses == [1, 1, 1], "each validation is progress, so the pauses begin anew"
    assert status(tmp_path / "trial") == "finished"
    assert journal.read(tmp_path / "trial")[0]["failures"] == [], "that is no failure"
    train_trial(trial(prepared), prepared, tmp_path / "whole", ResourceSettings(), ignore)
    assert measured(tmp_path / "trial") == measured(tmp_path / "whole")


def test_a_trial_whose_storage_stays_away_is_cut_off(prepared, tmp_path, pauses, monkeypatch):
    def gone(*arguments, **limits):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(attempts, "train_trial", gone)
    assert Attempts(task(prepared, tmp_path), ignore).run() == "OSError: [Errno 116] Stale file handle"
    assert pauses[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert patience.STORAGE_SECONDS <= sum(pauses) < patience.STORAGE_SECONDS + 60
    assert journal.read(tmp_path / "trial") == []


def test_a_failure_that_cannot_be_recorded_is_recorded_later(prepared, tmp_path, pauses, monkeypatch):
    append, refusals = journal.append, [1, 1]

    def full(folder, event):
        if event["event"] == "fail" and refusals:
            refusals.pop()
            raise OSError(errno.ENOSPC, "No space left on device")
        append(folder, event)

    monkeypatch.setattr(journal, "append", full)
    assert Attempts(task(prepared, tmp_path, trial(prepared, "bpr", optim__lr=1e30)), ignore).run() is None
    assert len(pauses) == 2
    assert status(tmp_path / "trial") == "failed"


def test_a_dead_worker_is_replaced_as_long_as_there_is_progress(prepared, tmp_path, failing):
    crashes = [wrapped(RayActorError("dead")) for _ in range(3)]
    failing(*crashes)
    assert Attempts(task(prepared, tmp_path), ignore).run() is None
    assert status(tmp_path / "trial") == "finished"


def test_a_worker_that_always_dies_fails_the_trial(prepared, tmp_path, monkeypatch):
    tried = []

    def die(*arguments, **limits):
        tried.append(1)
        raise wrapped(RayActorError("dead"))

    monkeypatch.setattr(attempts, "train_trial", die)
    assert Attempts(task(prepared, tmp_path), ignore).run() is None
    assert len(tried) == CRASHES + 1
    last = journal.read(tmp_path / "trial")[-1]
    assert (last["kind"], last["error"]) == ("crash", "RayActorError: dead")


def test_an_error_is_recorded_once_and_tried_again_by_the_next_run(prepared, tmp_path, failing):
    left = failing(ValueError("a bug"), ValueError("the same bug"))
    now = task(prepared, tmp_path)
    Attempts(now, ignore).run()
    Attempts(now, ignore).run()
    events = journal.read(tmp_path / "trial")
    assert [(e["kind"], e["error"]) for e in events if e["event"] == "fail"] == [("error", "ValueError: a bug")]
    assert len(left) == 1
    Attempts(task(prepared, tmp_path), ignore).run()
    assert left == []
    Attempts(task(prepared, tmp_path), ignore).run()
    assert status(tmp_path / "trial") == "finished"
    assert [f["error"] for f in journal.read(tmp_path / "trial")[0]["failures"]] == [
        "ValueError: a bug", "ValueError: the same bug",
    ]  # fmt: skip


def test_a_trial_stops_at_the_validation_that_finds_the_stop_file(prepared, tmp_path):
    now, stop = task(prepared, tmp_path, test=True), tmp_path / "stop"

    def ask(validation):
        stop.touch()

    assert Attempts(now, ask).run() is None
    assert (measured(tmp_path / "trial"), status(tmp_path / "trial")) == (measured(tmp_path / "trial")[:1], "cut off")
    Attempts(now, ignore).run()
    assert len(measured(tmp_path / "trial")) == 1, "while the file is there, nothing starts"
    stop.unlink()
    Attempts(now, ignore).run()
    assert journal.read(tmp_path / "trial")[-1]["event"] == "test"
    assert (tmp_path / "trial" / TEST_USERS).exists()
    train_trial(trial(prepared), prepared, tmp_path / "whole", ResourceSettings(), ignore)
    assert measured(tmp_path / "trial") == measured(tmp_path / "whole")


def test_a_process_that_was_given_up_for_lost_leaves_the_trial_to_its_successor(prepared, tmp_path):
    folder, seen = tmp_path / "trial", []

    def successor(validation):
        if not seen:
            seen.append(validation.epoch)
            train_trial(trial(prepared), prepared, folder, ResourceSettings(), ignore, until=2)

    train_trial(trial(prepared), prepared, folder, ResourceSettings(), successor)
    assert (status(folder), measured(folder)) == ("cut off", measured(folder)[:2])
    assert [event["epoch"] for event in journal.read(folder) if event["event"] == "valid"] == [2, 4]
    train_trial(trial(prepared), prepared, folder, ResourceSettings(), ignore)
    assert [event["epoch"] for event in journal.read(folder) if event["event"] == "valid"] == [2, 4, 6]


def test_costs_add_up_over_attempts(prepared, tmp_path, failing):
    failing(ValueError("one"), ValueError("two"))
    spent = []
    for _ in range(3):
        Attempts(task(prepared, tmp_path), ignore).run()
        events = journal.read(tmp_path / "trial")
        spent.append(Cost(**events[-1]["cost"]))
        assert Cost(**events[0]["cost"]) == (spent[-2] if len(spent) > 1 else Cost())
    assert events[-1]["event"] == "finish"
    assert spent[0].cpu_seconds < spent[1].cpu_seconds < spent[2].cpu_seconds
    assert spent[0].seconds < spent[1].seconds < spent[2].seconds
    assert spent[2].peak_memory == max(cost.peak_memory for cost in spent)
    assert not (tmp_path / "trial" / CHECKPOINT).exists()
    assert (tmp_path / "trial" / MODEL).exists()


PEAKS = """
from pipelines.train.cost import Meter
big = bytearray(300_000_000)
del big
meter = Meter(gpus=0)
before = meter.read().peak_memory
held = bytearray(100_000_000)
peak = meter.read().peak_memory
del held
print(before, peak, Meter(gpus=0).read().peak_memory)
"""


@pytest.mark.skipif(
    not os.path.exists("/proc/self/clear_refs"), reason="only Linux tells the peak of a part of a process"
)
def test_the_peak_of_memory_is_that_of_the_trial_alone():
    """In a process of its own: a large one may lose memory to the system meanwhile."""
    process = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, check=True)
    before, held, after = map(int, process.stdout.split())
    assert 90e6 < held - before < 200e6
    assert after < before + 90e6


def test_seconds_of_gpus_are_those_of_the_trial_times_its_share():
    cost = Meter(gpus=0.5).read()
    assert cost.gpu_seconds == pytest.approx(cost.seconds / 2)


PRINTS = """
import os, sys
from pathlib import Path
from pipelines.train.capture import captured
for number in (1, 2):
    with captured(Path(sys.argv[1])):
        print("python", number)
        os.write(2, b"below\\n")
print("outside")
"""


def test_what_a_trial_prints_from_python_or_below_it_is_in_its_log(tmp_path):
    path = tmp_path / "log.txt"
    process = subprocess.run([sys.executable, "-c", PRINTS, str(path)], capture_output=True, text=True, check=True)
    assert sorted(path.read_text().splitlines()) == ["below", "below", "python 1", "python 2"]
    assert (process.stdout, process.stderr) == ("outside\n", "")
