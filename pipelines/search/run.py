"""The search of one cell: batches of tasks, each decided by what the trials of the ones before have reached."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipelines.search.cell import Cell, Configuration
from pipelines.search.halving import pause, rungs, survivors
from pipelines.search.tpe import Proposals
from pipelines.settings import REFERENCE, SweepSettings, Trial
from pipelines.sweep.queue import Task
from pipelines.sweep.selection import Selected, Standing, failed, reached, select
from pipelines.train import journal
from pipelines.train.patience import patiently


class CellSearch:
    """What is trained in a cell, in which order, and what wins.

    Nothing of it is stored: a search that is started again goes through the same decisions, by the trials' journals,
    and trains what is missing.

    Args:
        sweep: the settings.
        cell: what is searched.
        folder: of the sweep.
        task: makes the task of a trial, to an epoch or to its end.
        on_pruned: called with each trial that is not trained on.
    """

    def __init__(
        self,
        sweep: SweepSettings,
        cell: Cell,
        folder: Path,
        task: Callable[[Trial, int | None], Task],
        on_pruned: Callable[[Trial], None],
    ) -> None:
        self.cell = cell
        self._search, self._halving, self._hours = sweep.search, sweep.halving, sweep.budget.hours_per_cell
        self._folder, self._task, self._on_pruned = folder, task, on_pruned
        self._rungs = rungs(sweep.halving, cell.grid)
        self._standings: dict[str, Standing] = {}
        self._unaffordable: set[str] = set()
        self._pruned = 0

    def batches(self) -> Iterator[Iterator[Task]]:
        """The tasks: all configurations to the first rung, then the survivors of each to the next."""
        for configurations in self._proposed():
            new = [c for c in configurations if c[0].hash not in self._standings]
            self._standings |= {c[0].hash: Standing(c) for c in new}
            yield self._tasks(new, 0)
            self._measure(new, 0)
        alive = [standing.configuration for standing in self._standings.values()]
        for stage in range(1, len(self._rungs) + 1):
            alive = self._halve(alive, stage - 1)
            yield self._tasks(alive, stage)
            self._measure(alive, stage)

    def selected(self) -> Selected | None:
        """What won, by all that has ended so far."""
        return select(self.cell, list(self._standings.values()))

    @property
    def notes(self) -> list[str]:
        """What a reader of the result should know of how its search was cut short."""
        notes, tried = list(self.cell.notes), len(self._standings)
        if self._halving and self.cell.backbone != REFERENCE:  # which is fitted in one go
            notes.append(f"successive halving: {self._pruned} of {tried} configurations pruned")
        if self._unaffordable:
            count = f"{len(self._unaffordable)} of {tried * len(self.cell.seeds)} trials"
            notes.append(f"budget.hours_per_cell = {self._hours:g} is spent: {count} not trained as far as planned")
        return notes

    def _proposed(self) -> Iterator[Sequence[Configuration]]:
        """Configurations to train next; the next ones only when these have ended their first stage."""
        if self._search.method != "tpe":
            yield self.cell.configurations
            return
        proposals = Proposals(self.cell.space, self.cell.name, self._search.seed)
        for first in range(0, self.cell.size, self._search.in_flight):
            count = min(self._search.in_flight, self.cell.size - first)
            configurations = [self.cell.configuration(proposals.ask()) for _ in range(count)]
            yield configurations
            standings = [self._standings[configuration[0].hash] for configuration in configurations]
            proposals.tell([standing.value if standing.stage >= 0 else None for standing in standings])

    def _tasks(self, configurations: Sequence[Configuration], stage: int) -> Iterator[Task]:
        for configuration in configurations:
            for trial in configuration:
                task = self._task(trial, self._until(trial, stage))
                if self._hours and not task.done and self._spent_hours() >= self._hours:
                    self._unaffordable.add(trial.hash)
                else:
                    yield task

    def _until(self, trial: Trial, stage: int) -> int | None:
        """The epoch at which a stage ends for a trial; ``None`` stands for its end."""
        return pause(trial, self._rungs[stage]) if stage < len(self._rungs) else None

    def _measure(self, configurations: Sequence[Configuration], stage: int) -> None:
        for configuration in configurations:
            values = [reached(trial, self._folder, self._until(trial, stage)) for trial in configuration]
            if any(failed(trial, self._folder) for trial in configuration):
                self._standings[configuration[0].hash] = Standing(configuration)
            elif None not in values:
                value = statistics.fmean(value for value in values if value is not None)
                self._standings[configuration[0].hash] = Standing(configuration, stage, value)

    def _halve(self, entered: Sequence[Configuration], stage: int) -> list[Configuration]:
        """The configurations that train on after a stage; the others are pruned, as wholes."""
        assert self._halving is not None
        standings = [self._standings[configuration[0].hash] for configuration in entered]
        ranked = sorted((s for s in standings if s.stage == stage), key=lambda s: -s.value)
        kept = survivors(len(entered), self._halving)
        self._pruned += len(ranked[kept:])
        for rank, standing in enumerate(ranked[kept:], start=kept + 1):
            for trial in standing.configuration:
                self._prune(trial, {"rung": stage + 1, "rank": rank, "of": len(entered), "kept": kept})
        return [standing.configuration for standing in ranked[:kept]]

    def _prune(self, trial: Trial, why: dict[str, int]) -> None:
        folder = self._folder / trial.hash
        events = journal.read(folder)
        if journal.last(events, "finish"):  # it had come to its own end before the rung's
            return
        event = {"event": "prune", **why}
        if not event.items() <= events[-1].items():
            patiently(lambda: journal.append(folder, event | {"time": time.time()}))
        self._on_pruned(trial)

    def _spent_hours(self) -> float:
        trials = [trial for standing in self._standings.values() for trial in standing.configuration]
        return sum(_seconds(self._folder / trial.hash) for trial in trials) / 3600


def _seconds(folder: Path) -> float:
    """Training time of a trial up to its latest validation."""
    latest = journal.last(journal.read(folder), "valid")
    return latest["metrics"]["train/seconds"] if latest else 0.0
