"""The steps of preparation as pure functions of a block (a ``pyarrow.Table``), run by either engine.

A block has the columns ``user`` and ``item`` (dictionaries of ids before ``encode``, int32 codes after it) and, where
the log has them, ``rating`` (float64), ``timestamp`` (int64) and ``position`` (int64). Blocks that were just read have
``number`` (int32), which tells them apart, ``refused`` where bad rows are skipped, and ``split`` where the log is
split already. Every function accepts a block without rows.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.prepare.ids import dictionary

SIDES = ("user", "item")
SHOWN = 100
"""Refused rows of a block whose messages are kept."""


def refused(block: pa.Table) -> pa.Table:
    """How many rows of this block are refused, and what is wrong with the first of them: ``count``, ``messages``."""
    messages = block["refused"].drop_null()
    return pa.table({"count": [len(messages)], "messages": [messages[:SHOWN].to_pylist()]})


def occurrences(block: pa.Table, min_rating: float | None) -> pa.Table:
    """The ids of this block: ``number``, ``side`` (index into SIDES), ``id``, and its interactions: ``read``, ``kept``.

    ``kept`` are those rated ``min_rating`` or more. The ids of a side are in the order of its codes.
    """
    good = _good(block)
    rated = slice(None) if min_rating is None else good["rating"].to_numpy() >= min_rating
    tables = []
    for at, side in enumerate(SIDES):
        codes, ids = _dictionary(good[side])
        counts = [np.bincount(chosen, minlength=len(ids)) for chosen in (codes, codes[rated])]
        columns = {"id": ids, "read": counts[0].astype(np.int32), "kept": counts[1].astype(np.int32)}
        tables.append(pa.table({"side": np.full(len(ids), at, np.int8)} | columns))
    occurring = pa.concat_tables(tables)
    return occurring.add_column(0, "number", pa.array(np.full(len(occurring), _number(block), np.int32)))


def encode(
    block: pa.Table, starts: Mapping[int, tuple[int, int]], users: NDArray[np.int32], items: NDArray[np.int32]
) -> pa.Table:
    """Replace every id by its index: that of code c is ``users[start + c]``, ``start`` that of the block's number."""
    good = _good(block)
    for side, start, indices in zip(SIDES, starts.get(_number(block), (0, 0)), (users, items), strict=True):
        codes, _ = _dictionary(good[side])
        good = good.set_column(good.column_names.index(side), side, pa.array(indices[start:][codes]))
    return good


def at_least(block: pa.Table, min_rating: float) -> pa.Table:
    """Drop interactions rated below ``min_rating``."""
    return block.filter(pc.greater_equal(block["rating"], min_rating))


def grouped(block: pa.Table, key: str, groups: NDArray[np.uint16]) -> pa.Table:
    """Add the column ``group`` (uint16): ``groups[user]`` or ``groups[item]``."""
    return block.append_column("group", pa.array(groups[block[key].to_numpy()]))


def by_group(block: pa.Table, n: int) -> list[pa.Table]:
    """The rows of each of ``n`` groups, without the column ``group``."""
    group = block["group"].to_numpy()
    order = np.argsort(group, kind="stable")  # by counting, as these are 16-bit numbers
    ends = np.searchsorted(group[order], np.arange(n), side="right").tolist()
    rows = ungrouped(block).take(order)
    return [rows.slice(start, end - start) for start, end in zip([0, *ends], ends, strict=False)]


def ungrouped(block: pa.Table) -> pa.Table:
    """Drop the column ``group``."""
    return block.drop_columns("group")


def distinct(block: pa.Table, keep: Literal["any", "first", "last"] = "any") -> pa.Table:
    """Sort by (user, item) and keep one interaction of each pair; all of a user must be in this block.

    Interactions of a pair have an order that depends on their content alone: by timestamp, then position, then rating.
    ``any`` and ``first`` keep the first of them, ``last`` the last.
    """
    order, new = _by_pair(block)
    chosen = new if keep != "last" else np.roll(new, -1)
    return block.take(order[chosen])


