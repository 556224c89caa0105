"""What fits on which node, what the user is told where nothing does, and the driver's part when a process dies."""

import os
import pickle
import signal
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines.settings import ResourceSettings, make_trial, parse
from pipelines.sweep import resources, trials
from pipelines.sweep.resources import at_once, check_fits, shortage
from pipelines.sweep.stopping import Stop
from pipelines.train import journal
from recloss.errors import InputError

GB = 10**9
SMALL, LARGE = {"CPU": 2.0, "memory": 8.0 * GB}, {"CPU": 8.0, "GPU": 2.0, "memory": 30.0 * GB}


def asked(**settings):
    return parse(ResourceSettings, settings, "resources")


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, 2 + 8),
        ({"cpus": 2}, 1 + 4),
        ({"cpus": 3}, 2),
        ({"cpus": 0.5}, 4 + 16),
        ({"gpus": 0.5}, 4),
        ({"gpus": 1, "cpus": 5}, 1),
        ({"memory": "8 GB"}, 1 + 3),
        ({"memory": "8 GiB"}, 3),
        ({"cpus": 2, "workers": 2}, 2),
        ({"cpus": 8, "workers": 2}, 0),
        ({"cpus": 9}, 0),
    ],
)
def test_a_trial_needs_room_on_one_node_and_so_does_each_worker(settings, wanted):
    assert at_once([SMALL, LARGE], asked(**settings)) == wanted


def test_the_shortage_is_told_in_numbers():
    need = asked(cpus=10, gpus=0.5, memory="4 GB")
    assert shortage([SMALL, LARGE, LARGE], need) == (
        "one trial needs 10 CPU, 0.5 GPU, 4 GB of memory on one node; the Ray cluster's nodes have "
        "2 CPU, 0 GPU, 8 GB of memory; 8 CPU, 2 GPU, 30 GB of memory"
    )
    assert shortage([SMALL], asked(cpus=2, workers=2)) == (
        "a worker of a trial needs 2 CPU on one node and a trial has 2 workers; the Ray cluster's nodes have 2 CPU"
    )
    assert shortage([], asked()).endswith("the Ray cluster's nodes have nothing")


