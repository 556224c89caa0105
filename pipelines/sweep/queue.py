"""What a sweep trains next: tasks, in lines of batches of which each waits for the one before it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.settings import Trial
from pipelines.train import journal
from pipelines.train.folder import reached, status


@dataclass(frozen=True)
class Task:
    """One trial to bring to its end: trained, and with ``test`` scored on the test split; or to the epoch ``until``."""

    trial: Trial
    data: Path
    folder: Path
    test: bool
    until: int | None = None
    """The trial pauses at its validation of this epoch, with its checkpoint; ``None`` trains it to its end."""

    @property
    def done(self) -> bool:
        """Whether nothing is left to do for it, in success or in failure."""
        state = status(self.folder)
        if state == "finished":
            return not self.test or journal.last(journal.read(self.folder), "test") is not None
        return state == "failed" or (self.until is not None and reached(self.folder) >= self.until)

    @property
    def failed(self) -> bool:
        """Whether the last that happened to its trial is a failure, of whatever kind."""
        events = journal.read(self.folder)
        return bool(events) and events[-1]["event"] == "fail"


Batches = Iterator[Iterable[Task]]
"""Each batch is asked for when every task of the one before it has ended, each task when there is room to start it:
so a line may decide by what its trials have done so far."""


class Queue:
    """The tasks of several lines, such as the searches of a sweep's cells. Earlier lines go first.

    Args:
        lines: of batches.
        on_done: called with each task that is done before it starts.
    """

    def __init__(self, lines: Iterable[Batches], on_done: Callable[[Task], None]) -> None:
        self._lines = [_Line(batches) for batches in lines]
        self._on_done = on_done

    def next(self) -> Task | None:
        """The next task to start; ``None`` at the end, and while all that is left waits for a running task."""
        for line in list(self._lines):
            task = line.next(self._on_done)
            if task is not None:
                return task
            if line.finished:
                self._lines.remove(line)
        return None

    def ended(self, folder: Path) -> None:
        """The task of the trial in this absolute folder ended.

        Where it was cut off its line goes no further than its batch: what follows depends on it.
        """
        for line in self._lines:
            if (task := line.running.pop(folder, None)) is not None:
                line.cut_off = line.cut_off or not (task.done or task.failed)

    @property
    def waits(self) -> bool:
        """Whether a task that was handed out has not ended yet."""
        return any(line.running for line in self._lines)

    @property
    def finished(self) -> bool:
        """Whether every line came to its end. Known after `next` returned ``None``."""
        return not self._lines


class _Line:
    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self.batch: Iterator[Task] = iter(())
        self.running: dict[Path, Task] = {}
        self.cut_off = self.finished = False

    def next(self, on_done: Callable[[Task], None]) -> Task | None:
        while not self.finished:
            for task in self.batch:
                if not task.done:
                    self.running[task.folder.absolute()] = task
                    return task
                on_done(task)
            if self.running or self.cut_off:
                return None
            following = next(self.batches, None)
            self.finished = following is None
            self.batch = iter(following or ())
        return None
