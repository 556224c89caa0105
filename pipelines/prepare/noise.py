"""Noise for studies of robustness: false positives added to train, or a pool of false negatives taken from it."""

from collections.abc import Callable
from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.prepare.divide import Divided, counted
from pipelines.prepare.draws import below, draws, stream
from pipelines.prepare.engines import Engine
from pipelines.prepare.rank import ranked
from pipelines.prepare.splits import POOL, TRAIN, before, sizes_of, with_split
from recloss.errors import InputError

if TYPE_CHECKING:
    from pipelines.settings import Noise


def add_noise(engine: Engine, log: Divided, noise: "Noise", raw: Path, note: Callable[..., None]) -> Divided:
    """Put noise into the training split; ``note(step, degrees, **details)`` hears of it.

    Raises:
        InputError: a user has too few items left that could be added, or the pool would be empty.
    """
    if noise.kind == "false_positives":
        blocks = _false_positives(engine, log, noise, raw)
    else:
        blocks = _pool(engine, log, noise, raw)
    noisy = counted(engine, blocks, log.users, log.items)
    untrained = int((noisy.degrees[0][TRAIN] == 0).sum())
    note("noise", noisy.total, **noisy.sizes, **noise.model_dump(), users_without_train=untrained)
    return noisy


def _false_positives(engine: Engine, log: Divided, noise: "Noise", raw: Path) -> Any:
    wanted = sizes_of(log.degrees[0][TRAIN], lambda n: ceil(Fraction(str(noise.ratio)) * n))
    short = int((wanted > len(log.items) - log.total[0]).sum())
    if short:
        raise InputError(
            f"{raw}: noise false_positives of ratio {noise.ratio:g}: {short:,} users have interacted with so many of "
            f"the {len(log.items):,} items that too few are left; lower the ratio"
        )
    seed = stream(noise.seed, "false positives")
    return engine.map(log.blocks, false_positives, n_items=len(log.items), ratio=noise.ratio, seed=seed)


def _pool(engine: Engine, log: Divided, noise: "Noise", raw: Path) -> Any:
    size = floor(Fraction(str(noise.ratio)) * log.sizes["train"])
    if size == 0:
        raise InputError(f"{raw}: noise false_negative_pool: {noise.ratio:g} of {log.sizes['train']} pairs are none")
    seed = stream(noise.seed, "false negative pool")
    end = ranked(engine, engine.map(log.blocks, train_draws, seed=seed), "draw", size)
    return engine.map(log.blocks, pooled, end=end, seed=seed, keep_as_positive=noise.keep_as_positive)


def false_positives(block: pa.Table, n_items: int, ratio: float, seed: int) -> pa.Table:
    """Add ceil(ratio * n) training interactions to each user with n, with items that the user has in no split.

    If m items are left, the added ones are the first different numbers in the sequence ``below(draws(seed, user,
    t), m)``, t = 0, 1, ..., as places among those items in ascending order. Other columns are null.
    """
    users, items = block["user"].to_numpy(), block["item"].to_numpy()
    known, first, which, degree = np.unique(users, return_index=True, return_inverse=True, return_counts=True)
    train = np.bincount(which, weights=block["split"].to_numpy() == TRAIN, minlength=len(known)).astype(np.int64)
    wanted = sizes_of(train, lambda n: ceil(Fraction(str(ratio)) * n))
    who, place = _different(known, n_items - degree, wanted, seed)
    gaps = which * n_items + items - (np.arange(len(items)) - first[which])  # places taken before each known item
    passed = np.searchsorted(gaps, who * n_items + place, side="right") - first[who]
    added = {
        "user": pa.array(known[who], pa.int32()),
        "item": pa.array((place + passed).astype(np.int32)),
        "split": pa.array(np.full(len(who), TRAIN, np.int8)),
    }
    columns = [added.get(field.name, pa.nulls(len(who), field.type)) for field in block.schema]
    both = pa.concat_tables([block, pa.table(columns, schema=block.schema)])
    return both.take(np.lexsort([both["item"].to_numpy(), both["user"].to_numpy()]))


def _different(
    users: NDArray[np.int32], below_of: NDArray[np.int64], wanted: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first ``wanted[k]`` different numbers below ``below_of[k]`` in the sequence of ``users[k]``: (k, number)."""
    who, found = np.empty(0, np.int64), np.empty(0, np.int64)
    have, tried = np.zeros_like(wanted), np.zeros_like(wanted)
    while (open_ := np.flatnonzero(have < wanted)).size:
        tries = -(-(wanted - have)[open_] * below_of[open_] // (below_of - have)[open_])
        new = np.repeat(open_, tries)
        number = np.arange(len(new)) - np.repeat(np.cumsum(tries) - tries, tries) + tried[new]
        who = np.concatenate([who, new])
        found = np.concatenate([found, below(draws(seed, users[new], number), below_of[new])])
        tried[open_] += tries
        order = np.argsort(who, kind="stable")
        who, found = who[order], found[order]
        _, earliest = np.unique(who << 32 | found, return_index=True)
        earliest.sort()
        who, found = who[earliest], found[earliest]
        starts = np.searchsorted(who, np.arange(len(users)))
        needed = np.arange(len(who)) - starts[who] < wanted[who]
        who, found = who[needed], found[needed]
        have = np.bincount(who, minlength=len(users))
    return who, found


def train_draws(block: pa.Table, seed: int) -> pa.Table:
    """The training pairs of a block and an int64 ``draw`` for each."""
    return _drawn(block.filter(pa.array(block["split"].to_numpy() == TRAIN)), seed).select(["user", "item", "draw"])


def pooled(block: pa.Table, end: tuple[int, int, int], seed: int, keep_as_positive: bool) -> pa.Table:
    """Move the training pairs before ``end`` in the order (draw, user, item) to the split POOL, or copy them there."""
    drawn = _drawn(block, seed)
    split = block["split"].to_numpy()
    chosen = (split == TRAIN) & before([drawn[name].to_numpy() for name in ("draw", "user", "item")], end)
    if not keep_as_positive:
        return with_split(block, np.where(chosen, POOL, split))
    copies = block.filter(pa.array(chosen))
    return pa.concat_tables([block, with_split(copies, np.full(copies.num_rows, POOL))])


def _drawn(block: pa.Table, seed: int) -> pa.Table:
    drawn = draws(seed, block["user"].to_numpy(), block["item"].to_numpy()) >> np.uint64(1)
    return block.append_column("draw", pa.array(drawn.astype(np.int64)))