def ordered(block: pa.Table) -> pa.Table:
    """Sort by (user, item), repeated pairs by their content; all interactions of a user must be in this block."""
    return block.take(_by_pair(block)[0])


def _by_pair(block: pa.Table) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Rows in the order of (user, item, timestamp, position, rating, split), and where a new pair begins."""
    pair = block["user"].to_numpy().astype(np.int64) << 32 | block["item"].to_numpy()
    order = np.argsort(pair)
    pair = pair[order]
    again = pair[1:] == pair[:-1]
    new = np.concatenate([[True], ~again])[: len(pair)]
    repeated = np.flatnonzero(np.concatenate([again, [False]]) | ~new)  # few: only they are put into order
    rows = order[repeated]
    content = [name for name in ("split", "rating", "position", "timestamp") if name in block.column_names]
    ranks = np.lexsort([*(block[name].take(rows).to_numpy() for name in content), pair[repeated]])
    order[repeated] = rows[ranks]
    return order, new


def tally(block: pa.Table) -> pa.Table:
    """Interactions per user and per item of this block: ``side`` (index into SIDES), ``key``, ``count``."""
    return _counts(block["user"].to_numpy(), block["item"].to_numpy())


def core_pass(block: pa.Table, items: NDArray[np.bool_], k: int) -> pa.Table:
    """What ``tally`` gives without the interactions of unmarked items, then without users that have less than ``k``.

    The block is sorted by user and holds each of its users completely.
    """
    user, item = block["user"].to_numpy(), block["item"].to_numpy()
    left = items[item]
    starts = np.flatnonzero(np.concatenate([[True], user[1:] != user[:-1]])[: len(user)])
    enough = np.add.reduceat(left, starts, dtype=np.int64) >= k if len(starts) else np.zeros(0, bool)
    left &= np.repeat(enough, np.diff(starts, append=len(user)))
    return _counts(user[left], item[left])


def _counts(*sides: NDArray[np.int32]) -> pa.Table:
    tables = []
    for at, codes in enumerate(sides):
        low = int(codes.min()) if len(codes) else 0
        counts = np.bincount(codes - low)
        keys = np.flatnonzero(counts)
        columns = {"key": (keys + low).astype(np.int32), "count": counts[keys]}
        tables.append(pa.table({"side": np.full(len(keys), at, np.int8)} | columns))
    return pa.concat_tables(tables)


def keep(block: pa.Table, users: NDArray[np.bool_], items: NDArray[np.bool_]) -> pa.Table:
    """Keep the interactions whose user and whose item are marked."""
    return block.filter(pa.array(users[block["user"].to_numpy()] & items[block["item"].to_numpy()]))


def renumber(block: pa.Table, users: NDArray[np.int32], items: NDArray[np.int32]) -> pa.Table:
    """Replace the codes by ``users[code]`` and ``items[code]``."""
    for side, new in zip(SIDES, (users, items), strict=True):
        block = block.set_column(block.column_names.index(side), side, pa.array(new[block[side].to_numpy()]))
    return block


def _good(block: pa.Table) -> pa.Table:
    """The rows that are not refused, each side as one dictionary, without ``number`` and ``refused``."""
    if "refused" in block.column_names:
        accepted = pc.is_null(block["refused"])
        if not pc.all(accepted).as_py():
            block = block.filter(accepted)
            for side in SIDES:  # the ids of refused rows leave the dictionaries
                at = block.column_names.index(side)
                block = block.set_column(at, side, dictionary(block[side].cast(pa.string()).combine_chunks()))
    kept = [name for name in block.column_names if name not in ("number", "refused")]
    return block.select(kept).unify_dictionaries().combine_chunks()


def _dictionary(column: pa.ChunkedArray) -> tuple[NDArray[np.int32], pa.Array]:
    """Codes and ids of a column with one dictionary."""
    whole = column.combine_chunks()
    return whole.indices.to_numpy(), whole.dictionary


def _number(block: pa.Table) -> int:
    return block["number"][0].as_py()
