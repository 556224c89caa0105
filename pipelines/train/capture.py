"""A trial's own log: what its process prints while it runs, from Python or below it."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

LOG = "log.txt"


@contextlib.contextmanager
def captured(path: Path) -> Iterator[None]:
    """Add what this process prints to the end of a file for the duration of the block."""
    _flush()
    kept = {number: os.dup(number) for number in (1, 2)}
    try:
        with open(path, "ab") as file:
            for number in kept:
                os.dup2(file.fileno(), number)
        yield
    finally:
        _flush()
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)


def _flush() -> None:
    """What a full disk does not take stays in the buffer and goes where the process printed before."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
