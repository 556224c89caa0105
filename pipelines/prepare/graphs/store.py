"""What a prepared graph has besides its edges: the features of its nodes, and the negatives of held-out edges."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.prepare.graphs.read import Features
from recloss.errors import InputError
from recloss.similarity import csr

FEATURES = "features.parquet"
NEGATIVES = "negatives"
HELD_OUT = ("valid", "test")
FEATURE_COLUMNS = pa.schema([("node", pa.int32()), ("feature", pa.int32()), ("value", pa.float32())])
PAIR_COLUMNS = pa.schema([("user", pa.int32()), ("item", pa.int32())])


def feature_table(features: Features) -> pa.Table:
    """``node``, ``feature``, ``value``: those that are not 0 in the file, in this order."""
    nodes = np.repeat(np.arange(len(features.offsets) - 1, dtype=np.int32), np.diff(features.offsets))
    return pa.table([nodes, features.columns, features.values], schema=FEATURE_COLUMNS)


def negative_table(pairs: NDArray[np.int64]) -> pa.Table:
    """``user``, ``item``: the pairs of the first edge, then those of the next one; ``pairs`` is (E, M, 2)."""
    return pa.table(list(pairs.reshape(-1, 2).T.astype(np.int32)), schema=PAIR_COLUMNS)


def csr_tensor(features: Features) -> Tensor:
    """(n, F) float32."""
    columns = torch.from_numpy(features.columns.astype(np.int64))
    return csr(torch.from_numpy(features.values), columns, torch.from_numpy(features.offsets), features.width)


def extra_files(sizes: dict[str, int]) -> dict[str, pa.Schema]:
    """The files of a graph with these sizes, and their columns."""
    named = {f"{NEGATIVES}/{split}.parquet": PAIR_COLUMNS for split in HELD_OUT}
    return ({FEATURES: FEATURE_COLUMNS} if sizes["features"] else {}) | named


def read_extra(path: Path, name: str, sizes: dict[str, int]) -> pa.Table:
    """One of `extra_files` of the prepared dataset ``path``.

    Raises:
        InputError: it is missing or damaged, has other columns or another number of rows, or an index is out of range.
    """
    file, schema = path / name, extra_files(sizes)[name]
    try:
        table = pq.read_table(file, partitioning=None)
    except FileNotFoundError:
        raise InputError(f"{file}: missing; prepare the dataset again") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{file}: not a complete Parquet file ({' '.join(str(error).split())})") from None
    if table.schema.remove_metadata() != schema or any(column.null_count for column in table.columns):
        raise InputError(
            f"{file}: expected the columns {', '.join(f'{field.name} ({field.type})' for field in schema)}"
        )
    bounds = {"node": sizes["users"], "user": sizes["users"], "item": sizes["items"], "feature": sizes["features"]}
    for column in table.column_names:
        values = table[column].to_numpy()
        if column in bounds and len(values) and not (values.min() >= 0 and values.max() < bounds[column]):
            raise InputError(f"{file}: {column} out of range, the manifest has {bounds[column]:,}")
    if name != FEATURES:
        split = file.stem
        stated = sizes[split] * sizes["negatives_per_edge"]
        if table.num_rows != stated:
            raise InputError(f"{file}: {table.num_rows:,} negatives, the manifest says {stated:,}")
    return table
