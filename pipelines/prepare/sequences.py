"""A log as sequences: each user's interactions in the order of time, as pure functions of a block.

Interactions of equal time are in the order of the log (its files by name, then line by line), which ``place`` (int64)
keeps however the log is cut into blocks. Every function but ``placed`` needs blocks that hold each of their users
completely, and accepts a block without rows.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.prepare.splits import SPLITS


def placed(block: pa.Table, before: Mapping[int, int]) -> pa.Table:
    """Add ``place`` to a block that was just read: how many good rows of the log come before each.

    ``before`` tells how many come before the block of a ``number``.
    """
    good = np.ones(block.num_rows, bool)
    if "refused" in block.column_names:
        good = pc.is_null(block["refused"]).to_numpy()
    start = before.get(block["number"][0].as_py(), 0) if block.num_rows else 0
    return block.append_column("place", pa.array(start + np.cumsum(good) - good))


def in_order(block: pa.Table, time: str | None, keep: Literal["all", "any", "first", "last"]) -> pa.Table:
    """Sort by (user, ``time``, ``place``), without ``time`` by place alone, and keep some of repeated pairs.

    ``any`` and ``first`` keep the first interaction of each pair in this order, ``last`` the last, ``all`` all of them.
    ``place`` and the log's own positions are dropped.
    """
    order = np.lexsort([block[name].to_numpy() for name in ("place", time, "user") if name])
    if keep != "all":
        step = -1 if keep == "last" else 1
        _, first = np.unique(_pairs(block)[order][::step], return_index=True)
        order = order[::step][np.sort(first)][::step]
    kept = [name for name in block.column_names if name not in ("place", "position")]
    return block.select(kept).take(order)


def numbered(block: pa.Table) -> pa.Table:
    """Add ``position`` (int64) to sorted rows: the place of each in its user's sequence, from 0."""
    user = block["user"].to_numpy()
    starts = np.flatnonzero(np.diff(user, prepend=-1))
    lengths = np.diff(starts, append=len(user))
    return block.append_column("position", pa.array(np.arange(len(user)) - np.repeat(starts, lengths)))


def told(block: pa.Table, time: str | None) -> pa.Table:
    """One row of counts: ``repeated``, interactions whose pair came before, ``tied``, of the time of the one before."""
    tied = 0
    if time:
        moment, user = block[time].to_numpy(), block["user"].to_numpy()
        tied = int(((user[1:] == user[:-1]) & (moment[1:] == moment[:-1])).sum())
    return pa.table({"repeated": [block.num_rows - len(np.unique(_pairs(block)))], "tied": [tied]})


def distinct(block: pa.Table) -> pa.Table:
    """One row: the number of distinct pairs in each split."""
    pairs, split = _pairs(block), block["split"].to_numpy()
    return pa.table({part: [len(np.unique(pairs[split == code]))] for code, part in enumerate(SPLITS)})


def _pairs(block: pa.Table) -> NDArray[np.int64]:
    """A number per pair."""
    return block["user"].to_numpy().astype(np.int64) << 32 | block["item"].to_numpy()
