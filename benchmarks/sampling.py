"""Goal 3: the share of drawing negatives in a training step, and draws per second against torch's own.

    python benchmarks/sampling.py [--quick] [--out FILE]

The step is that of MF + SL at B = N = 1,024 (`recloss.training.fit`), the cheapest of the losses, over the pairs of a
random part of the users (--quick) or of all; the sampler alone then draws for the same batches. `torch.multinomial`
draws over the dense (B, I) mask of non-positives, which is made outside the clock; `torch.randint` excludes nothing.
"""

import torch
from common import Row, Seconds, main, paired, ratio, timed, walls
from data_sets import SIZES, load, subset
from epochs import BATCH, NEGATIVES, loss_for, step_seconds, steps_of

from recloss.backbones.mf import MF
from recloss.interactions import Interactions
from recloss.randomness import permutation
from recloss.sampling import UniformNegatives, WholeBatch

WANTED = 0.15


def of_data(name: str, quick: bool) -> list[Row]:
    train = load(name).train
    rounds = 2 if quick else 5
    part = subset(train, 32 * BATCH) if quick else train
    sampler, order = UniformNegatives(part), permutation(len(part), 0)
    batches = list(enumerate(order.split(BATCH)))

    def draw(number: int, batch: torch.Tensor) -> None:
        start = number * BATCH
        whole = WholeBatch(part.item[batch], start)
        sampler.sample(part.user[batch], torch.arange(start, start + len(batch)), NEGATIVES, 1, whole)

    def alone() -> Seconds:
        return timed(lambda: [draw(*batch) for batch in batches])() / len(batches)

    def step() -> Seconds:
        return step_seconds(MF(part.n_users, part.n_items), loss_for("sl", part), part)

    taken = paired({"step": step, "sampler": alone}, rounds)
    share, draws = ratio(taken["sampler"], taken["step"]), BATCH * NEGATIVES
    allowed = _allowed(part, batches[0][1])
    peers = paired(
        {
            "ours": timed(lambda: draw(*batches[0])),
            "randint": timed(lambda: torch.randint(train.n_items, (BATCH, NEGATIVES))),
            "multinomial": timed(lambda: torch.multinomial(allowed, NEGATIVES, replacement=True)),
        },
        3 * rounds,
    )
    detail = f"{walls(taken['sampler']).show(' ms', 1e3)} of {walls(taken['step']).show(' ms', 1e3)}"
    detail += f" in {steps_of(part)} steps; CPU seconds {ratio(taken['sampler'], taken['step'], 'cpu').show(' %', 100)}"
    what = f"sampling's share of a step, {train.n_items:,} items"
    return [
        Row(3, what, share.show(" %", 100), detail, f"< {WANTED:.0%}", share.median < WANTED),
        *(
            Row(
                3,
                f"draws, {train.n_items:,} items, {'UniformNegatives' if side == 'ours' else 'torch.' + side}",
                f"{draws / walls(peers[side]).median / 1e6:.3g} million/s",
                "" if side == "ours" else f"ours {ratio(peers[side], peers['ours']).show('×')} as fast",
            )
            for side in peers
        ),
    ]


def _allowed(train: Interactions, batch: torch.Tensor) -> torch.Tensor:
    """(B, I) 1 where the item is no positive of the row's user."""
    allowed, positives = torch.ones(len(batch), train.n_items), train.of(train.user[batch])
    allowed[positives.rows, positives.values] = 0
    return allowed


def benchmark(quick: bool) -> list[Row]:
    return [row for name in SIZES for row in of_data(name, quick)]


if __name__ == "__main__":
    main(benchmark, __doc__)
