"""What the benchmarks share: paired timing, the machine, rows and the command line.

A benchmark makes rows, `Row`: one reading each, and where it decides a goal of the fast core, what was wanted and
whether it was met. `--out FILE` writes them as a JSON list of objects with these keys; `run_all.py` makes
RESULTS.md of them.

    goal      1 .. 8
    what      what was measured
    wanted    the goal in words, "" for a reading that decides none
    measured  the reading in words
    met       true, false, or null: decides nothing, or could not be measured
    detail    medians and spread
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy
import torch

BUSY = 0.1
"""Share of the cores in use by others from which timings are not to be trusted."""


@dataclass(frozen=True)
class Row:
    goal: int
    what: str
    measured: str
    detail: str = ""
    wanted: str = ""
    met: bool | None = None


@dataclass(frozen=True)
class Seconds:
    """Wall seconds and CPU seconds (of all threads)."""

    wall: float
    cpu: float

    def __truediv__(self, n: float) -> "Seconds":
        return Seconds(self.wall / n, self.cpu / n)


def timed(work: Callable[[], Any]) -> Callable[[], Seconds]:
    """A side for `paired` that does ``work`` once."""

    def side() -> Seconds:
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        return Seconds(time.perf_counter() - wall, time.process_time() - cpu)

    return side


def paired(sides: Mapping[str, Callable[[], Seconds]], rounds: int) -> dict[str, list[Seconds]]:
    """Seconds of each side in every round; sides alternate, each round the other way round, after one warm-up each."""
    for side in sides.values():
        side()
    taken: dict[str, list[Seconds]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in sides if number % 2 == 0 else reversed(sides):
            taken[name].append(sides[name]())
    return taken


@dataclass(frozen=True)
class Summary:
    """Median and range."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Iterable[float]) -> "Summary":
        values = list(values)
        return Summary(statistics.median(values), min(values), max(values))

    def show(self, unit: str = "", scale: float = 1.0, digits: int = 3) -> str:
        median, low, high = (number(x * scale, digits) for x in (self.median, self.low, self.high))
        return f"{median}{unit} ({low}–{high})"


def number(x: float, digits: int = 3) -> str:
    """So many digits, but all those before the point."""
    return f"{x:,.0f}" if abs(x) >= 10**digits else f"{x:.{digits}g}"


def walls(taken: Sequence[Seconds]) -> Summary:
    return Summary.of(s.wall for s in taken)


def ratio(slow: Sequence[Seconds], fast: Sequence[Seconds], clock: str = "wall") -> Summary:
    """How many times as long ``slow`` takes, round by round."""
    return Summary.of(getattr(s, clock) / getattr(f, clock) for s, f in zip(slow, fast, strict=True))


def native_kernels() -> str:
    """Whether the native kernels serve; an earlier version has none."""
    try:
        from recloss import native
    except ImportError:
        return "none in this version"
    return {"native": "on", "torch": "off"}[native.kernel()]


def machine() -> dict[str, str]:
    """What timings depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"]
    commit = subprocess.run(git, capture_output=True, text=True)
    return {
        "CPU": f"{model}, {os.cpu_count()} cores",
        "system": platform.platform(),
        "Python": platform.python_version(),
        "torch": f"{torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}",
        "NumPy": numpy.__version__,
        "native kernels": native_kernels(),
        "data": "real" if "RECLOSS_DATA" in os.environ else "made, of the real sets' sizes (RECLOSS_DATA is not set)",
        "commit": commit.stdout.strip() or "unknown",
    }


@dataclass(frozen=True)
class Others:
    """What else the machine does while this process rests: share of the cores in use, and last minute's load average.

    The load average holds what ran in the minute before too, an earlier benchmark included.
    """

    share: float
    load: float

    @staticmethod
    def now(seconds: float = 1.0) -> "Others":
        idle, total = _jiffies()
        time.sleep(seconds)
        idle, total = (after - before for before, after in zip((idle, total), _jiffies(), strict=True))
        return Others(1 - idle / max(total, 1), os.getloadavg()[0])

    def __str__(self) -> str:
        return f"{self.share:.0%} of the cores in use, load average {self.load:.2f}{', BUSY' * (self.share > BUSY)}"


def _jiffies() -> tuple[int, int]:
    """Of all cores since the start of the system: idle, and all."""
    user, nice, system, idle, wait, *more = map(int, Path("/proc/stat").read_text().split()[1:9])
    return idle + wait, user + nice + system + idle + wait + sum(more)


def main(benchmark: Callable[..., list[Row]], about: str | None, **options: dict[str, Any]) -> None:
    """The command line of a benchmark: ``[--quick] [--out FILE]`` and its own options, which it gets by their names."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer steps and rounds")
    parser.add_argument("--out", type=Path, help="write the rows to this JSON file")
    for name, about_option in options.items():
        parser.add_argument(f"--{name}", **about_option)
    arguments = parser.parse_args()
    for name, value in machine().items():
        print(f"{name}: {value}")
    print(f"before: {Others.now()}", flush=True)
    rows = benchmark(arguments.quick, **{name: getattr(arguments, name) for name in options})
    print(f"after: {Others.now()}\n")
    print(table(rows))
    if arguments.out:
        arguments.out.write_text(json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False) + "\n")


def table(rows: Sequence[Row]) -> str:
    """The rows as text, in columns."""
    cells = [("what", "measured", "wanted", "met", "detail")]
    cells += [(row.what, row.measured, row.wanted, verdict(row.met, row.wanted), row.detail) for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    return "\n".join("  ".join([*map(str.ljust, line[:4], widths), line[4]]).rstrip() for line in cells)


def verdict(met: bool | None, wanted: str) -> str:
    return "" if not wanted else {True: "yes", False: "no", None: "not measured"}[met]
