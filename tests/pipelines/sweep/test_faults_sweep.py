"""Faults while a sweep runs: it ends as if there had been none."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
from mlflow.exceptions import MlflowException
from rich.console import Console

from pipelines.settings import SweepSettings, parse
from pipelines.sweep import run as sweep
from pipelines.sweep.run import run_sweep
from pipelines.tracking import UI_ENVIRONMENT, Tracker, read_results, recorder
from pipelines.tracking.store import contact
from pipelines.train import journal

pytestmark = pytest.mark.usefixtures("ray_local")

TRIALS = {"sl": {"loss.tau": [0.1, 0.2]}, "bpr": {}}


def settings(prepared, losses=TRIALS, **more):
    fixed = {"optim.lr": 0.05, "optim.weight_decay": 0, "backbone.dim": 8}
    raw = {
        "name": "toy",
        "data": [{"name": "toy", "path": str(prepared)}],
        "backbones": {"mf": None},
        "losses": {name: fixed | section for name, section in losses.items()},
        "settings": {
            "train.epochs": 12,
            "train.valid_every": 2,
            "train.patience": 100,
            "train.negatives": 6,
            "train.batch_size": 64,
            "protocol.cutoffs": [5],
            "protocol.metric": "ndcg_5",
        },
        "confirm_seeds": [1],
    }
    return parse(SweepSettings, raw | more, "toy")


def drive(chosen, storage, uri=None):
    """Run the sweep; how it ended, and what it said."""
    console = Console(record=True, width=1000, file=open(os.devnull, "w"))  # noqa: SIM115
    ending = run_sweep(chosen, storage=storage, tracking_uri=uri or store(storage), spaces=None, console=console)
    return ending, console.export_text()


def store(storage):
    return f"sqlite:///{storage}/mlflow.db"


def outcome(uri):
    """All that must not depend on faults."""
    trials = read_results(uri, "toy").trials
    return [
        (t.hash, t.stages, t.status, t.error, {k: v for k, v in t.metrics.items() if "seconds" not in k})
        for t in trials
    ]


def validated(folder):
    """(trial folder, process) of each trial that is between its validations."""
    for path in folder.glob(f"*/{journal.FILE}"):
        events = journal.read(path.parent)
        if events[1:] and events[-1]["event"] == "valid":
            yield path.parent, int(events[0]["environment"]["pid"])


@contextlib.contextmanager
def meanwhile(action):
    """Repeats an action in a thread until the block ends; what it raised is raised."""
    ended, raised = threading.Event(), []

    def work():
        try:
            while not ended.wait(0.02):
                action()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert not raised, raised


@pytest.fixture(scope="module")
def undisturbed(prepared, tmp_path_factory, ray_local):
    storage = tmp_path_factory.mktemp("undisturbed")
    ending, _ = drive(settings(prepared), storage)
    assert ending
    found = outcome(store(storage))
    assert [entry[2] for entry in found] == ["FINISHED"] * 5
    return found


@pytest.mark.parametrize("kind", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_trial_whose_process_dies_is_resumed(kind, prepared, undisturbed, tmp_path):
    killed = {}

    def kill():
        for folder, process in validated(tmp_path / "toy"):
            if folder not in killed:
                killed[folder] = (process, journal.read(folder)[0]["time"])
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, kind)

    with meanwhile(kill):
        ending, _ = drive(settings(prepared), tmp_path)
    assert ending
    assert outcome(store(tmp_path)) == undisturbed
    assert len(killed) == 5
    starts = {folder: journal.read(folder)[0] for folder in killed}
    assert all(starts[folder]["time"] == begun for folder, (_, begun) in killed.items()), (
        "it went on, and did not begin anew"
    )
    assert sum(int(starts[f]["environment"]["pid"]) != process for f, (process, _) in killed.items()) >= 4


@pytest.mark.parametrize(
    ("kind", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_first_signal_stops_at_the_next_validation(kind, code, prepared, undisturbed, tmp_path):
    sent = []

    def interrupt():
        if not sent and any(validated(tmp_path / "toy")):
            sent.append(time.time())
            os.kill(os.getpid(), kind)

    with meanwhile(interrupt):
        ending, said = drive(settings(prepared), tmp_path)
    assert (ending.code, ending.message, bool(ending)) == (code, "interrupted", False)
    assert "stopping: running trials end at their next validation" in said
    statuses = [trial.status for trial in read_results(store(tmp_path), "toy").trials]
    assert "KILLED" in statuses
    assert set(statuses) <= {"KILLED", "FINISHED"}
    started = list((tmp_path / "toy").glob(f"*/{journal.FILE}"))
    assert 1 <= len(started) <= 2, "no other trial started"
    assert all(journal.read(path.parent)[-1]["event"] in ("valid", "finish") for path in started)
    assert drive(settings(prepared), tmp_path)[0]
    assert outcome(store(tmp_path)) == undisturbed


class Outage:
    """Stands between a tracker and its store."""

    def __init__(self, monkeypatch):
        self.on = False
        for name in ("reread", "record_trial", "record_selection", "attach", "driver_seen", "sweep_ended"):
            monkeypatch.setattr(Tracker, name, self._between(getattr(Tracker, name)))
        monkeypatch.setattr(recorder, "_LONGEST_PAUSE", 1.0)

    def _between(self, write):
        def made(tracker, *arguments, **named):
            if self.on:
                raise MlflowException("API request failed: connection refused")
            return write(tracker, *arguments, **named)

        return made


def test_the_sweep_goes_on_without_its_store_and_catches_up(prepared, undisturbed, tmp_path, monkeypatch):
    outage = Outage(monkeypatch)

    def switch():
        finished = [e for e in map(journal.read, (tmp_path / "toy").glob("*")) if journal.last(e, "finish")]
        outage.on = 1 <= len(finished) < 4

    with meanwhile(switch):
        ending, said = drive(settings(prepared), tmp_path)
    assert ending
    assert (
        said.count("the tracking store does not answer (API request failed: connection refused); the sweep goes on")
        == 1
    )
    assert said.count("the tracking store answers again, and everything is recorded") == 1
    assert outcome(store(tmp_path)) == undisturbed


@pytest.mark.slow
def test_a_store_that_stays_away_costs_an_exit_code_and_nothing_else(prepared, undisturbed, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        outage = Outage(patched)
        patched.setattr(sweep, "STORE_SECONDS", 0.5)

        def switch():
            outage.on = outage.on or any(validated(tmp_path / "toy"))

        with meanwhile(switch):
            ending, _ = drive(settings(prepared), tmp_path)
    assert ending.code == 1
    assert ending.message.startswith("the tracking store does not answer (API request failed: connection refused): ")
    before = {path: path.read_bytes() for path in (tmp_path / "toy").glob(f"*/{journal.FILE}")}
    assert len(before) == 5
    assert drive(settings(prepared), tmp_path)[0]
    assert {path: path.read_bytes() for path in before} == before, "nothing is trained again"
    assert outcome(store(tmp_path)) == undisturbed


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a few megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("only root may mount a small file system to fill")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_waited_for(prepared, undisturbed, small_disk, tmp_path):
    ballast, filled = small_disk / "ballast", []

    def fill_and_free():
        if not filled and any(validated(small_disk / "toy")):
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            filled.append(time.monotonic())
        if filled and time.monotonic() - filled[0] > 4:
            ballast.unlink(missing_ok=True)

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with meanwhile(fill_and_free):
        ending, _ = drive(settings(prepared), small_disk, uri)
    assert ending
    assert filled
    assert outcome(uri) == undisturbed
    logs = [path.read_text() for path in (small_disk / "toy").glob("*/log.txt")]
    assert any("No space left on device" in log for log in logs)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Server:
    """A real MLflow server on a SQLite file."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        with contact(f"sqlite:///{folder}/server.db", create=True):
            pass

    @property
    def uri(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        place = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        kept = [
            "--backend-store-uri",
            f"sqlite:///{self.folder}/server.db",
            "--artifacts-destination",
            str(self.folder),
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *place, *kept],
            env=os.environ | UI_ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()
                return
            time.sleep(0.1)
        raise AssertionError("the server did not start")

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.mark.slow
def test_a_real_server_is_killed_and_started_again(prepared, undisturbed, tmp_path):
    server, downs = Server(tmp_path), []
    server.start()

    def restart():
        finished = [e for e in map(journal.read, (tmp_path / "toy").glob("*")) if journal.last(e, "finish")]
        if len(downs) < len(finished) and len(downs) < 2:
            server.kill()
            downs.append(time.time())
            time.sleep(3)
            server.start()

    try:
        with meanwhile(restart):
            ending, said = drive(settings(prepared), tmp_path, server.uri)
        assert (ending.code, ending.message) == (0, "")
        assert len(downs) == 2
        assert "the tracking store does not answer" in said
        assert outcome(server.uri) == undisturbed
    finally:
        server.kill()
