"""The interaction of a given rank in an order of all interactions, found by counting instead of sorting."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.prepare.engines import Engine

DIGIT = 16
"""Bits of a value that one pass over the blocks settles; a block answers with up to 2^DIGIT counts."""


def ranked(engine: Engine, blocks: Any, column: str, rank: int) -> tuple[int, int, int]:
    """(value, user, item) of the interaction with ``rank`` others before it in the order (column, user, item).

    ``column`` is an int64 column of values from 0. What reaches this process are counts: 2^DIGIT numbers of every
    block for each digit of the value, then for equal values one per user, then one per item.
    """
    bounds = pa.concat_tables(engine.tables(engine.map(blocks, bounds_of, column=column)))
    low, high = pc.min(bounds["low"]).as_py(), pc.max(bounds["high"]).as_py()
    for shift in reversed(range(0, max((high - low).bit_length(), 1), DIGIT)):
        digit, rank = _passed(engine, blocks, rank, counted=digits, column=column, low=low, shift=shift)
        low += digit << shift
    user, rank = _passed(engine, blocks, rank, counted=users_at, column=column, value=low)
    item, _ = _passed(engine, blocks, rank, counted=items_at, column=column, value=low, user=user)
    return low, user, item


def _passed(engine: Engine, blocks: Any, rank: int, *, counted: Any, **where: Any) -> tuple[int, int]:
    """The key at ``rank`` in ascending order of the keys, and the rank among the interactions of that key."""
    counts = pa.concat_tables(engine.tables(engine.map(blocks, counted, **where)))
    counts = counts.group_by("key").aggregate([("count", "sum")]).sort_by("key")
    ends = np.cumsum(counts["count_sum"].to_numpy())
    at = int(np.searchsorted(ends, rank, side="right"))
    return counts["key"][at].as_py(), rank - (int(ends[at - 1]) if at else 0)


def bounds_of(block: pa.Table, column: str) -> pa.Table:
    """Smallest and largest value of a block."""
    low, high = pc.min_max(block[column]).as_py().values()
    return pa.table({"low": pa.array([low], pa.int64()), "high": pa.array([high], pa.int64())})


def digits(block: pa.Table, column: str, low: int, shift: int) -> pa.Table:
    """How many values lie ``key << shift`` above ``low``, for the keys of one digit."""
    above = block[column].to_numpy() - low
    keys = above[above >= 0] >> shift
    counts = np.bincount(keys[keys < 1 << DIGIT])
    found = np.flatnonzero(counts)
    return pa.table({"key": found, "count": counts[found]})


def users_at(block: pa.Table, column: str, value: int) -> pa.Table:
    """How many interactions with this value each user has."""
    return _counted(block.filter(pc.equal(block[column], value))["user"])


def items_at(block: pa.Table, column: str, value: int, user: int) -> pa.Table:
    """How many interactions with this value and user each item has."""
    chosen = pc.and_(pc.equal(block[column], value), pc.equal(block["user"], user))
    return _counted(block.filter(chosen)["item"])


def _counted(keys: pa.Array | pa.ChunkedArray) -> pa.Table:
    counted = pc.value_counts(keys)
    return pa.table({"key": counted.field("values").cast(pa.int64()), "count": counted.field("counts")})
