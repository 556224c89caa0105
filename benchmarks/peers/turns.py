"""What the timing programs share: their arguments, their data, and epochs timed turn by turn.

A program warms up, prints one JSON line of facts and waits. For every line on standard input it works for a turn and
prints the wall and CPU seconds (all threads) of each repetition; it ends with its input. So `run.py` lets two programs
take turns, one working while the other sleeps. What a library prints goes to standard error. Needs only NumPy, as it
runs in the environments of the peers.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

TASKS = ("mf", "lightgcn", "evaluate", "sasrec")
DIM, LAYERS, LR, TOP = 64, 3, 0.001, 20
SASREC: dict[str, Any] = {"dim": 64, "length": 50, "blocks": 2, "heads": 2, "dropout": 0.2}


def arguments() -> argparse.Namespace:
    """The settings of one measurement; the command line is then empty, since some libraries read it too."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", help="the .npz file of run.py")
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--variant", default="", help="how the library does it, where it has several ways")
    parser.add_argument("--batch", type=int, default=2048, help="positives per step")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--warmup", type=int, default=2, help="repetitions that are not reported")
    parser.add_argument("--least", type=float, default=0.5, help="seconds that a turn lasts at least")
    settings = parser.parse_args()
    del sys.argv[1:]
    return settings


def load(path: str) -> dict[str, np.ndarray]:
    """Arrays of the data: train_user, train_item, test_user, test_item, user, item (embeddings), n_users, n_items."""
    with np.load(path) as file:
        return dict(file)


class Turns:
    """Times repetitions and reports them turn by turn.

    Args:
        settings: of ``arguments``.
        packages: whose versions are reported.
        facts: reported with the first line, such as the threads in use.
    """

    def __init__(self, settings: argparse.Namespace, packages: tuple[str, ...], **facts: Any) -> None:
        self.out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self.facts = facts | {"versions": ", ".join(f"{name} {version(name)}" for name in packages)}
        self.warmup, self.least = settings.warmup, settings.least
        self.seconds: list[float] = []
        self.cpu: list[float] = []
        self.start()

    def start(self) -> None:
        """A repetition begins."""
        self.wall_start, self.cpu_start = time.perf_counter(), time.process_time()

    def lap(self) -> None:
        """A repetition has ended; the next begins when this returns, which may wait for the next turn."""
        self.seconds.append(time.perf_counter() - self.wall_start)
        self.cpu.append(time.process_time() - self.cpu_start)
        if self.warmup:
            self.warmup -= 1
            if not self.warmup:
                self._report(self.facts | {"warmup": self.seconds})
        elif sum(self.seconds) >= self.least:
            self._report({"seconds": self.seconds, "cpu": self.cpu})
        self.start()

    def repeat(self, work: Callable[[], object]) -> None:
        """``work`` again and again, until the input ends."""
        while True:
            self.start()
            work()
            self.lap()

    def _report(self, line: dict[str, Any]) -> None:
        print(json.dumps(line), file=self.out, flush=True)
        self.seconds, self.cpu = [], []
        if not sys.stdin.readline():
            raise SystemExit
