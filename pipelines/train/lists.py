"""What training reads of prepared lists of documents, as arrays on disk that all processes of a machine share."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.prepare.dataset import shard_files
from pipelines.train import mapped
from recloss.errors import InputError
from recloss.ranking import Lists


def lists(data: Path, fingerprint: str, split: str) -> Lists:
    """A split of a prepared dataset of the task ``rank``, its tensors mapped from the cache.

    Query q is user q of the dataset: the queries of other splits are there without documents. To write to the tensors
    ends the process.

    Raises:
        InputError: if the folder does not hold the data set of this fingerprint, its shards are damaged, or the cache
            cannot be written.
    """
    sizes = mapped.manifest_of(data, fingerprint)["sizes"]
    n, n_queries, width = sizes[split], sizes["users"], sizes["features"]

    def write_values(file: BinaryIO) -> None:
        _write_values(file, data, split, n, width)

    def write_offsets(file: BinaryIO) -> None:
        _write_offsets(file, data, split, n, n_queries)

    # the offsets first: where rows are missing or out of order they are refused, and no values are kept
    offsets = mapped.mapped_array(f"{fingerprint}-{split}-offsets.int64", (n_queries + 1,), np.int64, write_offsets)
    values = mapped.mapped_array(f"{fingerprint}-{split}.float32", (n * (width + 1),), np.float32, write_values)
    features, grades = mapped.tensor(values).split([n * width, n])
    return Lists(features.view(n, width), grades, mapped.tensor(offsets))


def _write_values(file: BinaryIO, data: Path, split: str, n: int, width: int) -> None:
    """Features (n, width), then grades (n); a row group at a time is in memory."""
    rows = 0
    for shard in shard_files(data / split):
        try:
            with pq.ParquetFile(shard) as parquet:
                for batch in parquet.iter_batches(max(2**24 // width, 1), columns=["grade", "features"]):
                    if batch["features"].type.list_size != width:
                        raise InputError(f"{shard}: {batch['features'].type.list_size} features, expected {width}")
                    values, grades = batch["features"].flatten().to_numpy(), batch["grade"].to_numpy()
                    file.seek(4 * rows * width)
                    file.write(values.astype(np.float32, copy=False).data)
                    file.seek(4 * (n * width + rows))
                    file.write(np.ascontiguousarray(grades, np.float32).data)
                    rows += len(grades)
        except (pa.ArrowInvalid, OSError) as error:
            raise _damaged(shard, error) from None
    _check_rows(data, split, rows, n)


def _write_offsets(file: BinaryIO, data: Path, split: str, n: int, n_queries: int) -> None:
    """Where the documents of each query begin."""
    counts, rows, last = np.zeros(n_queries, np.int64), 0, -1
    for shard in shard_files(data / split):
        try:
            user = pq.read_table(shard, columns=["user"], partitioning=None)["user"].to_numpy()
        except (pa.ArrowInvalid, OSError) as error:
            raise _damaged(shard, error) from None
        if len(user) and not (max(last, 0) <= user[0] and user[-1] < n_queries and (np.diff(user) >= 0).all()):
            raise InputError(f"{shard}: queries out of order or range; prepare the dataset again")
        counts += np.bincount(user, minlength=n_queries)
        rows, last = rows + len(user), int(user[-1]) if len(user) else last
    _check_rows(data, split, rows, n)
    file.write(np.concatenate([[0], counts.cumsum()]).astype(np.int64).data)


def _check_rows(data: Path, split: str, rows: int, n: int) -> None:
    if rows != n:
        raise InputError(f"{data / split}: {rows:,} rows, the manifest says {n:,}; prepare the dataset again")


def _damaged(shard: Path, error: Exception) -> InputError:
    return InputError(f"{shard}: not a complete Parquet file ({' '.join(str(error).split())})")
