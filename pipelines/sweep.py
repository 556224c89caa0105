"""A sweep: prepare data, train the grid, select on validation, confirm on fresh seeds, score test, record everything.

Running it again skips what is finished, resumes what was cut off and runs what is missing.
"""

import fcntl
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines.cluster import connected
from pipelines.plan import Cell, plan
from pipelines.prepare import Prepared
from pipelines.progress import SweepProgress
from pipelines.selection import Selected, select
from pipelines.settings import SweepSettings, Trial
from pipelines.sweep_data import prepare_data
from pipelines.tracking import Tracker, open_tracker
from pipelines.train import MODEL, TEST_USERS, check_fits, status
from pipelines.trials import Task, run_tasks
from recloss.errors import InputError

LOCK, CONFIG = "driver.lock", "trial.json"
RECORD_SECONDS = 10
"""The tracking store follows a running trial at most this often; a write takes a tenth of a second."""


def run_sweep(sweep: SweepSettings, *, storage: Path, tracking_uri: str, spaces: Path | None, console: Console) -> bool:
    """Run a sweep to its end.

    Args:
        sweep: the settings.
        storage: folder that holds ``<sweep>/<trial hash>/`` and, beside a SQLite store, the artifacts.
        tracking_uri: MLflow store.
        spaces: a folder of the user's own search spaces.
        console: for progress.

    Returns:
        ``False`` if it was interrupted; everything finished so far is kept.

    Raises:
        InputError: for a mistake in the settings or the data, before anything is trained.
    """
    say = partial(console.print, markup=False, soft_wrap=True)
    plan(sweep, {}, spaces)
    prepared = {data.name: prepare_data(data, say) for data in sweep.data}
    _check_distinct(prepared)
    cells = plan(sweep, {name: data.fingerprint for name, data in prepared.items()}, spaces)
    for cell in cells:
        for trial in cell.grid:
            check_fits(trial, prepared[cell.data].n_users, prepared[cell.data].n_items)

    folder = storage / sweep.name
    folder.mkdir(parents=True, exist_ok=True)
    with lease(folder, sweep.name):
        tracker = open_tracker(tracking_uri, sweep.name, storage / "artifacts" / sweep.name)
        tracker.sweep_started(_resolved(sweep, prepared))
        ended = "FAILED"
        try:
            with connected():
                complete = _Driver(sweep, folder, prepared, tracker, console).run(cells)
            ended = "FINISHED" if complete else "KILLED"
        except KeyboardInterrupt:
            ended = "KILLED"
        finally:
            tracker.close_stale(set())
            tracker.sweep_ended(ended)  # type: ignore[arg-type]
    return ended == "FINISHED"


def _check_distinct(prepared: Mapping[str, Prepared]) -> None:
    names: dict[str, str] = {}
    for name, data in prepared.items():
        if (other := names.setdefault(data.fingerprint, name)) != name:
            raise InputError(
                f"data: {other!r} and {name!r} have the same content (fingerprint {data.fingerprint[:12]})"
            )


def _resolved(sweep: SweepSettings, prepared: Mapping[str, Prepared]) -> dict[str, Any]:
    """The settings as JSON, each data set with how it was prepared."""
    settings = sweep.model_dump(mode="json")
    for data in settings["data"]:
        data["prepare"] = prepared[data["name"]].manifest["settings"]
    return settings


class _Driver:
    """The stages of one run of a sweep."""

    def __init__(
        self,
        sweep: SweepSettings,
        folder: Path,
        prepared: Mapping[str, Prepared],
        tracker: Tracker,
        console: Console,
    ) -> None:
        self.sweep, self.folder, self.prepared = sweep, folder, prepared
        self.tracker, self.console = tracker, console
        self.data_names: dict[Path, str] = {}

    def run(self, cells: Sequence[Cell]) -> bool:
        grid = [self._task(cell, trial, test=False) for cell in cells for trial in cell.grid]
        confirmations = len(cells) * len(self.sweep.confirm_seeds)
        done = sum(task.done for task in grid)
        total = len(grid) + confirmations
        self.console.print(f"{len(cells)} cells: {len(grid)} grid trials ({done} done), {confirmations} confirmations")
        with SweepProgress(self.console, total, done) as progress:
            if not self._run_stage("grid", grid, progress):
                return False
            selected = [choice for cell in cells if (choice := self._select(cell))]
            confirm = [
                self._task(choice.cell, choice.trials[0].model_copy(update={"seed": seed}), test=True)
                for choice in selected
                for seed in self.sweep.confirm_seeds
            ]
            progress.skip(sum(task.done for task in confirm), without=confirmations - len(confirm))
            if not self._run_stage("confirm", confirm, progress):
                return False
        for task in confirm:
            if (task.folder / TEST_USERS).exists():
                (task.folder / CONFIG).write_text(task.trial.model_dump_json(indent=2) + "\n", encoding="utf-8")
                self.tracker.attach(task.folder, [task.folder / name for name in (CONFIG, MODEL, TEST_USERS)])
        return True

    def _select(self, cell: Cell) -> Selected | None:
        choice = select(cell, self.folder)
        names = {"data_name": cell.data, "backbone": cell.backbone, "loss": cell.loss}
        if choice is None:
            self.tracker.record_no_selection(**names)
        else:
            metric = cell.grid[0].protocol.metric
            self.tracker.record_selection(**names, trials=choice.trials, metric=metric, value=choice.value)
        return choice

    def _task(self, cell: Cell, trial: Trial, test: bool) -> Task:
        task = Task(trial, self.prepared[cell.data].path, self.folder / trial.hash, test)
        self.data_names[task.folder.absolute()] = cell.data
        return task

    def _run_stage(self, stage: str, tasks: Sequence[Task], progress: SweepProgress) -> bool:
        for task in tasks:
            if task.done:
                self._record(task.folder, stage)

        recorded: dict[Path, float] = {}

        def on_change(folder: Path, what: str) -> None:
            if what == "started":
                progress.started(folder)
            elif what == "ended":
                self._record(folder, stage)
                progress.ended(folder, failed=status(folder) != "finished")
            elif time.monotonic() - recorded.get(folder, 0) > RECORD_SECONDS:
                self._record(folder, stage)
                recorded[folder] = time.monotonic()

        return run_tasks(tasks, self.sweep.resources, self.folder / "ray", on_change)

    def _record(self, folder: Path, stage: str) -> None:
        self.tracker.record_trial(folder, data_name=self.data_names[folder.absolute()], stage=stage)  # type: ignore[arg-type]


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
