"""What prepared lists of documents look like: their lengths, their grades, queries without a relevant document."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.prepare.dataset import SPLITS, load, shard_files
from pipelines.prepare.inspect import spread
from pipelines.prepare.shown import NAMES, aligned, section, spreads
from pipelines.prepare.words import told
from recloss.errors import InputError

READ_AT_ONCE = 2**24
"""Values of features that are read at a time."""


def shown_lists(path: Path) -> list[str]:
    """The lines of an inspection; no query and no document is named.

    Raises:
        InputError: a file of the dataset is damaged.
    """
    data = load(path)
    sizes = data.manifest["sizes"]
    found = {split: _of_split(path, split) for split in SPLITS}
    rows = [["", "documents", "queries", "without a relevant document"]]
    lengths = {}
    for split, (queries, grades) in found.items():
        own, place, counts = np.unique(queries, return_inverse=True, return_counts=True)
        none = int((np.bincount(place, weights=grades > 0) == 0).sum())
        lengths[NAMES[split]] = spread(counts)
        rows.append([NAMES[split], f"{len(grades):,}", f"{len(own):,}", f"{none:,} ({none / len(own):.1%})"])
    total = sum(len(grades) for _, grades in found.values())
    different = f"{sizes['items']:,} different" if sizes["items"] < total else "all different"
    whole = f"{sizes['users']:,} queries, {total:,} judged documents ({different}), {sizes['features']:,} features"
    return [
        f"{path}: fingerprint {data.fingerprint}",
        *section("how it was made", told(data.manifest)),
        *section("sizes", [whole, *aligned(rows)]),
        *section("documents per query", spreads(lengths)),
        *section("grades", _grades({split: grades for split, (_, grades) in found.items()})),
        *section("features in train", _features(path, sizes["features"])),
    ]


def _of_split(path: Path, split: str) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The query and the grade of each document."""
    tables = [pq.read_table(file, columns=["user", "grade"], partitioning=None) for file in shard_files(path / split)]
    table = pa.concat_tables(tables)
    return table["user"].to_numpy(), table["grade"].to_numpy()


def _grades(found: dict[str, NDArray[np.float32]]) -> list[str]:
    """How often each grade is given in each split."""
    levels = np.unique(np.concatenate(list(found.values())))
    rows = [["", *(f"{level:g}" for level in levels)]]
    for split, grades in found.items():
        counts = [int((grades == level).sum()) for level in levels]
        rows.append([NAMES[split], *(f"{count:,} ({count / len(grades):.1%})" for count in counts)])
    return aligned(rows)


def _features(path: Path, width: int) -> list[str]:
    """Between which values they lie, and how many have one value only; some rows at a time are in memory."""
    low, high = np.full(width, np.inf, np.float32), np.full(width, -np.inf, np.float32)
    for file in shard_files(path / "train"):
        try:
            with pq.ParquetFile(file) as shard:
                for batch in shard.iter_batches(max(READ_AT_ONCE // width, 1), columns=["features"]):
                    values = batch["features"].flatten().to_numpy().reshape(-1, width)
                    low, high = np.minimum(low, values.min(axis=0)), np.maximum(high, values.max(axis=0))
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{file}: not a complete Parquet file ({' '.join(str(error).split())})") from None
    return [f"values from {low.min():g} to {high.max():g}; {int((low == high).sum()):,} features have one value only"]
