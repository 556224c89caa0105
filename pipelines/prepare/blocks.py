"""The steps of preparation as pure functions of a block (a ``pyarrow.Table``), run by either engine.

A block has the columns ``user`` and ``item`` (ids as strings before ``encode``, int32 codes after it) and,
where the log has them, ``rating`` (float64) and ``timestamp`` (int64). Every function accepts a block without
rows.
"""

from fractions import Fraction
from math import ceil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

SIDES = ("user", "item")


def tally(block: pa.Table) -> pa.Table:
    """Interactions per user and per item of this block: ``side`` (index into SIDES), ``key``, ``count``."""
    counted = [pc.value_counts(block[side]) for side in SIDES]
    return pa.concat_tables(
        pa.table({"side": np.full(len(c), side, np.int8), "key": c.field("values"), "count": c.field("counts")})
        for side, c in enumerate(counted)
    )


def encode(block: pa.Table, users: pa.Array, items: pa.Array) -> pa.Table:
    """Replace every id by its position in ``users`` or ``items``."""
    for at, (side, ids) in enumerate(zip(SIDES, (users, items), strict=True)):
        block = block.set_column(at, side, pc.index_in(block[side], value_set=ids))
    return block


def at_least(block: pa.Table, min_rating: float) -> pa.Table:
    """Drop interactions rated below ``min_rating``."""
    return block.filter(pc.greater_equal(block["rating"], min_rating))


def distinct(block: pa.Table) -> pa.Table:
    """Sort by (user, item) and keep one interaction of each pair.

    It is the earliest one, of equally early ones the lowest rated. All interactions of a user must be in this
    block.
    """
    pair = block["user"].to_numpy().astype(np.int64) << 32 | block["item"].to_numpy()
    ranked = [block[column].to_numpy() for column in ("rating", "timestamp") if column in block.column_names]
    order = np.lexsort([*ranked, pair])
    pair = pair[order]
    return block.take(order[np.concatenate([[True], pair[1:] != pair[:-1]])[: len(pair)]])


def keep(block: pa.Table, users: NDArray[np.bool_], items: NDArray[np.bool_]) -> pa.Table:
    """Keep the interactions whose user and whose item are marked."""
    return block.filter(pa.array(users[block["user"].to_numpy()] & items[block["item"].to_numpy()]))


def renumber(block: pa.Table, users: NDArray[np.int32], items: NDArray[np.int32]) -> pa.Table:
    """Replace the codes by ``users[code]`` and ``items[code]``."""
    for at, (side, new) in enumerate(zip(SIDES, (users, items), strict=True)):
        block = block.set_column(at, side, pa.array(new[block[side].to_numpy()]))
    return block


def split(block: pa.Table, test_ratio: float, valid_ratio: float, seed: int) -> pa.Table:
    """Add the column ``split`` (int8: 0 train, 1 valid, 2 test).

    Per user, the items in the order of ``draws(seed, user, item)`` (ties by item) give the first ``test`` to
    test, the next ``valid`` to validation and the rest to train; the three numbers are those of ``sizes``.
    The block is sorted by (user, item) and holds each of its users completely, so the result does not depend
    on the blocks.
    """
    users, items = block["user"].to_numpy(), block["item"].to_numpy()
    _, start, inverse, count = np.unique(users, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort([items, draws(seed, users, items), users])
    place = np.empty(len(users), np.int64)
    place[order] = np.arange(len(users)) - start[inverse]
    lengths, which = np.unique(count, return_inverse=True)
    parts = np.array([sizes(int(n), test_ratio, valid_ratio) for n in lengths], np.int64).reshape(-1, 3)
    _, valid, test = parts[which[inverse]].T
    return block.append_column("split", pa.array(np.where(place < test, 2, place < test + valid).astype(np.int8)))


def sizes(n: int, test_ratio: float, valid_ratio: float) -> tuple[int, int, int]:
    """(train, valid, test) of a user with ``n`` interactions.

    test = ceil(test_ratio * n), valid = ceil(valid_ratio * (n - test)), the rest is train. The ratios are taken
    as the decimal numbers they are written as, so ceil(0.2 * 5) is 1. At least one interaction stays in train:
    test <= n - 1, then valid <= n - test - 1; n = 1 gives (1, 0, 0) and n = 2 gives (1, 0, 1).
    """
    test = min(ceil(Fraction(str(test_ratio)) * n), n - 1)
    valid = min(ceil(Fraction(str(valid_ratio)) * (n - test)), n - test - 1)
    return n - test - valid, valid, test


def draws(seed: int, users: NDArray[np.int32], items: NDArray[np.int32]) -> NDArray[np.uint64]:
    """One uniform 64-bit number per pair: mix(mix(mix(seed) + user) + item), mix a step of SplitMix64."""
    drawn = _mix(np.array(seed % 2**64, np.uint64))
    drawn = _mix(drawn + users.astype(np.uint64))
    return _mix(drawn + items.astype(np.uint64))


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A step of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), modulo 2^64."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)
