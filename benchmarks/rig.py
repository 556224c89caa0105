"""A place to break things in: a Ray cluster of several nodes, an MLflow server and the driver of a sweep.

All are processes of ours; only these are ever signalled, and none outlives `Rig.close`.
"""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from pipelines.tracking import UI_ENVIRONMENT
from pipelines.train import journal

RAY = (sys.executable, "-m", "ray.scripts.scripts", "start", "--block")
HEALTH_CHECKS = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
}
"""The loss of a node is noticed in seconds instead of a minute."""
START_SECONDS = 120
START_ATTEMPTS = 3


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(what: Callable[[], Any], why: str) -> Any:
    """The first true value of ``what()``."""
    deadline = time.monotonic() + START_SECONDS
    while not (value := what()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not after {START_SECONDS} s: {why}")
        time.sleep(0.05)
    return value


def kill(processes: list[psutil.Process], number: signal.Signals = signal.SIGKILL) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def family(process: psutil.Process) -> list[psutil.Process]:
    """A process and all below it."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


class Rig:
    """A Ray cluster for a sweep at a time, each run by ``recloss sweep`` and recorded by an MLflow server of its own.

    Args:
        folder: for logs and Ray's files.
        nodes: workers of the cluster, each with one CPU and an address of its own; the head has none.
    """

    def __init__(self, folder: Path, nodes: int = 2) -> None:
        self.folder = folder
        self.started: list[psutil.Popen] = []
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.env = {**os.environ, **token, **HEALTH_CHECKS, "RAY_USAGE_STATS_ENABLED": "0"}
        self.env |= {"RAY_TMPDIR": str(folder / "r")}
        port, self.port = free_port(), free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        head = self._start(*RAY, "--head", "--port", port, "--num-cpus", 0, "--include-dashboard", "false")
        if not self._runs(head):
            raise RuntimeError(self.output(head))
        self.address = next(w for w in self.output(head).replace("'", " ").split() if w.endswith(f":{port}"))
        self.nodes = {number: self.add_node(number) for number in range(2, nodes + 2)}
        self.server = self.driver = head

    def open(self, storage: Path, sweep: Path, name: str, database: Path) -> None:
        """Begin with a sweep (its file and name), its storage and its store."""
        self.storage, self.sweep, self.name, self.database = storage, sweep, name, database
        self.trials = storage / name
        self.serve()

    def add_node(self, number: int) -> psutil.Popen:
        """Start a worker of the cluster; Ray gives up after 30 s on a machine that is busy, then again."""
        address = ("--address", self.address, "--node-ip-address", f"127.0.0.{number}")
        for _ in range(START_ATTEMPTS):
            node = self._start(*RAY, *address, "--num-cpus", 1)
            if self._runs(node):
                return node
        raise RuntimeError(self.output(node))

    def serve(self) -> None:
        """Start the MLflow server; it answers when this returns."""
        self.server = self._start(
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", self.port, "--workers", "1",
            "--artifacts-destination", self.database.with_suffix(".artifacts"),
            env=UI_ENVIRONMENT | {"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{self.database}"},
        )  # fmt: skip
        wait_for(self._healthy, "the MLflow server does not start")

    def end_server(self) -> None:
        """Kill the MLflow server."""
        doomed = family(self.server)
        kill(doomed)
        psutil.wait_procs(doomed, timeout=10)

    def drive(self) -> None:
        """Start ``recloss sweep``."""
        command = (sys.executable, "-m", "pipelines.cli", "sweep", self.sweep, "--storage", self.storage)
        self.driver = self._start(*command, env={"RAY_ADDRESS": self.address, "MLFLOW_TRACKING_URI": self.uri})

    def output(self, process: psutil.Popen) -> str:
        return self._log(self.started.index(process)).read_text(errors="replace")

    def training(self, below: psutil.Process | None = None) -> dict[psutil.Process, Path]:
        """The processes (of one node) that are training now, with the trial's folder: their output goes to its log."""
        found = {}
        for node in [below] if below else list(self.nodes.values()):
            for process in family(node):
                with contextlib.suppress(psutil.NoSuchProcess, OSError):
                    out = Path(os.readlink(f"/proc/{process.pid}/fd/1"))
                    if out.parent.parent == self.trials:
                        found[process] = out.parent
        return found

    def close(self) -> None:
        """End everything."""
        doomed = [one for process in reversed(self.started) for one in family(process)]
        kill(doomed)
        psutil.wait_procs(doomed, timeout=10)

    def _start(self, *command: object, env: dict[str, str] | None = None) -> psutil.Popen:
        with open(self._log(len(self.started)), "wb") as log:
            process = psutil.Popen(
                [str(word) for word in command],
                env=self.env | (env or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def _log(self, number: int) -> Path:
        return self.folder / f"process-{number}.txt"

    def _runs(self, node: psutil.Popen) -> bool:
        """Whether Ray started, or ended."""
        wait_for(lambda: "Ray runtime started" in self.output(node) or node.poll() is not None, "Ray does not start")
        return node.poll() is None

    def _healthy(self) -> bool:
        try:
            return urllib.request.urlopen(f"{self.uri}/health", timeout=2).status == 200
        except OSError:
            return False


class Watch:
    """Follows the journals of a sweep: what was validated, and what was validated again."""

    def __init__(self, trials: Path) -> None:
        self.trials = trials
        self.seen: dict[tuple[str, int], set[float]] = {}

    def look(self) -> None:
        for file in self.trials.glob(f"*/{journal.FILE}"):
            for event in self._events(file.parent):
                if event["event"] == "valid":
                    self.seen.setdefault((file.parent.name, event["epoch"]), set()).add(event["time"])

    @property
    def progress(self) -> int:
        """Validations of different epochs and trials."""
        return len(self.seen)

    @property
    def again(self) -> int:
        """Validations that were made again."""
        return sum(len(times) - 1 for times in self.seen.values())

    def _events(self, folder: Path) -> list[dict[str, Any]]:
        try:
            return journal.read(folder)
        except (OSError, ValueError):
            return []
