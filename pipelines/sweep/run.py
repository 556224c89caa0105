"""A sweep: prepare data, train the grid, select on validation, confirm on fresh seeds, score test, record everything.

Running it again skips what is finished, resumes what was cut off and runs what is missing.
"""

import fcntl
import functools
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines.cluster import check_shared, connected
from pipelines.prepare import Prepared
from pipelines.search.cell import Cell
from pipelines.settings import SweepSettings, Trial
from pipelines.sweep.data import prepare_data
from pipelines.sweep.driver import Driver
from pipelines.sweep.plan import plan
from pipelines.sweep.stopping import Stop
from pipelines.tracking import Recorder, Tracker, open_tracker
from pipelines.train.failures import diagnose
from pipelines.train.tasks import check_fits
from recloss.errors import InputError

LOCK = "driver.lock"
STORE_SECONDS, INTERRUPTED_SECONDS = 600.0, 20.0
"""So long a sweep that is over waits for a tracking store that does not answer, and one that was interrupted."""


@dataclass(frozen=True)
class Ending:
    """How a run of a sweep ended. It is true if the sweep is complete and all of it recorded."""

    code: int = 0
    """Exit code: 0, 1 where something is missing that the same command will do, 130 after Ctrl-C, 143 after SIGTERM."""
    message: str = ""
    """What is missing."""

    def __bool__(self) -> bool:
        return self.code == 0


def run_sweep(
    sweep: SweepSettings, *, storage: Path, tracking_uri: str, spaces: Path | None, console: Console
) -> Ending:
    """Run a sweep to its end.

    Args:
        sweep: the settings.
        storage: folder that holds ``<sweep>/<trial hash>/`` and, beside a SQLite store, the artifacts.
        tracking_uri: MLflow store.
        spaces: a folder of the user's own search spaces.
        console: for progress.

    Raises:
        InputError: for a mistake in the settings or the data, before anything is trained.
    """
    say = partial(console.print, markup=False, soft_wrap=True)
    plan(sweep, {}, spaces)
    prepared = {data.name: prepare_data(data, say) for data in sweep.datasets}
    _check_distinct(prepared)
    cells = plan(sweep, {name: data.fingerprint for name, data in prepared.items()}, spaces)
    for (name, *_), trial in {_sizes(cell, trial): trial for cell in cells for trial in cell.grid}.items():
        data = prepared[name]
        check_fits(trial, data.manifest, sweep.resources.workers)

    folder = storage / sweep.name
    folder.mkdir(parents=True, exist_ok=True)
    with lease(folder, sweep.name):
        tracker = open_tracker(tracking_uri, sweep.name, storage / "artifacts" / sweep.name)
        tracker.sweep_started(_resolved(sweep, prepared), [data.manifest for data in prepared.values()])
        tracker.sweep_data([(name, data.path, data.manifest) for name, data in prepared.items()])
        tracker.sweep_planned([cell.size * len(cell.seeds) for cell in cells], len(sweep.confirm_seeds))
        with Recorder(tracker, say) as recorder:
            driver = Driver(sweep, folder, prepared, recorder, Stop(folder, say), console)
            return _drive(driver, cells)


def _drive(driver: Driver, cells: Sequence[Cell]) -> Ending:
    """Run the stages; whatever ends them, the store is told, if it answers in time."""
    stop, status, code, message = driver.stop, "FAILED", 1, ""
    try:
        with ExitStack() as stack:
            complete = driver.run(cells, _starter(stack, driver))
        status = "FINISHED" if complete else "KILLED"
        code, message = (0, "") if complete else (1, driver.cut_off)
    except KeyboardInterrupt:
        status = "KILLED"
        stop.signal = stop.signal or signal.SIGINT
    except OSError as error:
        what, message = diagnose(error)
        if what != "storage":
            raise
        status = "KILLED"
    finally:
        ended = partial(Tracker.sweep_ended, status=status)  # type: ignore[arg-type]
        driver.recorder.soon("stale", lambda tracker: tracker.close_stale(set()))
        driver.recorder.soon("ended", ended)
        missing = driver.recorder.flush(STORE_SECONDS if stop.signal is None else INTERRUPTED_SECONDS)
    if stop.signal is not None and status == "KILLED":
        code = 128 + stop.signal
    told = [message or ("interrupted" if stop.signal else ""), missing]
    return Ending(max(code, 1) if missing else code, "; ".join(filter(None, told)))


def _sizes(cell: Cell, trial: Trial) -> tuple[str, ...]:
    """What `check_fits` looks at: most trials of a grid share it."""
    parts = (trial.backbone, trial.loss, trial.sampler, trial.protocol, trial.soft_labels)
    return cell.data, *(part.model_dump_json() if part else "" for part in parts)


def _starter(stack: ExitStack, driver: Driver) -> Callable[[], None]:
    """What starts Ray when it is needed first; a sweep that is finished does without.

    Signals are for the driver's ``stop`` only then: Ray takes SIGTERM for itself when it starts.
    """

    @functools.cache
    def start() -> None:
        stack.enter_context(connected())
        stack.enter_context(driver.stop.listening())
        check_shared(driver.folder, (data.path / "manifest.json" for data in driver.prepared.values()))

    return start


def _check_distinct(prepared: Mapping[str, Prepared]) -> None:
    names: dict[str, str] = {}
    for name, data in prepared.items():
        if (other := names.setdefault(data.fingerprint, name)) != name:
            raise InputError(
                f"data: {other!r} and {name!r} have the same content (fingerprint {data.fingerprint[:12]})"
            )


def _resolved(sweep: SweepSettings, prepared: Mapping[str, Prepared]) -> dict[str, Any]:
    """The settings as JSON, each data set with how it was prepared."""
    settings = sweep.model_copy(update={"data": tuple(sweep.datasets)}).model_dump(mode="json")
    for data in settings["data"]:
        data["prepare"] = prepared[data["name"]].manifest["settings"]
    return settings


@contextmanager
def lease(folder: Path, name: str) -> Iterator[None]:
    """Exclude a second live driver of the same sweep; the lock of a killed one is free.

    Raises:
        InputError: naming the process that holds it.
    """
    with open(folder / LOCK, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise InputError(f"sweep {name!r} is being run by {file.read().strip()}; its folder is {folder}") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