def test_what_cannot_fit_is_refused_at_once(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(resources, "nodes", lambda: [SMALL])
    assert check_fits(asked(), print) == 2
    with pytest.raises(
        InputError, match=r"^resources: one trial needs 64 CPU on one node; the Ray cluster's nodes have 2 CPU$"
    ):
        check_fits(asked(cpus=64), print)


def test_a_cluster_that_grows_is_asked_for_a_node_and_waited_for(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    looks, requests, said = [], [], []

    def nodes():
        looks.append(1)
        return [SMALL, LARGE] if len(looks) > 4 else [SMALL]

    monkeypatch.setattr(resources, "nodes", nodes)
    monkeypatch.setattr(resources.time, "sleep", lambda seconds: None)
    monkeypatch.setattr("ray.autoscaler.sdk.request_resources", lambda bundles: requests.append(bundles))
    assert check_fits(asked(gpus=1, workers=2), said.append) == 1
    assert requests == [[{"CPU": 1.0, "GPU": 1.0}] * 2, []]
    assert len(said) == 1
    assert said[0].endswith("asking for more and waiting 10 minutes")
    looks.clear()
    monkeypatch.setattr(resources, "NODE_SECONDS", -1.0)
    with pytest.raises(InputError, match="needs 1 CPU, 1 GPU on one node"):
        check_fits(asked(gpus=1), said.append)


class Queued:
    """Stands for the queue: which trials it heard of."""

    waits = True

    def __init__(self):
        self.over = []

    def ended(self, folder):
        self.over.append(folder)


@pytest.fixture
def run(tmp_path):
    changes = []
    made = trials._Run(
        Queued(), asked(), Stop(tmp_path, print), lambda folder, what, result: changes.append((folder.name, what))
    )
    made.changes = changes
    return made


def task(tmp_path, name, prepared_trial):
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    return {"folder": str(folder), "trial": prepared_trial.model_dump(mode="json"), "data": "x", "until": None}


@pytest.fixture
def a_trial():
    return make_trial("ab" * 32, "mf", "sl", {"train.batch_size": 64})


def started(folder, pid=1):
    journal.append(folder, {"event": "start", "time": time.time(), "environment": {"pid": str(pid)}})


class RayActorError(Exception):
    """Stands for Ray's."""


class OutOfMemoryError(Exception):
    """Stands for Ray's."""


def test_a_trial_that_dies_again_and_again_has_failed(run, a_trial, tmp_path):
    now = task(tmp_path, "t", a_trial)
    for _ in range(2):
        run.died(now, RayActorError("the actor died\nat length"))
        assert run.next() == now
    assert run.changes == []
    run.died(now, RayActorError("the actor died\nat length"))
    last = journal.read(tmp_path / "t")[-1]
    assert (last["event"], last["kind"]) == ("fail", "crash")
    assert last["error"] == (
        "the process of the trial died 3 times without a new validation; last: RayActorError: the actor died"
    )
    assert (run.changes, run.queue.over) == ([("t", "ended")], [tmp_path / "t"])


def test_a_trial_that_makes_progress_may_die_as_often_as_it_likes(run, a_trial, tmp_path):
    now = task(tmp_path, "t", a_trial)
    started(tmp_path / "t")
    for epoch in range(1, 12):
        run.died(now, RayActorError("dead"))
        assert run.next() == now
        if epoch % 2:
            journal.append(tmp_path / "t", {"event": "valid", "epoch": epoch, "metrics": {}})
    assert run.changes == []


def killed_by_monitor(*pids):
    cause = OutOfMemoryError("node running low on memory")
    named = "".join(
        f"Selected to kill: (Actor(a): job ID=01, name=f, pid={pid}, actual memory used=0.59GB)\n" for pid in pids
    )
    error = RuntimeError(
        f"Caught unexpected exception: {len(pids)} worker(s) were killed\n{named}Top memory users: pid=3"
    )
    error.__cause__ = cause
    return error


def test_after_the_memory_monitor_those_it_killed_shrink_and_all_start_again(run, a_trial, tmp_path):
    for name, pid in (("guilty", 11), ("bystander", 22)):
        run.running[tmp_path / name] = task(tmp_path, name, a_trial)
        started(tmp_path / name, pid)
    trials._resume(run, killed_by_monitor(11))
    assert run.running == {}
    assert {Path(run.next()["folder"]).name for _ in range(2)} == {"guilty", "bystander"}
    last = journal.read(tmp_path / "guilty")[-1]
    assert (last["event"], last["kind"]) == ("fail", "out of memory")
    assert [event["event"] for event in journal.read(tmp_path / "bystander")] == ["start"]


def test_a_trial_that_cannot_shrink_may_be_a_bystander_twice(run, tmp_path):
    now = task(tmp_path, "t", make_trial("ab" * 32, "mf", "bsl", {}))
    started(tmp_path / "t", 11)
    for _ in range(2):
        run.died(now, killed_by_monitor(11))
        assert run.next() == now
        assert [event["event"] for event in journal.read(tmp_path / "t")] == ["start"]
    run.died(now, killed_by_monitor(11))
    last = journal.read(tmp_path / "t")[-1]
    assert (last["event"], last["kind"]) == ("fail", "out of memory")
    assert last["error"].endswith("OutOfMemoryError: node running low on memory")


def test_the_driver_tells_once_that_no_trial_fits_any_more(run, monkeypatch):
    said, clock = [], [1000.0]
    alive = [{"CPU": 2.0}]
    monkeypatch.setattr(trials, "time", SimpleNamespace(monotonic=lambda: clock[0], time=time.time))
    monkeypatch.setattr(trials, "nodes", lambda: alive)
    watcher = trials._Watcher(run, said.append)

    def minute_later():
        clock[0] += 61
        watcher.on_step_end(0, [])

    minute_later()
    assert said == []
    alive.clear()
    watcher.on_step_end(0, [])
    assert said == [], "it looks once a minute"
    minute_later()
    minute_later()
    assert said == [
        "no trial can run: one trial needs 1 CPU on one node; the Ray cluster's nodes have nothing; "
        "waiting for a node (Ctrl-C stops)"
    ]
    alive.append({"CPU": 1.0})
    minute_later()
    minute_later()
    assert said[1:] == ["a trial fits on the cluster again: going on"]
    assert pickle.loads(pickle.dumps(watcher.__getstate__())) == {}


def test_signals_ask_once_and_end_the_second_time(tmp_path):
    said = []
    (tmp_path / "stop").touch()
    stop = Stop(tmp_path, said.append)
    assert not stop.path.exists(), "that of an earlier run stops nothing"
    before = signal.getsignal(signal.SIGTERM)

    def signals():
        with stop.listening():
            assert not stop.asked
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.asked
            assert stop.path.exists()
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        signals()
    assert stop.signal == signal.SIGTERM
    assert len(said) == 1
    assert not stop.path.exists()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_second_signal_that_python_cannot_raise_where_it_comes_is_not_lost(tmp_path, capsys):
    class Watched:
        pass

    def strike(watched):
        with Stop(tmp_path, print).listening():
            signal.raise_signal(signal.SIGINT)
            reference = weakref.ref(watched.pop(), lambda _: signal.raise_signal(signal.SIGINT))
            time.sleep(20)
            assert reference() is None

    with pytest.raises(KeyboardInterrupt):
        strike([Watched()])
    assert capsys.readouterr().err == ""
