"""Asking a sweep to stop: Ctrl-C, or SIGTERM from a machine that is about to be taken away."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from pipelines.sweep.progress import Say

FILE = "stop"
_AGAIN_SECONDS = 0.05


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
        """In the block a first signal asks the trials to stop, a second one raises ``KeyboardInterrupt``.

        Raised where Python cannot pass it on, such as in a callback of a weak reference, it comes again a moment later.
        """
        os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
        before = {number: signal.signal(number, self._asked) for number in (signal.SIGINT, signal.SIGTERM)}
        hook = sys.unraisablehook
        main = threading.get_ident()
        again: list[threading.Timer] = []

        def lost(unraisable: "sys.UnraisableHookArgs") -> None:
            if unraisable.exc_type is not KeyboardInterrupt:
                return hook(unraisable)
            again.append(threading.Timer(_AGAIN_SECONDS, signal.pthread_kill, (main, signal.SIGINT)))
            again[-1].start()

        sys.unraisablehook = lost
        try:
            yield
        finally:
            sys.unraisablehook = hook
            for timer in again:
                timer.cancel()
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
