"""Which configuration of a cell's search is the best, by validation alone."""

import statistics
from dataclasses import dataclass
from pathlib import Path

from pipelines import journal
from pipelines.plan import Cell
from pipelines.settings import Trial


@dataclass(frozen=True)
class Selected:
    """The configuration that a cell's search selected: its grid trials and their mean validation metric."""

    cell: Cell
    trials: tuple[Trial, ...]
    value: float


def select(cell: Cell, folder: Path) -> Selected | None:
    """The grid point with the best validation metric, averaged over the grid seeds; the earlier one of equals.

    A grid point of which a seed has failed is out; ``None`` if every one is.
    """
    by_point: dict[str, list[Trial]] = {}
    for trial in cell.grid:
        by_point.setdefault(trial.model_copy(update={"seed": 0}).hash, []).append(trial)
    best = None
    for trials in by_point.values():
        finishes = [journal.last(journal.read(folder / trial.hash), "finish") for trial in trials]
        if all(finishes):
            value = statistics.fmean(finish["best"] for finish in finishes if finish)
            if best is None or value > best.value:
                best = Selected(cell, tuple(trials), value)
    return best
