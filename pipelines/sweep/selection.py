"""Which configuration of a cell's search is the best, by validation alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.search.cell import Cell, Configuration
from pipelines.settings import Trial
from pipelines.train import journal


@dataclass(frozen=True)
class Standing:
    """How far a configuration got, and what it reached there.

    Attributes:
        stage: number of rungs of successive halving that it survived; -1 if it failed, or never ended the first.
        value: validation metric up to the end of that stage, the best of each trial, averaged over the seeds.
    """

    configuration: Configuration
    stage: int = -1
    value: float = -math.inf


@dataclass(frozen=True)
class Selected:
    """The configuration that a cell's search selected: its trials and their mean validation metric."""

    cell: Cell
    trials: Configuration
    value: float


def select(cell: Cell, standings: Sequence[Standing]) -> Selected | None:
    """The configuration that got furthest, of those the one with the best value, of equals the earlier one.

    Only where all that got further have failed is one selected that was pruned. ``None`` if every one has failed.
    """
    best = max(standings, key=lambda standing: (standing.stage, standing.value), default=None)
    return None if best is None or best.stage < 0 else Selected(cell, best.configuration, best.value)


def reached(trial: Trial, folder: Path, until: int | None) -> float | None:
    """The best validation metric of a trial up to an epoch, or up to its end where none is given.

    Returns:
        ``None`` if it has not got there.
    """
    events = journal.read(folder / trial.hash)
    finish = journal.last(events, "finish")
    if until is None or (finish and finish["best_epoch"] <= until):
        return finish["best"] if finish else None
    validations = [event for event in events if event["event"] == "valid"]
    if not finish and not (validations and validations[-1]["epoch"] >= until):
        return None
    metric = f"valid/{trial.protocol.metric}"
    return max(event["metrics"][metric] for event in validations if event["epoch"] <= until)


def failed(trial: Trial, folder: Path) -> bool:
    """Whether a trial ended in failure."""
    events = journal.read(folder / trial.hash)
    return bool(events) and events[-1]["event"] == "fail" and not journal.last(events, "finish")
