"""The sweep's progress on the terminal: trials done, running, failed, and the time left."""

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn


class SweepProgress:
    """A live bar on a terminal; elsewhere (a log file) a line for each tenth of the sweep."""

    def __init__(self, console: Console, total: int, done: int) -> None:
        self._console, self._total, self._already = console, total, done
        self._done, self._failed = done, 0
        self._running: set[Path] = set()
        self._started, self._said = time.monotonic(), 0
        columns = (TextColumn("[bold]{task.description}"), BarColumn(), TextColumn("{task.fields[counts]}"))
        self._bar = Progress(*columns, console=console, transient=True)
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._task = self._bar.add_task("trials", total=self._total, completed=self._done, counts=self.counts)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    @property
    def counts(self) -> str:
        """``12/60 done, 2 running, 0 failed, 3:10 left``; the time left assumes trials as long as those so far."""
        left = "time left unknown"
        finished = self._done - self._already
        if finished:
            seconds = (time.monotonic() - self._started) / finished * (self._total - self._done)
            left = f"{int(seconds // 60)}:{int(seconds % 60):02d} left"
        return f"{self._done}/{self._total} done, {len(self._running)} running, {self._failed} failed, {left}"

    def skip(self, done: int, without: int) -> None:
        """Trials that are done already, or that will not be needed."""
        self._done += done
        self._already += done
        self._total -= without
        self._show()

    def started(self, folder: Path) -> None:
        """A trial started, or started again after a crash."""
        self._running.add(folder)
        self._show()

    def ended(self, folder: Path, failed: bool) -> None:
        """A trial ended."""
        self._running.discard(folder)
        self._done += 1
        self._failed += failed
        self._show()

    def _show(self) -> None:
        if self._task is not None:
            self._bar.update(self._task, total=self._total, completed=self._done, counts=self.counts)
        elif 10 * self._done // self._total > self._said:
            self._said = 10 * self._done // self._total
            self._console.print(f"trials: {self.counts}")


Say = Callable[[str], None]
"""Prints one line for the user."""
