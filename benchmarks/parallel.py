"""Goal 6: data-parallel training by user. Strong scaling on 2 processes, measured; 8 and 64 GPUs, on paper.

    python benchmarks/parallel.py [--quick] [--out FILE]

Measured: MF (d = 64) with SL, batch 1,024, N = 1,024, in one process of one thread, in two (gloo), and in two that sum
the gradient of the users' table too, as if it were not known to have a row per user. Seconds are `fit`'s own of the
second of two epochs, in processes started for it; with --quick, and for Gowalla, the epoch is that of the pairs of a
part of the users, the tables keep their size.

On paper, for W GPUs, b rows each, I items, U users, in float32:

    reduced     S = 4 d I bytes, the gradient of the items' table; before, 4 d (I + U)
    scores      3 products of 2 b I d operations and 16 b I bytes, or the sampled way with 16 b N d bytes from the L2
                cache if the table fits in it: what takes less
    loss        32 b N bytes
    tables      4 d (7 (I + U / W) + 4 I + U) bytes: Adam on all items and the rank's own users (reads parameter,
                gradient and two moments, writes three), normalised items and their gradient, the zeroed gradient of
                the users' table
    computing   for each of these the larger of operations / F and bytes / M, summed
    8 GPUs      2 (7/8) S / V + L8, the ring's bound on the links of one node
    64 GPUs     2 (7/8) S / V + 2 (7/8) S / (8 A) + L64: summed in each node, then between 8 nodes, each GPU an eighth
                of the table over its own adapter, then spread in each node

    F = 67 Tflop/s, M = 3.35 TB/s, L2 5.5 TB/s and 50 MB (H100 SXM, float32 without tensor cores, datasheet peaks)
    V = 450 GB/s each way (NVLink, 900 GB/s in both), A = 50 GB/s (400 Gb/s InfiniBand, one adapter per GPU)
    L8 = 20 us, L64 = 50 us, latency of one all-reduce (assumed)

Not in it: kernel launches (a CUDA graph is assumed), overlap of the sum with anything, and that a rank's rows of a
batch vary: the fullest of W has about b + sqrt(2 b ln W). Peaks make computing look fast, so communication is limiting
earlier here than in practice. The users' rows go round once per epoch, 4 d U bytes, which is not counted.
The limit is the b at which a step takes as long to communicate as to compute.
"""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from common import Row, Seconds, main, paired, ratio, walls
from data_sets import SIZES, load, subset
from epochs import BATCH, NEGATIVES, loss_for, run, steps_of

from recloss.backbones.mf import MF
from recloss.interactions import Interactions

DIM = 64
DATA = {"beauty": "Beauty", "gowalla-40988": "Gowalla"}
SAME = 1e-5
"""Relative difference of an epoch's mean loss up to which runs count as equal."""


class Undeclared(MF):
    """MF whose users' table is summed over the ranks like all else."""

    user_parameters = ()


SIDES = {"one process": (1, MF), "two": (2, MF), "two, users summed too": (2, Undeclared)}


def rank_of(rank: int, world: int, backbone: type[MF], train: Interactions, folder: Path) -> None:
    """Train two epochs and leave what the second took in ``folder``."""
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", f"file://{folder}/store", world_size=world, rank=rank)
    torch.manual_seed(0)
    model, loss = backbone(train.n_users, train.n_items, dim=DIM), loss_for("sl", train)
    epochs: list[dict[str, Any]] = []
    with exchanged() as total:

        def after(v: Any) -> None:
            epochs.append({"wall": v.seconds, "cpu": time.process_time(), "loss": v.loss} | total)

        run(model, loss, train, 2, after)
    first, second = epochs
    took = {key: second[key] - first[key] for key in ("wall", "cpu", "all_reduce", "broadcast")}
    result = {"losses": [first["loss"], second["loss"]], "item": model.item.detach()}
    torch.save(took | result, folder / f"{rank}.pt")
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()


