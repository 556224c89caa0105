"""How far the cells of a sweep are, as the live table and `recloss sweep status` show it."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.table import Table
from rich.text import Text

ROWS = 20
"""Cells that a table shows at most: those with something running first, then those that are not over."""


@dataclass
class Tally:
    """One cell: search and confirmation together."""

    name: str
    """``data | backbone | loss``."""
    planned: int
    """Trials that are or were to be run, at most."""
    done: int = 0
    running: int = 0
    failed: int = 0
    pruned: int = 0
    best: float | None = None
    """The best validation so far."""
    seconds: list[float] = field(default_factory=list)
    """Wall time of each trial that is over."""

    @property
    def over(self) -> int:
        """Trials that nothing is left to do for."""
        return self.done + self.failed + self.pruned

    @property
    def left(self) -> int:
        """Trials that are not over."""
        return max(0, self.planned - self.over)

    def saw(self, value: float) -> None:
        """A validation."""
        self.best = value if self.best is None else max(self.best, value)


def seconds_left(tallies: Sequence[Tally], concurrent: int) -> float | None:
    """Time left, from the trials of each cell that are over (they ended by patience or not as others will); a cell
    without any is taken for an average one. ``None`` before the first trial is over."""
    seconds = [second for tally in tallies for second in tally.seconds]
    if not seconds:
        return None
    mean = statistics.fmean(seconds)
    work = sum(tally.left * (statistics.fmean(tally.seconds) if tally.seconds else mean) for tally in tallies)
    return work / max(1, concurrent)


def summary(tallies: Sequence[Tally], left: float | None) -> str:
    """``12/60 done, 2 running, 1 failed, 0 pruned, 3:10 left``."""
    over, planned = sum(tally.over for tally in tallies), sum(tally.planned for tally in tallies)
    counts = [f"{sum(getattr(tally, name) for tally in tallies)} {name}" for name in ("running", "failed", "pruned")]
    return ", ".join([f"{over}/{planned} done", *counts, duration(left)])


def duration(left: float | None) -> str:
    """Time left: ``3:10 left``, ``2:03:10 left``, ``4 d 02:03 left``."""
    if left is None:
        return "time left unknown"
    minutes, seconds = divmod(round(left), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02d}:{minutes:02d} left"
    return f"{hours}:{minutes:02d}:{seconds:02d} left" if hours else f"{minutes}:{seconds:02d} left"


def table(tallies: Sequence[Tally]) -> Table:
    """A row per cell, the busy ones first where there are too many. Text is never read as markup."""
    shown = list(tallies)
    if len(shown) > ROWS:
        shown = sorted(tallies, key=lambda tally: (tally.running == 0, tally.left == 0))[:ROWS]
    grid = Table(box=None, pad_edge=False)
    grid.add_column("Cell", overflow="fold")
    for heading in ("Done", "Running", "Failed", "Pruned", "Best validation"):
        grid.add_column(heading, justify="right")
    for tally in shown:
        best = "--" if tally.best is None else f"{tally.best:.4f}"
        counts = (tally.running, tally.failed, tally.pruned)
        grid.add_row(*map(Text, (tally.name, f"{tally.over}/{tally.planned}", *map(str, counts), best)))
    if len(shown) < len(tallies):
        grid.add_row(Text(f"and {len(tallies) - len(shown)} cells more", "dim"))
    return grid
