"""The sweep's progress: a live table on a terminal, lines in a log."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from pipelines.sweep.tally import Tally, seconds_left, summary, table

Say = Callable[[str], None]
"""Prints one line for the user."""


class SweepProgress:
    """How far the cells are: a live table on a terminal; elsewhere (a log file) a line for each tenth of the sweep."""

    def __init__(self, console: Console, planned: Mapping[str, int]) -> None:
        """
        Args:
            console: to show it on.
            planned: trials of each cell, at most.
        """
        self._console = console
        self._tallies = {name: Tally(name, count) for name, count in planned.items()}
        self._running: dict[Path, str] = {}
        self._tenths = 0
        self._live = Live(get_renderable=self._table, console=console, refresh_per_second=2, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def plan(self, cell: str, more: int) -> None:
        """The trials of a cell that are not over are so many."""
        tally = self._tallies[cell]
        tally.planned = tally.over + more

    def started(self, cell: str, folder: Path) -> None:
        """A trial started, or started again after a crash."""
        self._running[folder] = cell
        self._show()

    def validated(self, cell: str, value: float) -> None:
        """A validation of a running trial."""
        self._tallies[cell].saw(value)

    def stopped(self, folder: Path) -> None:
        """A trial is not running any more, over or not."""
        self._running.pop(folder, None)
        self._show()

    def over(self, cell: str, how: str, best: float | None, seconds: float | None) -> None:
        """Nothing is left to do for a trial.

        Args:
            cell: its cell.
            how: "done", "failed" or "pruned".
            best: its best validation, if it is done.
            seconds: wall time, where it is known.
        """
        tally = self._tallies[cell]
        setattr(tally, how, getattr(tally, how) + 1)
        if best is not None:
            tally.saw(best)
        if seconds is not None:
            tally.seconds.append(seconds)
        self._show()

    @property
    def line(self) -> str:
        """All cells in one line."""
        for name, tally in self._tallies.items():
            tally.running = sum(cell == name for cell in self._running.values())
        tallies = list(self._tallies.values())
        return summary(tallies, seconds_left(tallies, len(self._running)))

    def _table(self) -> Group:
        line = self.line
        return Group(table(list(self._tallies.values())), Text(f"trials: {line}", "bold"))

    def _show(self) -> None:
        over = sum(tally.over for tally in self._tallies.values())
        planned = sum(tally.planned for tally in self._tallies.values())
        if not self._console.is_terminal and planned and 10 * over // planned > self._tenths:
            self._tenths = 10 * over // planned
            self._console.print(f"trials: {self.line}", markup=False, soft_wrap=True)