@contextlib.contextmanager
def exchanged() -> Iterator[dict[str, int]]:
    """Bytes that this process has given to each collective."""
    total = {"all_reduce": 0, "broadcast": 0}
    calls = {name: getattr(dist, name) for name in total}

    def counting(name: str) -> Any:
        def counted(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            total[name] += tensor.nbytes
            return calls[name](tensor, *args, **kwargs)

        return counted

    for name in calls:
        setattr(dist, name, counting(name))
    try:
        yield total
    finally:
        for name, call in calls.items():
            setattr(dist, name, call)


def measure(train: Interactions, rounds: int) -> tuple[dict[str, list[Seconds]], dict[str, dict[str, Any]]]:
    """Seconds per step of every side, and what else its last run was like."""
    seen: dict[str, dict[str, Any]] = {}

    def side(name: str) -> Seconds:
        world, backbone = SIDES[name]
        with tempfile.TemporaryDirectory() as folder:
            mp.spawn(rank_of, (world, backbone, train, Path(folder)), nprocs=world)
            ranks = [torch.load(Path(folder) / f"{rank}.pt") for rank in range(world)]
        seen[name] = ranks[0]
        return Seconds(max(rank["wall"] for rank in ranks), sum(rank["cpu"] for rank in ranks)) / steps_of(train)

    return paired({name: lambda name=name: side(name) for name in SIDES}, rounds), seen  # type: ignore[misc]


def measured(data: str, quick: bool) -> Iterator[Row]:
    train = load(data).train
    epoch = steps_of(train)
    if quick or epoch > 200:
        train = subset(train, (16 if quick else 100) * BATCH)
    taken, seen = measure(train, 1 if quick else 3)
    alone, two, summed = (taken[name] for name in SIDES)
    title, steps = f"2 processes, MF + SL, {DATA[data]}", steps_of(train)
    detail = (
        f"epoch of {epoch} steps {walls(two).median * epoch:.3g} s, one process {walls(alone).median * epoch:.3g} s, "
        f"users summed too {walls(summed).median * epoch:.3g} s ({ratio(alone, summed).show('×')}); one thread each; "
        f"CPU seconds of both ranks {ratio(two, alone, 'cpu').show('×')} of one process"
    )
    yield Row(6, f"{title}: speed-up", ratio(alone, two).show("×"), detail)

    now, before = (round(seen[name]["all_reduce"] / steps) for name in list(SIDES)[1:])
    items, slack = 4 * DIM * train.n_items, 4096  # the epoch's losses and its validation are summed too
    yield Row(
        6, f"{title}: bytes summed per step", f"{now / 1e6:.3f} MB",
        f"{before / 1e6:.3f} MB with the users' gradient; {seen['two']['broadcast'] / 1e6:.3g} MB of users' rows sent "
        "after an epoch",
        f"the items' gradient, {items / 1e6:.3f} MB", items <= now <= items + slack,
    )  # fmt: skip

    pairs = zip(seen["one process"]["losses"], seen["two"]["losses"], strict=True)
    apart = max(abs(one - other) / abs(one) for one, other in pairs)
    moved = float((seen["one process"]["item"] - seen["two"]["item"]).abs().max())
    yield Row(
        6, f"{title}: as one process", f"mean losses of two epochs differ by {apart:.1e}",
        f"relative; entries of the items' table by {moved:.1e} at most, after {2 * steps} steps of Adam, lr 0.01",
        f"≤ {SAME:.0e}", apart <= SAME,
    )  # fmt: skip


FLOPS, MEMORY, CACHE, CACHE_SIZE = 67e12, 3.35e12, 5.5e12, 50e6
LINK, ADAPTER, LATENCY = 450e9, 50e9, {8: 20e-6, 64: 50e-6}


def computing(b: float, W: int, U: int, I: int) -> float:  # noqa: E741
    """Seconds of a step's computing."""
    tables = 4 * DIM * (7 * (I + U / W) + 4 * I + U) / MEMORY
    dense = max(6 * b * I * DIM / FLOPS, 16 * b * I / MEMORY)
    cached = 4 * DIM * I <= CACHE_SIZE
    sampled = max(6 * b * NEGATIVES * DIM / FLOPS, 16 * b * NEGATIVES * DIM / (CACHE if cached else MEMORY))
    return tables + min(dense, sampled) + 32 * b * NEGATIVES / MEMORY


def communicating(W: int, rows: int) -> float:
    """Seconds to sum the gradient of a table of ``rows``."""
    S = 4 * DIM * rows
    between = 2 * (7 / 8) * S / 8 / ADAPTER if W == 64 else 0.0
    return 2 * (7 / 8) * S / LINK + between + LATENCY[W]


def limit(W: int, U: int, I: int, rows: int) -> float:  # noqa: E741
    """Rows per GPU from which a step computes for longer than it communicates."""
    low, high = 0.0, 1e9
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if computing(middle, W, U, I) > communicating(W, rows) else (middle, high)
    return high


def on_paper(data: str) -> Iterator[Row]:
    U, I, _, _ = SIZES[data]  # noqa: E741
    for W in LATENCY:
        now, before = communicating(W, I), communicating(W, I + U)
        parts = []
        for b, name in ((BATCH / W, "1,024 rows in all"), (BATCH, "1,024 rows per GPU")):
            work = computing(b, W, U, I)
            share, share_before = (c / (c + work) for c in (now, before))
            alone = computing(b * W, 1, U, I)
            parts.append(
                f"{name}: computing {work * 1e6:.0f} us, communication {share:.0%} of the step ({share_before:.0%}), "
                f"{alone / (work + now):.1f}× one GPU ({alone / (work + before):.1f}×)"
            )
        parts.append(f"before in brackets, {before * 1e6:.0f} us and {limit(W, U, I, I + U):,.0f} rows")
        yield Row(
            6, f"{W} H100, MF + SL, {DATA[data]}, computed: where communication limits",
            f"below {limit(W, U, I, I):,.0f} rows per GPU; {4 * DIM * I / 1e6:.3g} MB in {now * 1e6:.0f} us",
            "; ".join(parts),
        )  # fmt: skip


def benchmark(quick: bool) -> list[Row]:
    rows = []
    for data in DATA:
        for row in (*measured(data, quick), *on_paper(data)):
            rows.append(row)
            print(f"{row.what}: {row.measured}", flush=True)
    return rows


if __name__ == "__main__":
    main(benchmark, __doc__)
