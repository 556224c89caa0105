"""What this machine offers the pipelines, what is missing, how to mend it: the checks of ``recloss doctor``.

A check never raises: what does not work is a failed check with a hint. Ray and the tracking store are tried
in child processes with a time limit: neither can hang this one or leave anything in it.
"""

import importlib.metadata
import json
import logging
import os
import platform
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from rich.console import Console
from rich.table import Table
from rich.text import Text

import recloss
from pipelines.tracking.store import redact

_GIB = 2**30


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        name: what was looked at.
        ok: whether it will do.
        detail: what was found.
        hint: how to mend it where it will not do.
        required: whether the pipelines cannot work without it.
    """

    name: str
    ok: bool
    detail: str
    hint: str = ""
    required: bool = True


def checks(tracking_uri: str, storage: Path) -> list[Check]:
    """All checks in the order they are shown: about 15 s, most of it starting Ray and reading the store."""
    planned: list[tuple[str, Callable[[], Check]]] = [
        ("Python", python),
        ("machine", machine),
        ("recloss", checkout),
        ("packages", packages),
        ("torch devices", devices),
        ("native kernels", kernels),
        ("Ray cluster file", cluster_file),
        ("Ray", ray_starts),
        ("tracking", lambda: tracking(tracking_uri)),
        ("storage", lambda: writable(storage)),
        ("disk", lambda: disk(storage)),
        ("shared memory", lambda: shared_memory(Path("/dev/shm"))),
        ("RECLOSS_DATA", lambda: folder_variable("RECLOSS_DATA", must_exist=True)),
        ("RECLOSS_CACHE", lambda: folder_variable("RECLOSS_CACHE", must_exist=False)),
    ]
    return [_guarded(name, check) for name, check in planned]


def render(found: list[Check], fine: str = "everything required is there") -> bool:
    """Print the report to standard output, with ``fine`` at its end if every required check is ok; that is returned."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for check in found:
        bad = Text("FAIL", "bold red") if check.required else Text("warn", "yellow")
        table.add_row(Text("ok", "green") if check.ok else bad, Text(check.name), Text(check.detail))
        if check.hint and not check.ok:
            table.add_row("", "", Text(f"-> {check.hint}"))
    failed = [check.name for check in found if check.required and not check.ok]
    console = Console(highlight=False)
    console.print(table)
    console.print(Text(f"to mend: {', '.join(failed)}" if failed else fine))
    return not failed


def python() -> Check:
    """The interpreter, against what the package asks."""
    asked = importlib.metadata.metadata("recloss")["Requires-Python"]
    ok = SpecifierSet(asked).contains(platform.python_version(), prereleases=True)
    detail = f"{platform.python_version()} (asked: {asked}), {sys.executable}"
    return Check("Python", ok, detail, f"make a virtual environment with Python {asked}")


def machine() -> Check:
    """Operating system, usable processors and memory; the limits of a container count."""
    detail = f"{platform.platform()}, {_cpus():g} CPUs, {_memory() / _GIB:.1f} GiB memory"
    return Check("machine", True, detail)


def checkout() -> Check:
    """Which recloss runs: version, folder, git commit if the folder is a checkout."""
    folder = Path(recloss.__file__).resolve().parent.parent
    commit = "not a git checkout"
    if (folder / ".git").exists() and shutil.which("git"):
        git = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        said = subprocess.run(git, capture_output=True, text=True)
        commit = f"git {said.stdout.strip() or said.stderr.strip()}"
    return Check("recloss", True, f"{recloss.__version__}, {folder}, {commit}")


def packages() -> Check:
    """Versions of all the pipelines need, against what the installed recloss asks."""
    asked = [Requirement(line) for line in importlib.metadata.requires("recloss") or []]
    needed = [r for r in asked if r.marker is None or r.marker.evaluate({"extra": "pipelines"})]
    versions = {r.name: _version(r.name) for r in needed}
    wrong = [r for r in needed if not ((v := versions[r.name]) and r.specifier.contains(v, prereleases=True))]
    detail = ", ".join(f"{name} {version or 'missing'}" for name, version in versions.items())
    hint = "pip install " + " ".join(f"'{r.name}{_extras(r)}{r.specifier}'" for r in wrong)
    return Check("packages", not wrong, detail, hint)


def devices() -> Check:
    """What torch can compute on."""
    import torch

    found = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    found += ["MPS"] if torch.backends.mps.is_available() else []
    detail = f"CPU ({torch.get_num_threads()} threads), {', '.join(found) or 'no GPU'}"
    return Check("torch devices", True, detail)


def kernels() -> Check:
    """Whether the fast inner loops can be built here; without them torch does their work."""
    from recloss import native

    reason = native.why_not()
    hint = "install a C compiler (gcc or clang) for training that is 2 to 3 times faster on a CPU"
    return Check("native kernels", reason is None, reason or "built", hint, required=False)


def cluster_file() -> Check:
    """Whether Ray remembers a killed cluster: ``RAY_ADDRESS=auto`` and a plain ``ray.init`` then fail."""
    linux = os.environ.get("TMPDIR", "/tmp") if sys.platform == "linux" else "/tmp"
    file = Path(os.environ.get("RAY_TMPDIR", linux), "ray", "ray_current_cluster")
    if not file.exists():
        return Check("Ray cluster file", True, "none: no cluster was started on this machine")
    address = file.read_text(encoding="utf-8").strip()
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
    except (OSError, ValueError):
        detail = f"{file} names {address!r}, where no cluster answers"
        return Check("Ray cluster file", False, detail, f"ray stop, or rm {file}", required=False)
    return Check("Ray cluster file", True, f"a cluster answers at {address}")


