"""Asking a sweep to stop: Ctrl-C, or SIGTERM from a machine that is about to be taken away."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from pipelines.sweep.progress import Say

FILE = "stop"


class Stop:
    """A file in the sweep's folder, which trials on every node look for at their validations.

    Attributes:
        path: the file.
        signal: the first signal that came.
    """

    def __init__(self, folder: Path, say: Say) -> None:
        self.path, self._say = folder.absolute() / FILE, say
        self.signal: signal.Signals | None = None
        self.path.unlink(missing_ok=True)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """In the block a first signal asks the trials to stop, a second one raises ``KeyboardInterrupt``."""
        os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
        before = {number: signal.signal(number, self._asked) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self.path.unlink(missing_ok=True)

    @property
    def asked(self) -> bool:
        """Whether a signal came."""
        return self.signal is not None

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        self._say("stopping: running trials end at their next validation, no other starts; again ends them at once")
        self.path.touch()
