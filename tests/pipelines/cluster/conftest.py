"""Clusters and servers that tests start as processes of their own, and that end with them; a small sweep for them."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest
import yaml

from pipelines.tracking import UI_ENVIRONMENT, read_results

EXACT = ("valid/", "test/", "train/loss", "best")
"""Metrics that a rerun gives to the last bit; the others are times and memory."""


class Processes:
    """What a test started."""

    RAY = (sys.executable, "-m", "ray.scripts.scripts")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[psutil.Popen] = []

    def start(self, *command: object, **options: Any) -> psutil.Popen:
        """Start a command in the background, ``env`` on top of this process's; its output goes to a numbered file."""
        env = {**os.environ, **{name: str(value) for name, value in options.pop("env", {}).items()}}
        with open(self._log(len(self.started)), "wb") as log:
            process = psutil.Popen(
                [str(word) for word in command],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **options,
            )
        self.started.append(process)
        return process

    def sweep(
        self, file: Path, storage: Path, *options: object, enter: tuple[str, ...] = (), **more: Any
    ) -> psutil.Popen:
        """Start ``recloss sweep``; ``enter`` comes before the command."""
        command = (sys.executable, "-m", "pipelines.cli", "sweep", file, "--storage", storage)
        return self.start(*enter, *command, *options, **more)

    def mlflow(self, store: str, port: int, artifacts: Path) -> psutil.Popen:
        """Start an MLflow server on this machine, and wait until it answers."""
        server = self.start(
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", "1",
            "--backend-store-uri", store, "--artifacts-destination", artifacts, env=UI_ENVIRONMENT,
        )  # fmt: skip
        self.until(lambda: self.answers(f"http://127.0.0.1:{port}/health"), 90, server)
        return server

    def output(self, process: psutil.Popen) -> str:
        return self._log(self.started.index(process)).read_text(errors="replace")

    def finish(self, process: psutil.Popen, seconds: float) -> str:
        """The output of a process that has to end well."""
        try:
            code = process.wait(seconds)
        except psutil.TimeoutExpired:
            raise AssertionError(f"not finished after {seconds} s: {self.output(process)}") from None
        assert code == 0, self.output(process)
        return self.output(process)

    def until(self, what: Callable[[], Any], seconds: float, process: psutil.Popen) -> Any:
        """The first true value of ``what()``, while a process lives."""
        deadline = time.monotonic() + seconds
        while not (value := what()):
            assert process.poll() is None, self.output(process)
            assert time.monotonic() < deadline, f"after {seconds} s: {self.output(process)}"
            time.sleep(0.05)
        return value

    def kill(self, process: psutil.Process) -> None:
        """Kill a process and all it started."""
        try:
            doomed = [*process.children(recursive=True), process]
        except psutil.NoSuchProcess:
            return
        for one in doomed:
            try:
                one.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(doomed, timeout=10)

    def stop(self, process: psutil.Popen) -> None:
        """Ask a process to end, then kill what is left of it and its children."""
        family = process.children(recursive=True)
        process.send_signal(signal.SIGTERM)
        psutil.wait_procs([process, *family], timeout=15)
        for one in [process, *family]:
            self.kill(one)

    @staticmethod
    def answers(url: str, **headers: str) -> int | None:
        """The HTTP status of an address; none where nobody listens."""
        try:
            return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5).status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    def _log(self, number: int) -> Path:
        return self.folder / f"process-{number}.txt"


@pytest.fixture
def background(tmp_path) -> Iterator[Processes]:
    """Processes that are killed at the end of the test."""
    (tmp_path / "logs").mkdir()
    ours = Processes(tmp_path / "logs")
    try:
        yield ours
    finally:
        for process in reversed(ours.started):
            ours.kill(process)


@dataclass
class Host:
    """Where a node runs: ``enter`` comes before its commands."""

    enter: tuple[str, ...]
    address: str
    env: dict[str, str]


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    """Three network namespaces with addresses of their own where this machine permits, else three times this host."""
    name, network = f"r{os.getpid() % 100_000}", f"10.{77 + os.getpid() % 100}.{os.getpid() // 100 % 250}"

    def ip(*words: str) -> bool:
        return subprocess.run(["ip", *words], capture_output=True).returncode == 0

    def made(n: int) -> bool:
        host = f"{name}-{n}"
        return (
            ip("netns", "add", host)
            and ip("link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", host)
            and ip("link", "set", host, "master", name, "up")
            and ip("-n", host, "addr", "add", f"{network}.{n}/24", "dev", "eth0")
            and ip("-n", host, "link", "set", "eth0", "up")
            and ip("-n", host, "link", "set", "lo", "up")
            and ip("-n", host, "route", "add", "default", "via", f"{network}.254")
        )

    try:
        allowed = shutil.which("ip") is not None and ip("link", "add", name, "type", "bridge")
        if allowed:
            allowed = ip("addr", "add", f"{network}.254/24", "dev", name) and ip("link", "set", name, "up")
        if allowed and all(made(n) for n in (1, 2, 3)):
            eth0 = {"GLOO_SOCKET_IFNAME": "eth0"}
            yield [Host(("ip", "netns", "exec", f"{name}-{n}"), f"{network}.{n}", eth0) for n in (1, 2, 3)]
        else:
            yield [Host((), "127.0.0.1", {})] * 3
    finally:
        if shutil.which("ip"):
            for n in (1, 2, 3):
                ip("netns", "del", f"{name}-{n}")
            ip("link", "del", name)


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """A folder for Ray's own files, with a path short enough for its sockets."""
    with TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Ports that nobody used a moment ago."""

    def port() -> int:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            return listener.getsockname()[1]

    return port


@pytest.fixture
def write_sweep(prepared, tmp_path) -> Callable[..., Path]:
    """Writes a sweep file of two cells, three grid trials and two confirmations, with changes."""

    def write(name: str = "toy", epochs: int = 6, **changes: Any) -> Path:
        raw = {
            "name": name,
            "data": [{"name": "toy", "path": str(prepared)}],
            "backbones": {"mf": {"backbone.dim": 8}},
            "losses": {
                "bpr": {"optim.lr": 0.01, "optim.weight_decay": 0},
                "sl": {"optim.lr": 0.1, "optim.weight_decay": 0, "loss.tau": [0.1, 0.2]},
            },
            "settings": {
                "train.epochs": epochs,
                "train.valid_every": 2,
                "train.patience": epochs,
                "train.negatives": 6,
                "train.batch_size": 64,
                "protocol.cutoffs": [5],
                "protocol.metric": "ndcg_5",
            },
            "confirm_seeds": [1],
        }
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(raw | changes))
        return file

    return write


def exact(uri: str, experiment: str = "toy") -> list[tuple[Any, ...]]:
    """All a tracking store says about the trials of a sweep that a rerun repeats to the last bit."""
    return [
        (t.hash, t.stages, t.status, t.params, {k: v for k, v in t.metrics.items() if k.startswith(EXACT)})
        for t in read_results(uri, experiment).trials
    ]


@pytest.fixture(name="exact")
def exact_fixture() -> Callable[..., list[tuple[Any, ...]]]:
    """`exact`."""
    return exact
