"""What training reads of a prepared graph."""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.prepare.dataset import SPLITS, shards
from pipelines.prepare.graphs.read import Features
from pipelines.prepare.graphs.store import FEATURES, HELD_OUT, NEGATIVES, csr_tensor, read_extra
from pipelines.train import mapped
from recloss.errors import InputError
from recloss.links import Links


def links(data: Path, fingerprint: str) -> Links:
    """A prepared dataset of the task ``link``; its negatives are mapped from the cache, so they must not be written to.

    Raises:
        InputError: if the folder does not hold the data set of this fingerprint, a file of it is damaged, or the cache
            cannot be written.
    """
    sizes = mapped.manifest_of(data, fingerprint)["sizes"]
    edges = {split: _edges(data, split) for split in SPLITS}
    negatives = {split: _negatives(data, fingerprint, split, sizes) for split in HELD_OUT}
    features = csr_tensor(_features(data, sizes)) if sizes["features"] else None
    try:
        return Links(
            n_nodes=sizes["users"],
            features=features,
            **edges,
            **{f"{split}_negatives": pairs for split, pairs in negatives.items()},
        )
    except ValueError as error:
        raise InputError(f"{data}: {error}; prepare the dataset again") from None


def _edges(data: Path, split: str) -> Tensor:
    parts = [np.stack(pair, axis=1).astype(np.int64) for pair in shards(data, split)]
    return torch.from_numpy(np.concatenate([np.empty((0, 2), np.int64), *parts]))


def _negatives(data: Path, fingerprint: str, split: str, sizes: dict[str, Any]) -> Tensor:
    """(E, M, 2)."""

    def write(file: BinaryIO) -> None:
        table = read_extra(data, f"{NEGATIVES}/{split}.parquet", sizes)
        pairs: NDArray[np.int64] = np.stack([table[side].to_numpy() for side in ("user", "item")], axis=1).astype(
            np.int64
        )
        file.write(pairs.data)

    shape = (sizes[split], sizes["negatives_per_edge"], 2)
    return mapped.tensor(mapped.mapped_array(f"{fingerprint}-{split}-negatives.int64", shape, np.int64, write))


def _features(data: Path, sizes: dict[str, Any]) -> Features:
    table = read_extra(data, FEATURES, sizes)
    nodes, columns, values = (table[name].to_numpy() for name in ("node", "feature", "value"))
    counts = np.bincount(nodes, minlength=sizes["users"])
    return Features(np.concatenate([[0], np.cumsum(counts)]), columns, values.copy(), sizes["features"])
