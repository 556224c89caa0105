"""What is done to a running sweep in the fault campaign: each fault strikes once and says which trials it struck."""

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from rig import Rig, family, kill, wait_for

from pipelines.train.folder import CHECKPOINT

AWAY_SECONDS = 8.0
"""How long the storage is full, and how long the tracking server is away."""

Fault = Callable[[Rig, random.Random], set[Path] | None]
"""Returns the folders of the trials it struck; ``None`` if there was nothing to strike, so nothing was done."""


def _strike_trial(rig: Rig, rng: random.Random, number: signal.Signals) -> set[Path] | None:
    training = sorted(rig.training().items(), key=lambda pair: pair[1])
    if not training:
        return None
    process, folder = rng.choice(training)
    kill([process], number)
    return {folder}


def kill_trial(rig: Rig, rng: random.Random) -> set[Path] | None:
    return _strike_trial(rig, rng, signal.SIGKILL)


def terminate_trial(rig: Rig, rng: random.Random) -> set[Path] | None:
    return _strike_trial(rig, rng, signal.SIGTERM)


def kill_node(rig: Rig, rng: random.Random) -> set[Path] | None:
    """kill -9 of a node's raylet; another node comes in its place."""
    number = rng.choice(sorted(rig.nodes))
    node = rig.nodes[number]
    raylets = [p for p in family(node) if p.name() == "raylet"]
    struck = set(rig.training(node).values())
    if not struck or not raylets:
        return None
    kill(raylets)
    psutil.wait_procs(raylets, timeout=10)
    time.sleep(2)
    kill(family(node))
    rig.nodes[number] = rig.add_node(number)
    return struck


def kill_driver(rig: Rig, rng: random.Random) -> set[Path] | None:
    struck = set(rig.training().values())
    if not struck:
        return None
    kill([rig.driver])
    rig.driver.wait(30)
    rig.drive()
    return struck


def terminate_driver(rig: Rig, rng: random.Random) -> set[Path] | None:
    """SIGTERM, as before a machine is taken away; the driver ends by itself."""
    struck = set(rig.training().values())
    if not struck:
        return None
    rig.driver.send_signal(signal.SIGTERM)
    rig.driver.wait(120)
    rig.drive()
    return struck


def restart_server(rig: Rig, rng: random.Random) -> set[Path] | None:
    """The tracking server is away for a while; no trial is struck."""
    rig.end_server()
    time.sleep(AWAY_SECONDS)
    rig.serve()
    return set()


def truncate_checkpoint(rig: Rig, rng: random.Random) -> set[Path] | None:
    """kill -9 of the driver; while it is down, a checkpoint loses its second half."""
    struck = set(rig.training().values())
    if not any((folder / CHECKPOINT).exists() for folder in struck):
        return None
    kill([rig.driver])
    rig.driver.wait(30)
    wait_for(lambda: not rig.training(), "trial processes outlive their driver")
    checkpoints = sorted(rig.trials.glob(f"*/{CHECKPOINT}"))
    if checkpoints:
        chosen = rng.choice(checkpoints)
        os.truncate(chosen, chosen.stat().st_size // 2)
    rig.drive()
    return struck if checkpoints else None


def fill_storage(rig: Rig, rng: random.Random) -> set[Path] | None:
    """The storage is full for a while."""
    ballast = rig.storage / "ballast"
    struck = set(rig.training().values())
    if not struck:
        return None
    with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 2**16)
    time.sleep(AWAY_SECONDS)
    ballast.unlink()
    return struck


FAULTS: dict[str, Fault] = {
    "kill -9 of a trial's process": kill_trial,
    "SIGTERM to a trial's process": terminate_trial,
    "kill -9 of a node's raylet": kill_node,
    "kill -9 of the driver, run again": kill_driver,
    "SIGTERM to the driver, run again": terminate_driver,
    "tracking server killed, away, started again": restart_server,
    "checkpoint cut in half while the driver is down": truncate_checkpoint,
    "storage full for a while": fill_storage,
}


def draw(count: int, kinds: list[str], rng: random.Random) -> list[str]:
    """So many faults, each kind as often as the others (or once less), in random order."""
    drawn = [kinds[i % len(kinds)] for i in range(count)]
    rng.shuffle(drawn)
    return drawn


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[bool]:
    """A file system of its own, where this user may mount one; whether it is."""
    folder.mkdir(parents=True)
    size = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(size, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
