"""How much memory a piece of work needs at most, measured in a fresh process, on Linux."""

import contextlib
import ctypes
import multiprocessing
import platform
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any


class Peak:
    """Memory of this process above what it holds now; `mib` gives the most there was since, an upper bound.

    From here on freed blocks of 64 KiB and more go back to the system at once, so what allocators keep is not counted.
    """

    def __init__(self) -> None:
        if platform.libc_ver()[0] == "glibc":
            libc = ctypes.CDLL(None)
            for option, value in _GIVE_BACK:
                libc.mallopt(option, value)
            libc.malloc_trim(0)
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again
        self._held = _status("VmRSS")

    @property
    def mib(self) -> float:
        return (_status("VmHWM") - self._held) / 1024


_GIVE_BACK = ((-1, 2**16), (-2, 0), (-3, 2**16))
"""glibc's M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD."""


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def fresh(function: Callable[..., Any], *arguments: Any) -> Any:
    """``function(*arguments)`` in a new process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["recloss.training"])
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(function, *arguments).result()
