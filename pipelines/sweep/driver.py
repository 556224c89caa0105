"""The stages of a sweep: search every cell, select on validation, confirm the selected ones on fresh seeds."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from pipelines.prepare import Prepared
from pipelines.search.cell import Cell
from pipelines.search.describe import count
from pipelines.search.edges import edge_warnings
from pipelines.search.run import CellSearch
from pipelines.settings import SweepSettings, Trial
from pipelines.sweep.progress import SweepProgress
from pipelines.sweep.queue import Batches, Queue, Task
from pipelines.sweep.selection import Selected
from pipelines.sweep.stopping import Stop
from pipelines.sweep.trials import run_tasks
from pipelines.tracking import Recorder, Tracker
from pipelines.train import journal
from pipelines.train.capture import LOG
from pipelines.train.folder import CONFIG, DIAGNOSTICS, MODEL, TEST_USERS, status
from pipelines.train.patience import patiently
from recloss.errors import plain

RECORD_SECONDS = 10
"""The tracking store follows a running trial at most this often."""

Stage = Literal["grid", "confirm"]


class Driver:
    """The stages of one run of a sweep.

    Attributes:
        cut_off: why a trial is neither finished nor failed, where that is so.
    """

    def __init__(
        self,
        sweep: SweepSettings,
        folder: Path,
        prepared: Mapping[str, Prepared],
        recorder: Recorder,
        stop: Stop,
        console: Console,
    ) -> None:
        self.sweep, self.folder, self.prepared = sweep, folder, prepared
        self.recorder, self.stop, self.console = recorder, stop, console
        self.say = partial(console.print, markup=False, soft_wrap=True)
        self.cells: dict[Path, Cell] = {}
        self.cut_off = ""
        self._told: set[tuple[str, str]] = set()

    def run(self, cells: Sequence[Cell], start_ray: Callable[[], None]) -> bool:
        """Whether everything was trained and selected."""
        self.start_ray = start_ray
        searched = {cell.name: cell.size * len(cell.seeds) for cell in cells}
        confirmations = len(self.sweep.confirm_seeds)
        self.say(
            f"{count(len(cells), 'cell')}: {count(sum(searched.values()), 'trial')} to search, "
            f"{count(len(cells) * confirmations, 'confirmation')}"
        )
        planned = {name: count + confirmations for name, count in searched.items()}
        with SweepProgress(self.console, planned) as progress:

            def on_pruned(trial: Trial) -> None:
                self._over("grid", (self.folder / trial.hash).absolute(), progress)

            searches = [
                CellSearch(self.sweep, cell, self.folder, partial(self._task, cell), on_pruned) for cell in cells
            ]
            if not self._run_stage("grid", [search.batches() for search in searches], progress):
                return False
            selected = {search.cell.name: self._select(search) for search in searches}
            for name, choice in selected.items():
                progress.plan(name, confirmations if choice else 0)
            confirm = [
                self._task(choice.cell, choice.trials[0].model_copy(update={"seed": seed}), None, test=True)
                for choice in selected.values()
                for seed in self.sweep.confirm_seeds
                if choice
            ]
            if not self._run_stage("confirm", [iter([confirm])], progress):
                return False
        for task in confirm:
            if (task.folder / TEST_USERS).exists():
                self._attach(task)
        return True

    def _select(self, search: CellSearch) -> Selected | None:
        cell, choice, notes = search.cell, search.selected(), search.notes
        names = {"data_name": cell.data, "backbone": cell.backbone, "loss": cell.loss}
        if choice is not None:
            notes = [*notes, *edge_warnings(cell, choice.trials[0])]

        def write(tracker: Tracker) -> None:
            if choice is None:
                tracker.record_no_selection(**names)
            else:
                tracker.record_selection(**names, trials=choice.trials, metric=cell.metric, value=choice.value)
            tracker.record_notes(**names, notes=notes)

        self.recorder.soon(("cell", cell.name), write)
        return choice

    def _attach(self, task: Task) -> None:
        text = task.trial.model_dump_json(indent=2) + "\n"
        patiently(lambda: (task.folder / CONFIG).write_text(text, encoding="utf-8"))
        files = [task.folder / name for name in (CONFIG, MODEL, TEST_USERS, DIAGNOSTICS)]
        files = [file for file in files if file.exists()]
        self.recorder.soon(("files", task.folder), lambda tracker: tracker.attach(task.folder, files))

    def _task(self, cell: Cell, trial: Trial, until: int | None, *, test: bool = False) -> Task:
        task = Task(trial, self.prepared[cell.data].path, (self.folder / trial.hash).absolute(), test, until)
        self.cells[task.folder] = cell
        return task

    def _run_stage(self, stage: Stage, lines: Sequence[Batches], progress: SweepProgress) -> bool:
        recorded: dict[Path, float] = {}
        over: set[Path] = set()

        def on_done(task: Task) -> None:
            if task.folder not in over and (task.failed or status(task.folder) == "finished"):
                over.add(task.folder)
                self._over(stage, task.folder, progress)

        def on_change(folder: Path, what: str, result: dict[str, Any]) -> None:
            cell = self.cells[folder].name
            if what == "started":
                progress.started(cell, folder)
            elif what == "validated":
                progress.validated(cell, result["value"])
                if time.monotonic() - recorded.get(folder, 0) > RECORD_SECONDS:
                    self._record(stage, folder)
                    recorded[folder] = time.monotonic()
            else:
                progress.stopped(folder)
                self.cut_off = result.get("storage") or self.cut_off
                if journal.read(folder)[-1:] and journal.read(folder)[-1]["event"] in ("finish", "test", "fail"):
                    over.add(folder)
                    self._over(stage, folder, progress)
                else:
                    self._record(stage, folder)

        return run_tasks(Queue(lines, on_done), self.sweep.resources, self.stop, on_change, self.say, self.start_ray)

    def _over(self, stage: Stage, folder: Path, progress: SweepProgress) -> None:
        """Nothing is left to do for a trial in this stage."""
        self._record(stage, folder)
        events = journal.read(folder)
        finish = journal.last(events, "finish")
        how = {"fail": "failed", "prune": "pruned"}.get(events[-1]["event"], "done")
        cost = next((event["cost"]["seconds"] for event in reversed(events) if "cost" in event), None)
        if how == "failed":
            self._say_failure(folder, events[-1])
        progress.over(self.cells[folder].name, how, finish["best"] if finish and how == "done" else None, cost)

    def _say_failure(self, folder: Path, failure: dict[str, Any]) -> None:
        """One line for the first failure of each kind in a cell."""
        cell, kind = self.cells[folder].name, failure.get("kind", "error")
        if (cell, kind) not in self._told:
            self._told.add((cell, kind))
            self.say(f"{cell}: a trial failed ({kind}): {plain(failure['error'])}; its log: {folder / LOG}")

    def _record(self, stage: Stage, folder: Path) -> None:
        name = self.cells[folder].data
        key = ("trial", folder, stage)
        self.recorder.soon(key, lambda tracker: tracker.record_trial(folder, data_name=name, stage=stage))
