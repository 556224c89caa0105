"""What a trial uses: wall time, CPU seconds, GPU seconds and the most memory its processes held."""

import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_RESET_PEAK = "5"
"""What Linux takes in ``clear_refs`` to begin a new peak of resident memory."""


@dataclass(frozen=True)
class Cost:
    """Resources used; of two parts of a trial seconds add up and the larger memory counts."""

    seconds: float = 0.0
    """Wall time in which it was being worked on."""
    cpu_seconds: float = 0.0
    """Of all threads of all processes, in user and system mode."""
    gpu_seconds: float = 0.0
    """Wall time times GPUs occupied."""
    peak_memory: int = 0
    """Largest resident memory of one process, in bytes."""

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.seconds + other.seconds,
            self.cpu_seconds + other.cpu_seconds,
            self.gpu_seconds + other.gpu_seconds,
            max(self.peak_memory, other.peak_memory),
        )

    def json(self) -> dict[str, Any]:
        """As an event of the journal holds it."""
        return asdict(self)


class Meter:
    """Measures this process from now on; where Linux lets it, the peak of memory too, else since the process began."""

    def __init__(self, gpus: float) -> None:
        self.gpus = gpus
        self.cpu, self.wall = time.process_time(), time.perf_counter()
        if _CLEAR_REFS.exists():
            _CLEAR_REFS.write_text(_RESET_PEAK)

    def read(self) -> Cost:
        """What this process used so far."""
        cpu, wall = time.process_time() - self.cpu, time.perf_counter() - self.wall
        return Cost(wall, cpu, wall * self.gpus, _peak_memory())

    def read_all(self) -> Cost:
        """What the processes of a distributed trial used so far, known to all of them; every one calls it."""
        own = self.read()
        if not dist.is_initialized():
            return own
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        seconds = torch.tensor([own.cpu_seconds, own.gpu_seconds], dtype=torch.float64, device=device)
        memory = torch.tensor(own.peak_memory, device=device)
        dist.all_reduce(seconds)
        dist.all_reduce(memory, op=dist.ReduceOp.MAX)
        return Cost(own.seconds, float(seconds[0]), float(seconds[1]), int(memory))


def _peak_memory() -> int:
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
