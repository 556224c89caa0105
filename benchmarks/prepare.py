"""Goal 8: `recloss prepare` on a large log, against the same steps in polars: seconds, and memory of all processes.

    python benchmarks/prepare.py [--quick] [--rows N] [--sides SIDE ...] [--rounds N] [--memory BYTES] [--out FILE]

The log is made by `made_log.py`, 10 million rows unless --rows (1 million with --quick). Each run is a process of its
own (`prepare_sides.py` says what it does and when its clock runs), with two threads, or two workers of Ray; the sides
alternate, the log is in the page cache. Memory is the peak of the proportional set size summed over the run's
processes, read every tenth of a second in one further run of each side. polars must be installed: pip install polars.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import psutil
from common import Row, Seconds, main, number, ratio, walls
from made_log import write_log
from prepare_sides import SIDES, THREADS

HERE = Path(__file__).parent
WANTED_RATIO, WANTED_GIB = 3, 4


class Run:
    """A side's process: `seconds`, what was `left`, and with ``watched`` the peak memory in GiB."""

    def __init__(self, side: str, log: Path, memory: int | None, watched: bool = False):
        with tempfile.TemporaryDirectory(dir=log.parent) as folder:
            command = [sys.executable, HERE / "prepare_sides.py", side, log, Path(folder) / "out"]
            environment = os.environ | {"POLARS_MAX_THREADS": str(THREADS)}
            process = subprocess.Popen(
                [*map(str, command), *([str(memory)] if memory else [])], stdout=subprocess.PIPE, env=environment
            )
            self.peak = 0.0
            if watched:
                watch = threading.Thread(target=self._watch, args=(process,))
                watch.start()
                watch.join()
            said, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{side} failed")
        result = json.loads(said)
        self.seconds, self.left = result["seconds"], tuple(result["left"])

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        whole = psutil.Process(process.pid)
        while process.poll() is None:
            self.peak = max(self.peak, sum(map(_pss, [whole.pid, *_children(whole)])) / 2**30)
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.1)


def _children(process: psutil.Process) -> list[int]:
    try:
        return [child.pid for child in process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _pss(pid: int) -> int:
    """Proportional set size of a process in bytes: memory that several share counts once."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def benchmark(quick: bool, rows: int | None, sides: list[str], rounds: int | None, memory: int | None) -> list[Row]:
    rows = rows or (1_000_000 if quick else 10_000_000)
    rounds = (1 if quick else 3) if rounds is None else rounds
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.csv"
        write_log(log, rows)
        log.read_bytes()
        runs: dict[str, list[Run]] = {side: [] for side in sides}
        for at in range(rounds):
            for side in sides if at % 2 == 0 else sides[::-1]:
                runs[side].append(Run(side, log, memory))
        watched = {side: Run(side, log, memory, watched=True) for side in sides}
        size = f"{rows:,} rows, {number(log.stat().st_size / 2**20)} MiB"
    if (
        len(results := {run.left for run in [*watched.values(), *(run for taken in runs.values() for run in taken)]})
        > 1
    ):
        raise RuntimeError(f"the sides differ in (interactions, users, items): {results}")
    taken = {side: [Seconds(run.seconds, 0) for run in runs[side] or [watched[side]]] for side in sides}
    found = [
        f"{interactions:,} interactions of {users:,} users and {items:,} items"
        for interactions, users, items in results
    ]
    print(f"{size}: left are {found[0]}")
    made = []
    for side in sides:
        title = f"{size}, {side}"
        seconds = walls(taken[side]).show(" s")
        if side in ("local", "ray"):
            against = {peer: ratio(taken[side], taken[peer]) for peer in sides if peer not in ("local", "ray")}
            for peer, times in against.items():
                decides = rows == 10_000_000 and peer == "polars"
                made.append(
                    Row(
                        8,
                        f"{title} / {peer}",
                        times.show("×"),
                        f"{seconds} / {walls(taken[peer]).show(' s')}",
                        f"≤ {WANTED_RATIO}× polars" if decides else "",
                        times.median <= WANTED_RATIO if decides else None,
                    )
                )
            peak = watched[side].peak
            detail = f"object store of {number(memory / 2**30)} GiB; {seconds}" if memory and side == "ray" else seconds
            made.append(Row(8, f"{title}, memory", f"{peak:.2f} GiB", detail, f"< {WANTED_GIB} GiB", peak < WANTED_GIB))
        else:
            made.append(Row(8, f"{title}, memory", f"{watched[side].peak:.2f} GiB", seconds))
    return made


if __name__ == "__main__":
    main(
        benchmark,
        __doc__,
        rows={"type": int, "help": "rows of the log"},
        sides={
            "nargs": "+",
            "choices": list(SIDES),
            "default": list(SIDES),
            "metavar": "SIDE",
            "help": ", ".join(SIDES),
        },
        rounds={"type": int, "help": "timed runs of each side; with 0 the watched run is timed"},
        memory={"type": int, "help": "bytes of Ray's object store"},
    )
