"""The rules of the splits, as pure functions of a block.

A block is sorted by (user, item) and holds each of its users completely, so that no result depends on how the log
was cut into blocks. ``split`` (int8) says where an interaction goes: TRAIN, VALID or TEST.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import ceil
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.prepare.draws import draws

SPLITS = ("train", "valid", "test")
TRAIN, VALID, TEST, POOL = range(len(SPLITS) + 1)
"""Values of the column ``split``; the pool of false negatives is no split, but divided from train in the same way."""


def iid(block: pa.Table, test_ratio: float, valid_ratio: float, rounding: str, seed: int) -> pa.Table:
    """Test is a random part of each user's interactions, validation of the others.

    A user's items in the order of ``draws(seed, user, item)`` (ties by item) give the first ``size_of_test`` to test,
    the next ``size_of_valid`` to validation and the rest to train.
    """
    _, lengths = _users(block["user"].to_numpy())
    test = sizes_of(lengths, lambda n: size_of_test(n, test_ratio))
    valid = sizes_of(lengths - test, lambda n: size_of_valid(n, valid_ratio, rounding))
    place = _places(block["user"].to_numpy(), block["item"].to_numpy(), seed)
    ends = [np.repeat(end, lengths) for end in (test, test + valid)]
    return with_split(block, np.where(place < ends[0], TEST, np.where(place < ends[1], VALID, TRAIN)))


def validation(block: pa.Table, valid_ratio: float, rounding: str, seed: int) -> pa.Table:
    """Move each user's first ``size_of_valid`` training interactions in the order of ``draws`` to validation."""
    split = block["split"].to_numpy()
    rows = np.flatnonzero(split == TRAIN)
    users, items = block["user"].to_numpy()[rows], block["item"].to_numpy()[rows]
    _, lengths = _users(users)
    valid = sizes_of(lengths, lambda n: size_of_valid(n, valid_ratio, rounding))
    moved = rows[_places(users, items, seed) < np.repeat(valid, lengths)]
    split = split.copy()
    split[moved] = VALID
    return with_split(block, split)


def size_of_test(n: int, test_ratio: float) -> int:
    """Test interactions of a user with ``n``: ceil(test_ratio * n), which is n - int((1 - test_ratio) * n).

    At least one interaction is left. Ratios are taken as the decimal numbers they are written as, so
    ceil(0.2 * 5) is 1.
    """
    return min(ceil(Fraction(str(test_ratio)) * n), n - 1)


def size_of_valid(n: int, valid_ratio: float, rounding: str) -> int:
    """Validation interactions of a user with ``n`` that are not test; at least one is left for training.

    ``ceil``: ceil(valid_ratio * n); ``int``: max(int(valid_ratio * n), 1).
    """
    part = Fraction(str(valid_ratio)) * n
    return min(ceil(part) if rounding == "ceil" else max(int(part), 1), n - 1)


def temporal(block: pa.Table, left_out: tuple[int, int, int], test: tuple[int, int, int]) -> pa.Table:
    """Test is what does not come before ``test`` in the order (timestamp, user, item).

    What comes before ``test``, but not before ``left_out``, is dropped.
    """
    columns = [block[name].to_numpy() for name in ("timestamp", "user", "item")]
    is_test, is_train = ~before(columns, test), before(columns, left_out)
    return with_split(block, np.where(is_test, TEST, TRAIN)).filter(pa.array(is_test | is_train))


def leave_last(block: pa.Table, time: str, test: int, valid: int, seed: int) -> pa.Table:
    """The last ``test`` interactions of each user are test, the ``valid`` before them validation.

    The order is that of the column ``time``, ties by ``draws(seed, user, item)``, then item. A user with no more
    than ``test + valid`` interactions keeps all of them in train.
    """
    users, items = block["user"].to_numpy(), block["item"].to_numpy()
    starts, lengths = _users(users)
    order = np.lexsort([draws(seed, users, items), block[time].to_numpy(), users])
    n = np.repeat(lengths, lengths)
    from_end = n - (np.arange(len(order)) - np.repeat(starts, lengths))
    placed = np.where(from_end <= test, TEST, np.where(from_end <= test + valid, VALID, TRAIN))
    split = np.empty(len(order), np.int8)
    split[order] = np.where(n > test + valid, placed, TRAIN)
    return with_split(block, split)


def cut_by_ties(block: pa.Table, time: str) -> pa.Table:
    """Of how many users two interactions of equal ``time`` are in different splits (one row: ``users``)."""
    columns = [block[name].to_numpy() for name in ("split", time, "user")]
    order = np.lexsort(columns)
    split, moment, user = (column[order] for column in columns)
    tied = (user[1:] == user[:-1]) & (moment[1:] == moment[:-1]) & (split[1:] != split[:-1])
    return pa.table({"users": [len(np.unique(user[1:][tied]))]})


