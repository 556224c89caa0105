"""Native CPU kernels: ``kernels.c``, built by the system's C compiler when first needed, and kept in
``RECLOSS_CACHE`` (``~/.cache/recloss``).

Without a compiler, or with ``RECLOSS_NATIVE=0`` in the environment, everything runs on torch alone: slower, equal
values up to rounding. `kernel` says which, and is recorded with results.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

_FOLDER = Path(__file__).parent
_MATHS = ["-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math", "-freciprocal-math"]
_FLAGS = ["-std=gnu11", "-O3", "-march=native", *_MATHS, "-shared", "-fPIC"]


def kernel() -> str:
    """What the inner loops run on: "native" or "torch"."""
    return "native" if _library() else "torch"


def takes(*tensors: Tensor, dtypes: tuple[torch.dtype, ...] = (torch.float32,)) -> bool:
    """Whether native kernels can take these floating-point tensors: on the CPU, of one accepted type."""
    kind = tensors[0].dtype
    fits = kind in dtypes and all(t.device.type == "cpu" and t.dtype == kind for t in tensors)
    return fits and _library() is not None


def call(function: str, *arguments: Tensor | int | float | None) -> int:
    """Call a function of ``kernels.c`` with contiguous tensors as pointers, then the number of threads."""
    library = _library()
    assert library is not None
    converted = [_converted(argument) for argument in arguments]
    return getattr(library, function)(*converted, ctypes.c_int64(torch.get_num_threads()))


def keep_freed_memory() -> None:
    """Let glibc's allocator keep what tensors free: a step's tensors then need no new pages. Nothing elsewhere.

    It holds for the whole process, and what was once in use stays with it.
    """
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((mmap_threshold, 2**25), (trim_threshold, 2**31 - 1), (top_pad, 2**26)):
            mallopt(option, value)


def _converted(argument: Tensor | int | float | None) -> object:
    if isinstance(argument, Tensor):
        assert argument.is_contiguous()
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, float):
        return ctypes.c_double(argument)
    return ctypes.c_void_p() if argument is None else ctypes.c_int64(argument)


def why_not() -> str | None:
    """Why the native kernels are not used; ``None`` if they are."""
    found = _loaded()
    return found if isinstance(found, str) else None


def _library() -> ctypes.CDLL | None:
    found = _loaded()
    return None if isinstance(found, str) else found


@functools.cache
def _loaded() -> ctypes.CDLL | str:
    """The built kernels, or why there are none."""
    if os.environ.get("RECLOSS_NATIVE") == "0":
        return "switched off by RECLOSS_NATIVE=0"
    try:
        return ctypes.CDLL(str(_built()))
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        return f"they do not compile: {lines[0] if lines else error}"
    except OSError as error:
        return f"they cannot be built: {error}"


def _built() -> Path:
    """The shared library, compiled unless the cache holds it.

    Raises:
        OSError: if there is no compiler, or nowhere to write.
        subprocess.CalledProcessError: if it does not compile.
    """
    compiler = shlex.split(os.environ.get("CC", "")) or [shutil.which("cc") or shutil.which("gcc") or "clang"]
    sources = [_FOLDER / "kernels.c", _FOLDER / "real.inc"]
    made_from = [*compiler, *_FLAGS, _processor(), *(source.read_text() for source in sources)]
    name = hashlib.sha256("\0".join(made_from).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("RECLOSS_CACHE") or Path.home() / ".cache" / "recloss") / "native"
    target = cache / f"{name}.so"
    if target.exists():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        made = Path(folder) / "kernels.so"
        for threads in (["-fopenmp"], []):  # Apple's clang has no OpenMP: one thread then
            command = [*compiler, *_FLAGS, *threads, "-o", str(made), str(sources[0]), "-lm"]
            done = subprocess.run(command, capture_output=True)
            if done.returncode == 0:
                break
        done.check_returncode()
        os.replace(made, target)
    return target


def _processor() -> str:
    """What "-march=native" depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor() + platform.machine()
