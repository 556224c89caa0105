"""Waiting for storage that is full, read-only or unreachable."""

import time
from collections.abc import Callable
from typing import TypeVar

from pipelines.train.failures import diagnose

STORAGE_SECONDS = 900.0
"""Storage is waited for so long."""
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
"""Seconds between two looks at it; each pause is twice the one before."""

T = TypeVar("T")


class Patience:
    """Pauses that grow, until their sum is ``STORAGE_SECONDS``."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin again: there was progress."""
        self._waited, self._pause = 0.0, _FIRST_PAUSE

    def wait(self) -> bool:
        """Pause; or ``False`` at once where there is none left."""
        if self._waited >= STORAGE_SECONDS:
            return False
        time.sleep(self._pause)
        self._waited, self._pause = self._waited + self._pause, min(2 * self._pause, _LONGEST_PAUSE)
        return True


def patiently(action: Callable[[], T]) -> T:
    """The result of an action that uses the storage."""
    patience = Patience()
    while True:
        try:
            return action()
        except OSError as error:
            if diagnose(error)[0] != "storage" or not patience.wait():
                raise