def popularity(block: pa.Table, last: NDArray[np.uint64], last_user: NDArray[np.int32], seed: int) -> pa.Table:
    """Test are those of an item's interactions that come first in the order (``draws``, user).

    The last of them, by item, has the draw ``last`` and the user ``last_user`` (-1: the item has none).
    """
    users, items = block["user"].to_numpy(), block["item"].to_numpy()
    drawn, final, final_user = draws(seed, users, items), last[items], last_user[items]
    test = (final_user >= 0) & ((drawn < final) | ((drawn == final) & (users <= final_user)))
    return with_split(block, np.where(test, TEST, TRAIN))


def pairs(block: pa.Table) -> pa.Table:
    """User and item alone."""
    return block.select(["user", "item"])


def last_picked(block: pa.Table, picks: NDArray[np.int64], seed: int) -> pa.Table:
    """``item``, ``draw`` and ``user`` of the interaction that comes ``picks[item]``-th in (draw, user) order.

    The block holds each of its items completely; items without picks are left out.
    """
    users, items = block["user"].to_numpy(), block["item"].to_numpy()
    chosen = picks[items] > 0
    users, items = users[chosen], items[chosen]
    drawn = draws(seed, users, items)
    order = np.lexsort([users, drawn, items])
    items, drawn, users = items[order], drawn[order], users[order]
    starts = np.flatnonzero(np.diff(items, prepend=-1))
    at = starts + picks[items[starts]] - 1
    return pa.table({"item": items[at], "draw": drawn[at], "user": users[at]})


def repeats(block: pa.Table) -> pa.Table:
    """Repeated pairs of a given split: how many are in ``split`` and ``again`` in another or the same, an example."""
    users, items, split = (block[name].to_numpy() for name in ("user", "item", "split"))
    second = 1 + np.flatnonzero((users[1:] == users[:-1]) & (items[1:] == items[:-1]))
    kinds, first, count = np.unique(
        split[second - 1] * len(SPLITS) + split[second], return_index=True, return_counts=True
    )
    example = second[first]
    columns = {"split": kinds // len(SPLITS), "again": kinds % len(SPLITS), "count": count}
    return pa.table(columns | {"user": users[example], "item": items[example]})


def tally(block: pa.Table) -> pa.Table:
    """Interactions per user and per item in each split: ``side`` (0 user, 1 item), ``split``, ``key``, ``count``."""
    split, tables = block["split"].to_numpy(), []
    for side, name in enumerate(("user", "item")):
        codes = block[name].to_numpy()
        low = int(codes.min()) if len(codes) else 0
        for part in (TRAIN, VALID, TEST, POOL):
            counts = np.bincount(codes[split == part] - low)
            keys = np.flatnonzero(counts)
            column = {"side": np.full(len(keys), side, np.int8), "split": np.full(len(keys), part, np.int8)}
            tables.append(pa.table(column | {"key": keys + low, "count": counts[keys]}))
    return pa.concat_tables(tables)


def only(block: pa.Table, users: NDArray[np.bool_], items: NDArray[np.bool_]) -> pa.Table:
    """Keep the interactions that are not test, and those whose user and item are marked."""
    known = users[block["user"].to_numpy()] & items[block["item"].to_numpy()]
    return block.filter(pa.array(known | (block["split"].to_numpy() != TEST)))


def _places(users: NDArray[np.int32], items: NDArray[np.int32], seed: int) -> NDArray[np.int64]:
    """Place of each row among those of its user in the order of ``draws``, ties by item; rows are sorted by both."""
    starts, lengths = _users(users)
    drawn = draws(seed, users, items)
    bits = np.uint64(len(starts).bit_length())
    key = np.repeat(np.arange(len(starts), dtype=np.uint64), lengths) << (np.uint64(64) - bits) | drawn >> bits
    order = np.argsort(key)  # of what one number can hold; the few rows where that is equal are ordered by all
    again = key[order[1:]] == key[order[:-1]]
    equal = np.flatnonzero(np.append(again, False) | np.insert(again, 0, False))
    order[equal] = order[equal][np.lexsort([order[equal], drawn[order[equal]], key[order[equal]]])]
    place = np.empty(len(users), np.int64)
    place[order] = np.arange(len(users)) - np.repeat(starts, lengths)
    return place


def _users(users: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First row and number of rows of each user, of rows sorted by user."""
    starts = np.flatnonzero(np.diff(users, prepend=-1))
    return starts, np.diff(starts, append=len(users))


def with_split(block: pa.Table, split: NDArray[Any]) -> pa.Table:
    """The block with this column ``split``, in the place of the one it has."""
    codes = pa.array(split.astype(np.int8))
    if "split" in block.column_names:
        return block.set_column(block.column_names.index("split"), "split", codes)
    return block.append_column("split", codes)


def sizes_of(lengths: NDArray[np.int64], size: Callable[[int], int]) -> NDArray[np.int64]:
    """``size`` of each length."""
    different, which = np.unique(lengths, return_inverse=True)
    return np.array([size(int(n)) for n in different], np.int64)[which]


def before(columns: Sequence[NDArray[Any]], key: Sequence[int]) -> NDArray[np.bool_]:
    """Rows whose values come before ``key`` in lexicographic order."""
    earlier, equal = np.zeros(len(columns[0]), bool), np.ones(len(columns[0]), bool)
    for column, value in zip(columns, key, strict=True):
        earlier |= equal & (column < value)
        equal &= column == value
    return earlier
