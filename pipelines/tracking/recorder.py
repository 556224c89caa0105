"""Recording while a sweep runs: in a thread of its own, so that a slow or absent store holds up no trial."""

import threading
import time
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Self

from pipelines.tracking.store import impatient, reason, store_errors
from pipelines.tracking.write import Tracker

HEARTBEAT_SECONDS = 30.0
"""How often the sweep's run is told that its driver lives."""
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
"""Seconds between two tries at a store that does not answer; each pause is twice the one before."""
_REQUEST_SECONDS = 30
"""A server that is silent for longer does not answer."""

Write = Callable[[Tracker], None]


class Recorder:
    """Makes a driver's writes in their order, again and again until the store takes them.

    A write must change nothing when it is repeated, since of one that failed it is not known whether it was made. One
    that is refused by a store that does answer is put aside; the next run of the sweep makes it again.

    Args:
        tracker: from now on used by the recorder's thread alone.
        say: prints a line for the user.
    """

    def __init__(self, tracker: Tracker, say: Callable[[str], None]) -> None:
        self._tracker, self._say = tracker, say
        self._pending: dict[Hashable, Write] = {}
        self._refused: list[str] = []
        self._bug: Exception | None = None
        self._silence = ""
        """Why the store does not answer; empty while it does."""
        self._seen = float("-inf")
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join(2 * _REQUEST_SECONDS)

    def soon(self, key: Hashable, write: Write) -> None:
        """Make a write in its turn; it takes the place of one with the same key that has not been made yet.

        Raises:
            InputError: that an earlier write met, such as a damaged journal.
        """
        with self._changed:
            self._raise_bug()
            self._pending[key] = write
            self._changed.notify_all()

    def flush(self, seconds: float) -> str:
        """Wait until everything is recorded, for so long at most; a line says what is not, empty if nothing.

        Raises:
            InputError: see `soon`.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._bug is not None or not self._pending, seconds)
            self._raise_bug()
            if self._pending:
                why = f" ({self._silence})" if self._silence else " fast enough"
                return f"the tracking store does not answer{why}: {len(self._pending)} records are missing in it"
            if self._refused:
                return f"the tracking store refused {len(self._refused)} records, the first with: {self._refused[0]}"
        return ""

    def _raise_bug(self) -> None:
        if self._bug is not None:
            raise self._bug

    def _work(self) -> None:
        errors, pause = store_errors(), _FIRST_PAUSE
        with impatient(_REQUEST_SECONDS):
            while (following := self._next()) is not None:
                key, write = following
                try:
                    refusal = self._make(write, errors)
                except errors as error:
                    self._wait(reason(error), pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
                    continue
                except Exception as error:
                    self._bug, refusal = error, ""
                self._made(key, write, refusal)
                pause = _FIRST_PAUSE

    def _next(self) -> tuple[Hashable, Write] | None:
        """The next write, from time to time that of the heartbeat; ``None`` at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._ended, HEARTBEAT_SECONDS)
            if self._ended:
                return None
            heartbeat = "driver", Tracker.driver_seen
            if time.monotonic() - self._seen > HEARTBEAT_SECONDS:
                self._seen = time.monotonic()
                return heartbeat
            return next(iter(self._pending.items()), heartbeat)

    def _make(self, write: Write, errors: tuple[type[Exception], ...]) -> str:
        """Make a write, twice if need be; why the store refuses it. Raises what a store raises that does not answer."""
        for _ in range(2):
            try:
                write(self._tracker)
                return ""
            except errors as error:
                self._tracker.reread()
                refusal = reason(error)
        return refusal

    def _wait(self, silence: str, pause: float) -> None:
        with self._changed:
            if not self._silence:
                self._say(f"the tracking store does not answer ({silence}); the sweep goes on and records later")
            self._silence = silence
            self._changed.wait_for(lambda: self._ended, pause)

    def _made(self, key: Hashable, write: Write, refusal: str) -> None:
        with self._changed:
            if self._pending.get(key) is write:
                del self._pending[key]
            if refusal:
                self._refused.append(refusal)
            if self._silence and not self._pending:
                self._silence = ""
                self._say("the tracking store answers again, and everything is recorded")
            self._changed.notify_all()
