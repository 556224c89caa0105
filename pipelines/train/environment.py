"""Where a trial runs: machine, versions, threads, commit."""

import functools
import os
import platform
import subprocess
from pathlib import Path

import torch

from pipelines.settings import ResourceSettings
from recloss.native import kernel


def environment(resources: ResourceSettings, micro_batch: int | None) -> dict[str, str]:
    """What a result's last bits may depend on: recorded with each trial, not part of its identity."""
    pieces = {} if micro_batch is None else {"micro_batch": str(micro_batch)}
    return pieces | {
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "kernel": kernel(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "workers": str(resources.workers),
        "host": platform.node(),
        "pid": str(os.getpid()),
    }


@functools.cache
def git_commit() -> str:
    """Commit of the checkout this code runs from; "unknown" outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
