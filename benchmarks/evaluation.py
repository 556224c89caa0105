"""Goal 4: full ranking of Gowalla (29,858 users, 40,988 items, d = 64) against the bare product of users and items.

    python benchmarks/evaluation.py [--quick] [--out FILE]

Ours is `recloss.evaluation.evaluate`: embeddings, scores, mask of the training positives, top 20, metrics. The bare
product multiplies the same blocks of users with all items into one buffer, and looks at nothing. Memory is the resident
set's high-water mark of one evaluation in a fresh process, for 5,000 users and for all; the normalised rows of the
users and the metrics of each are their own.
"""

import torch
from common import Row, main, paired, ratio, timed, walls
from data_sets import SIZES, load
from peaks import Peak, fresh

from recloss.backbones.mf import MF
from recloss.evaluation import block_size, evaluate
from recloss.interactions import Interactions
from recloss.metrics import METRICS

WANTED = 2.0
BLOCK = block_size(SIZES["gowalla-40988"][1])
LARGE, DIM, CUTOFFS, MANY_CUTOFFS = 1024, 64, (20,), (1, 5, 10, 20)


def bare(backbone: MF, users: torch.Tensor, size: int) -> None:
    """All scores, in blocks, each over the one before."""
    with torch.no_grad():
        buffer = torch.empty(size, len(backbone.item))
        for block in users.split(size):
            torch.mm(backbone.user[block], backbone.item.T, out=buffer[: len(block)])


def first(split: Interactions, n_users: int) -> Interactions:
    kept = split.user < n_users
    return Interactions(split.user[kept], split.item[kept], n_users, split.n_items)


def peak(train: Interactions, test: Interactions) -> float:
    """MiB of one evaluation above data and tables; to be called in a fresh process."""
    Peak()  # what is freed is given back
    backbone = MF(train.n_users, train.n_items, dim=DIM)
    one = Interactions(test.user[:1], test.item[:1], test.n_users, test.n_items)
    evaluate(backbone, "cosine", one, [train], CUTOFFS)
    held = Peak()
    evaluate(backbone, "cosine", test, [train], CUTOFFS)
    return held.mib


def benchmark(quick: bool) -> list[Row]:
    data = load("gowalla-40988")
    torch.manual_seed(0)
    backbone = MF(data.train.n_users, data.train.n_items, dim=DIM)
    users = torch.nonzero(data.test.degrees).flatten()

    def ours(cutoffs: tuple[int, ...]) -> None:
        evaluate(backbone, "cosine", data.test, [data.train], cutoffs)

    sides = {
        "bare": lambda: bare(backbone, users, BLOCK),
        "large": lambda: bare(backbone, users, LARGE),
        "ours": lambda: ours(CUTOFFS),
        "many": lambda: ours(MANY_CUTOFFS),
    }
    taken = paired({name: timed(work) for name, work in sides.items()}, 2 if quick else 5)
    times, cpu = ratio(taken["ours"], taken["bare"]), ratio(taken["ours"], taken["bare"], "cpu")
    own, product, large = (walls(taken[side]) for side in ("ours", "bare", "large"))
    detail = f"{own.show(' s')}, product {product.show(' s')} in blocks of {BLOCK}, {large.show(' s')} of {LARGE}; "
    detail += f"CPU seconds {cpu.show('×')}"
    few, all_users = 5_000, data.train.n_users
    mib = {n: fresh(peak, first(data.train, n), first(data.test, n)) for n in (few, all_users)}
    per_user = 4 * DIM + 2 * 8 * len(METRICS) * len(CUTOFFS)
    allowed = (all_users - few) * per_user / 2**20 + 0.1 * mib[few]
    return [
        Row(
            4, "full ranking, of the bare product's time", times.show("×"), detail, f"≤ {WANTED:g}×",
            times.median <= WANTED,
        ),
        Row(
            4, f"the same against the product in blocks of {LARGE:,}", ratio(taken["ours"], taken["large"]).show("×"),
            "a block size that suits the product, not the cache",
        ),
        Row(4, "full ranking of Gowalla", f"{len(users) / own.median:,.0f} users/s", f"K = {CUTOFFS[0]}"),
        Row(
            4, f"full ranking for {len(MANY_CUTOFFS)} K of {MANY_CUTOFFS[0]} to {MANY_CUTOFFS[-1]}",
            ratio(taken["many"], taken["ours"]).show("×"), f"of the time of K = {CUTOFFS[0]}",
        ),
        Row(
            4, "extra memory of an evaluation", f"{mib[few]:.0f} MiB for {few:,} users, {mib[all_users]:.0f} for all",
            f"blocks of {BLOCK} × {data.train.n_items:,} scores are {BLOCK * data.train.n_items * 4 / 2**20:.0f} MiB",
            f"at most {per_user} bytes more per user (its normalised row and metrics), and 10 %",
            mib[all_users] - mib[few] <= allowed,
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    main(benchmark, __doc__)
