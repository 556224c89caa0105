"""How far the main training step is from what this machine could do at best; writes docs/roofline.md.

    python benchmarks/roofline.py [--quick] [--out FILE]

The step: MF, SL, d = 64, 1,024 positives with 1,024 independent negatives each, Adam on all rows. Its parts and their
least work are listed in `parts`; the floor of a part is the longer of its operations at the measured matrix-product
rate and its bytes at the measured bandwidth, of memory, or of the cache for rows that are fetched again and again.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from common import Row, Summary, machine, main
from data_sets import SIZES, load
from epochs import BATCH, NEGATIVES, loss_for, step_seconds

from recloss.backbones import MF

PAGE = Path(__file__).parents[1] / "docs" / "roofline.md"
D = 64
H100 = {"flops": 67e12, "memory": 3.35e12, "cache": 5.5e12}
"""Float32 without tensor cores, HBM3, and L2 (an estimate: NVIDIA states none)."""


@dataclass(frozen=True)
class Part:
    """A part of the step: its operations, bytes that go through memory, bytes that a cache could serve."""

    name: str
    flops: float
    memory: float
    cache: float

    def floor(self, rates: dict[str, float]) -> float:
        return max(self.flops / rates["flops"], self.memory / rates["memory"], self.cache / rates["cache"])


def parts(n_users: int, n_items: int, B: int = BATCH, N: int = NEGATIVES) -> list[Part]:
    pairs, items, rows = B * N, n_items * D * 4, (n_users + n_items) * D * 4
    return [
        Part("draw negatives (8 bytes each, written)", 12 * pairs, 8 * pairs, 0),
        Part("normalise the items, forward and backward", 8 * n_items * D, 5 * items, 0),
        Part("scores: an item's row for each pair", 2 * pairs * D, 12 * pairs, 4 * pairs * D),
        Part("loss: logsumexp, and its weights", 30 * pairs, 12 * pairs, 0),
        Part("gradients: read an item's row, add to its gradient", 4 * pairs * D, 12 * pairs, 12 * pairs * D),
        Part("Adam: read 4 numbers of a parameter, write 3", 12 * rows / 4, 7 * rows, 0),
    ]


def fastest(work: Callable[[], object], rounds: int = 20) -> float:
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def rates() -> dict[str, float]:
    """Operations and bytes per second that this machine reaches."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    product = torch.empty(1024, 1024)
    large, larger = torch.randn(2**25), torch.empty(2**25)
    small, smaller = torch.randn(2**16), torch.empty(2**16)
    return {
        "flops": 2 * 1024**3 / fastest(lambda: torch.mm(a, b, out=product)),
        "memory": 2 * 2**27 / fastest(lambda: larger.copy_(large)),
        "cache": 200 * 2 * 2**18 / fastest(lambda: [smaller.copy_(small) for _ in range(200)]),
    }


def benchmark(quick: bool) -> list[Row]:
    measured = rates()
    rows, tables = [], []
    for name in SIZES:
        train = load(name).train
        n_users, n_items = train.n_users, train.n_items
        work = parts(n_users, n_items)
        floor = sum(part.floor(measured) for part in work)
        steps = [
            step_seconds(MF(n_users, n_items), loss_for("sl", train), train).wall for _ in range(1 if quick else 3)
        ]
        step = Summary.of(steps)
        times = f"{step.median / floor:.1f}"
        rows.append(Row(1, f"roofline, {name}", f"{times} x the floor", f"{step.show(' ms', 1e3)} a step"))
        tables.append(_section(name, n_users, n_items, work, measured, step, times))
    PAGE.write_text(
        HEAD.format(**{key: rate / 1e9 for key, rate in measured.items()}, machine=_machine()) + "".join(tables)
    )
    return rows


HEAD = """# How far the step is from the floor

Written by `python benchmarks/roofline.py`, whose `parts` say what is counted.

The main training step is MF with SL: 1,024 positives, 1,024 independent negatives each, d = 64, float32, Adam on all
rows. For each of its parts the table has the least operations and bytes, and the time below which they cannot be done:
the longest of operations at the matrix-product rate, bytes at the memory's bandwidth, and bytes at the cache's for rows
that are fetched many times. The floor of the step is the sum, as the parts follow each other.

Measured here: matrix product {flops:.0f} GFLOP/s, copy {memory:.1f} GB/s in memory, {cache:.0f} GB/s in the cache.
{machine}

The H100 column is computed, not measured: 67 TFLOP/s float32, 3.35 TB/s memory, and 5.5 TB/s for the L2 cache, which is
an estimate. Launching some forty kernels, at about 5 µs each, would add 0.2 ms a step there: as much as the work
itself.

"""


def _machine() -> str:
    found = machine()
    return "; ".join(found[key] for key in ("CPU", "torch")) + f"; native kernels {found['native kernels']}."


def _section(
    name: str, n_users: int, n_items: int, work: Sequence[Part], here: dict[str, float], step: Summary, times: str
) -> str:
    lines = [
        f"## {name}: {n_users:,} users, {n_items:,} items\n",
        "| part | MFLOP | MB of memory | MB of cache | floor here, ms | floor H100, ms |",
        "|---|---|---|---|---|---|",
    ]
    for part in work:
        numbers = part.flops / 1e6, part.memory / 1e6, part.cache / 1e6
        floors = part.floor(here) * 1e3, part.floor(H100) * 1e3
        lines.append(f"| {part.name} | {' | '.join(f'{x:.0f}' for x in numbers)} | {floors[0]:.2f} | {floors[1]:.3f} |")
    sums = (1e3 * sum(part.floor(machine_rates) for part in work) for machine_rates in (here, H100))
    lines.append("| **step** | | | | **{:.2f}** | **{:.3f}** |\n".format(*sums))
    return "\n".join([*lines, f"Measured: {step.show(' ms', 1e3)} a step, {times} times the floor.\n\n"])


if __name__ == "__main__":
    main(benchmark, __doc__)