def ray_starts(seconds: float = 90) -> Check:
    """Ray starts on this machine and runs a task."""
    ok, detail = _child(start_ray, "", seconds)
    return Check("Ray", ok, detail, "look for memory, disk and Ray's logs in session_latest of its folder")


def tracking(uri: str, seconds: float = 60) -> Check:
    """MLflow reaches the tracking store; a store that does not exist yet is not made."""
    ok, detail = _child(read_store, uri, seconds)
    hint = "start the server or mend the address; a local store is sqlite:///<absolute path>/mlflow.db"
    return Check("tracking", ok, f"{redact(uri)}: {redact(detail, uri)}", hint)


def writable(storage: Path) -> Check:
    """A file can be made in the storage folder, or where the folder will be."""
    folder = _nearest(storage)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".recloss-doctor-"):
            pass
    except OSError as error:
        detail = f"{storage}: no file can be made in {folder} ({error.strerror})"
        return Check("storage", False, detail, "choose another storage folder, or its owner grants access")
    made = "is writable" if folder == storage.absolute() else f"will be created in {folder}"
    return Check("storage", True, f"{storage} {made}")


def disk(storage: Path, least: int = 2 * _GIB) -> Check:
    """Free space where the storage folder is or will be."""
    free = shutil.disk_usage(_nearest(storage)).free
    hint = f"checkpoints and Ray's files need at least {least / _GIB:g} GiB"
    return Check("disk", free >= least, f"{free / _GIB:.1f} GiB free for {storage}", hint)


def shared_memory(mount: Path, least: int = _GIB) -> Check:
    """Size of the memory that Ray's processes share; a small one makes Ray slow, not wrong."""
    if not mount.exists():
        return Check("shared memory", True, f"this system has no {mount}", required=False)
    total = shutil.disk_usage(mount).total
    hint = "Ray falls back to slower files; in a container, raise it: docker run --shm-size=4g"
    return Check("shared memory", total >= least, f"{mount}: {total / _GIB:.1f} GiB", hint, required=False)


def folder_variable(name: str, must_exist: bool) -> Check:
    """An environment variable that names a folder, or is not set."""
    value = os.environ.get(name)
    if value is None:
        return Check(name, True, "not set")
    ok = Path(value).is_dir() or not (must_exist or Path(value).exists())
    return Check(name, ok, value, f"this is not a folder: set {name} to one, or unset it")


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as error:
        return Check(name, False, f"{type(error).__name__}: {error}", "unforeseen; please report this line")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _extras(requirement: Requirement) -> str:
    return f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""


def _nearest(folder: Path) -> Path:
    """The folder, or the first one above it that exists."""
    folder = folder.absolute()
    while not os.path.exists(folder):
        folder = folder.parent
    return folder


def _cpus() -> float:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = Path("/sys/fs/cgroup/cpu.max")
    quota, period = limit.read_text().split() if limit.exists() else ("max", "1")
    return count if quota == "max" else min(count, int(quota) / int(period))


def _memory() -> int:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    allowed = limit.read_text().strip() if limit.exists() else "max"
    return total if allowed == "max" else min(total, int(allowed))


def _child(function: Callable[[str], str], given: str, seconds: float) -> tuple[bool, str]:
    """Run a function of this module in a process group of its own; ``given`` goes to its standard input."""
    program = f"from pipelines import doctor; doctor.answer(doctor.{function.__name__})"
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", program],
            env={
                "RAY_AUTH_TOKEN": secrets.token_hex(32),
                **os.environ,
                **quiet,
                "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            },
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.communicate(given.encode(), timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return False, f"no answer within {seconds:g} s"
        output.seek(0)
        last = (output.read().decode(errors="replace").splitlines() or [""])[-1]
    try:
        ok, detail = json.loads(last)
    except ValueError:
        return False, f"the process ended with code {process.returncode}: {last}"
    return ok, detail


def answer(function: Callable[[str], str]) -> None:
    """In the child: print, as the last line, ``[worked, what it found or how it failed]``."""
    result: list[Any]
    try:
        result = [True, function(sys.stdin.read())]
    except Exception as error:
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        result = [False, f"{type(error).__name__}: {first}"]
    print(f"\n{json.dumps(result)}", flush=True)


def start_ray(_: str) -> str:
    """In the child: start Ray, run one task, stop it."""
    import ray

    @ray.remote
    def task() -> int:
        return os.getpid()

    begin = time.perf_counter()
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=100_000_000,
    )
    started = time.perf_counter()
    ray.get(task.remote())
    done = time.perf_counter()
    ray.shutdown()
    return f"started in {started - begin:.1f} s, first task in {done - started:.1f} s"


def read_store(uri: str) -> str:
    """In the child: read one experiment; a database without MLflow's tables stays as it is."""
    from mlflow import MlflowClient
    from mlflow.store.db.db_types import DATABASE_ENGINES
    from mlflow.store.db.utils import create_sqlalchemy_engine

    if re.split(r"[:+]", uri)[0] in DATABASE_ENGINES:
        engine = create_sqlalchemy_engine(uri)
        if engine.dialect.name == "sqlite" and not os.path.exists(engine.url.database):
            check = writable(Path(engine.url.database).parent)
            if not check.ok:
                raise OSError(check.detail)
            return "will be created"
        with engine.connect() as connection:
            if not engine.dialect.has_table(connection, "experiments"):
                return "will be created"
    MlflowClient(uri).search_experiments(max_results=1)
    return "answers"
