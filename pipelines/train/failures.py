"""Why a trial failed: five kinds, told apart by the exception that ended it."""

import errno
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from pipelines.settings import Trial
from pipelines.train import journal
from pipelines.train.cost import Cost
from recloss.loop import DivergedError

Kind = Literal["diverged", "out of memory", "storage", "crash", "error"]
"""Diverged is final. Storage is waited for. A crash (the process died) is resumed. The others end the trial for this
run of the sweep, and the next run tries it again."""

_STORAGE = {errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT, errno.ESTALE}
_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|bad_alloc", re.IGNORECASE)
_RAY_CRASHES = {
    "RayActorError",
    "WorkerCrashedError",
    "LocalRayletDiedError",
    "NodeDiedError",
    "WorkerHealthCheckFailedError",
    "WorkerHealthCheckTimeoutError",
    "WorkerGroupStartupFailedError",
}
_PEER_LOST = re.compile(
    r"gloo.*(connection|timed out)|connection (closed|reset) by.* peer|nccl.*(remote|system) error", re.I
)
"""What a data-parallel process says when another one is gone."""


def diagnose(error: BaseException) -> tuple[Kind, str]:
    """The kind of an exception and a line that says what happened.

    What lies below the exception decides: Ray and torch wrap what happened in errors of their own.
    """
    below = list(_below(error))
    for what, decides in _TESTS.items():
        if found := list(filter(decides, below)):
            return what, _line(found[-1])
    own = [e for e in below if not hasattr(e, "worker_failures") and getattr(e, "cause", None) is None]
    return "error", _line(own[0] if own else error)


def record(folder: Path, error: BaseException, trial: Trial, cost: Cost | None = None) -> None:
    """Add a failure to a trial's journal; trouble with the storage passes, and a crash may be resumed."""
    what, message = diagnose(error)
    if what == "diverged":
        message = f"{message} ({_parameters(trial)})"
    if what not in ("storage", "crash"):
        record_as(folder, what, message, cost)


def record_as(folder: Path, what: Kind, message: str, cost: Cost | None = None) -> None:
    """Add a failure of a known kind to a trial's journal."""
    event: dict[str, Any] = {"event": "fail", "time": time.time(), "kind": what, "error": message}
    journal.append(folder, event | ({"cost": cost.json()} if cost else {}))


def _parameters(trial: Trial) -> str:
    """What a divergence probably comes from."""
    flat = trial.flat().items()
    return ", ".join(f"{key}={value}" for key, value in flat if key.startswith("loss.") or key == "optim.lr")


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    named = isinstance(error, MemoryError) or "OutOfMemoryError" in _classes(error)
    return named or (isinstance(error, RuntimeError) and bool(_MEMORY.search(str(error))))


def _is_crash(error: BaseException) -> bool:
    peer_lost = isinstance(error, RuntimeError) and bool(_PEER_LOST.search(str(error)))
    return peer_lost or not _RAY_CRASHES.isdisjoint(_classes(error))


_TESTS: dict[Kind, Callable[[BaseException], bool]] = {
    # The storage first: what could not be recorded because of it happens again when it is back.
    "storage": lambda error: isinstance(error, OSError) and error.errno in _STORAGE,
    "diverged": lambda error: isinstance(error, DivergedError),
    "out of memory": _is_memory,
    "crash": _is_crash,
}


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _classes(error: BaseException) -> set[str]:
    return {cls.__name__ for cls in type(error).__mro__}


def _below(error: BaseException) -> Iterator[BaseException]:
    """The error and all that led to it."""
    seen: list[int] = []
    waiting: list[Any] = [error]
    while waiting:
        current = waiting.pop()
        if isinstance(current, BaseException) and id(current) not in seen:
            seen.append(id(current))
            yield current
            waiting += [current.__context__, current.__cause__, getattr(current, "cause", None)]
            waiting += getattr(current, "worker_failures", {}).values()
