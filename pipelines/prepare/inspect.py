"""What a prepared dataset looks like: sizes, how interactions are spread, what the splits share, popularity."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.prepare.dataset import SPLITS, Pairs, Prepared, load, shard_files

QUANTILES = {"min": 0, "25 %": 25, "median": 50, "75 %": 75, "max": 100}


@dataclass(frozen=True)
class Spread:
    """Interactions per user or per item, over all that are in the catalogue."""

    size: int
    """How many users or items there are."""
    quantiles: dict[str, float]
    """By name: min, 25 %, median, mean, 75 %, max (linear between ranks)."""
    none: int
    """How many have no interaction at all."""
    single: int
    """How many have exactly one."""
    gini: float
    """0 if all have equally many, towards 1 if one has all."""


@dataclass(frozen=True)
class Unseen:
    """What a split has that train has not."""

    users: int
    items: int
    rows: int
    """Interactions of such a user or with such an item."""


@dataclass(frozen=True)
class Inspection:
    """The numbers; nothing here names a user or an item."""

    path: Path
    manifest: dict[str, Any]
    rows: dict[str, int]
    """Interactions of each split, and of the pool if there is one."""
    density: float
    """Distinct pairs of all splits over users x items."""
    users: Spread
    items: Spread
    users_of: dict[str, int]
    """Users with interactions, by split."""
    times: dict[str, tuple[int, int]]
    """First and last timestamp of each split, in seconds; empty where the log has none."""
    shared: dict[tuple[str, str], int]
    """Pairs that are in two splits; all must be 0, except in sequences, where an item may come again."""
    unseen: dict[str, Unseen]
    """Of validation and test."""
    popularity: list[tuple[int, int, int, int]]
    """(from, to, items, interactions): items with that many interactions, in bins of doubling width."""


def inspect(path: Path) -> Inspection:
    """Look at a prepared dataset; its pairs are in memory while this runs, as they are for training.

    Raises:
        InputError: it is not a prepared dataset, or a file of it is damaged.
    """
    data = load(path)
    pairs = {split: getattr(data, split) for split in SPLITS}
    counts = [_counts(pairs, side, size) for side, size in enumerate((data.n_users, data.n_items))]
    rows = {split: len(users) for split, (users, _) in pairs.items()}
    keys = {split: _keys(pair) for split, pair in pairs.items()}
    shared = {(a, b): _common(keys[a], keys[b]) for a, b in (("train", "valid"), ("train", "test"), ("valid", "test"))}
    return Inspection(
        path=path,
        manifest=data.manifest,
        rows=rows | ({"pool": len(data.pool[0])} if data.pool else {}),
        density=len(np.unique(np.concatenate(list(keys.values())))) / (data.n_users * data.n_items),
        users=spread(counts[0]),
        items=spread(counts[1]),
        users_of={split: len(np.unique(users)) for split, (users, _) in pairs.items()},
        times={split: found for split in SPLITS if (found := _times(path, split)) is not None},
        shared=shared,
        unseen={split: _unseen(data, pairs[split]) for split in ("valid", "test")},
        popularity=popularity(counts[1]),
    )


def spread(counts: NDArray[np.int64]) -> Spread:
    """How unevenly ``counts`` are spread."""
    quantiles = dict(zip(QUANTILES, np.percentile(counts, list(QUANTILES.values())).tolist(), strict=True))
    named = {name: quantiles[name] for name in ("min", "25 %", "median")} | {"mean": float(counts.mean())}
    ordered, n = np.sort(counts), len(counts)
    gini = float(((2 * np.arange(1, n + 1) - n - 1) * ordered).sum() / (n * ordered.sum()))
    return Spread(n, named | quantiles, int((counts == 0).sum()), int((counts == 1).sum()), gini)


def popularity(counts: NDArray[np.int64]) -> list[tuple[int, int, int, int]]:
    """Items by their number of interactions: none, 1, 2-3, 4-7, ... from the first bin with an item to the last."""
    bins: list[tuple[int, int, int, int]] = []
    low, high = 0, 0
    while low <= counts.max():
        inside = (counts >= low) & (counts <= high)
        if bins or inside.any():
            bins.append((low, high, int(inside.sum()), int(counts[inside].sum())))
        low = high + 1
        high = 2 * low - 1
    return bins


def _counts(pairs: dict[str, Pairs], side: int, size: int) -> NDArray[np.int64]:
    return sum((np.bincount(pair[side], minlength=size) for pair in pairs.values()), np.zeros(size, np.int64))


def _keys(pairs: Pairs) -> NDArray[np.int64]:
    """A number per distinct pair, in ascending order."""
    users, items = pairs
    return np.unique(users.astype(np.int64) << 32 | items)


def _common(one: NDArray[np.int64], other: NDArray[np.int64]) -> int:
    places = np.searchsorted(one, other)
    return int((one[np.minimum(places, len(one) - 1)] == other).sum()) if len(one) else 0


def _unseen(data: Prepared, pairs: Pairs) -> Unseen:
    users, items = (
        np.bincount(train, minlength=size)[held] == 0
        for train, held, size in zip(data.train, pairs, (data.n_users, data.n_items), strict=True)
    )
    unknown = [len(np.unique(held[mask])) for held, mask in zip(pairs, (users, items), strict=True)]
    return Unseen(unknown[0], unknown[1], int((users | items).sum()))


def _times(path: Path, split: str) -> tuple[int, int] | None:
    """First and last timestamp, one shard at a time."""
    found = []
    for file in shard_files(path / split):
        if "timestamp" in pq.read_schema(file).names:
            column = pq.read_table(file, columns=["timestamp"], partitioning=None)["timestamp"]
            found += [value for value in pc.min_max(column).as_py().values() if value is not None]
    return (min(found), max(found)) if found else None
