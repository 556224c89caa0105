"""From the files of a graph to the splits of a prepared dataset."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.prepare.dataset import SPLITS, Fingerprint
from pipelines.prepare.folder import ShardWriter, write
from pipelines.prepare.graphs.read import Features, graph_files, read_graph
from pipelines.prepare.graphs.store import FEATURES, HELD_OUT, NEGATIVES, csr_tensor, feature_table, negative_table
from pipelines.prepare.steps import Steps
from recloss.errors import InputError
from recloss.links.negatives import hard_negatives, random_negatives
from recloss.links.split import split_edges

if TYPE_CHECKING:
    from pipelines.settings import PrepareSettings


class RawGraph:
    """The raw files of a link-prediction dataset."""

    def __init__(self, raw: Path, say: Callable[[str], None]):
        self.raw, self.files = raw, graph_files(raw)
        nodes = self.files.nodes
        self.format = f"edges{' and features of nodes' if nodes else ''}"
        told = [f"format: {self.format}, {self.files.edges.name}{f' and {nodes.name}' if nodes else ''}"]
        if self.files.ignored:
            told.append(f"ignored: {', '.join(self.files.ignored)} (pickles run what is written in them)")
        say("; ".join(told))

    @property
    def paths(self) -> list[Path]:
        """All files that are read."""
        return [file.path for file in (self.files.edges, self.files.nodes) if file is not None]

    def write(
        self, folder: Path, settings: "PrepareSettings", workers: int, say: Callable[[str], None]
    ) -> dict[str, Any]:
        """Read, divide, draw negatives and write; returns the manifest's sizes, steps and fingerprint.

        Raises:
            InputError: a file cannot be read, or there are too few edges, or too few nodes without an edge.
        """
        steps = Steps(self.raw, say, ("edges", "nodes", "nodes"))
        graph = read_graph(self.files, settings, workers)
        width = graph.features.width if graph.features else 0
        n = len(graph.ids)
        steps.add("edges", len(graph.edges), n, n, format=self.format, features=width)
        edges, loops = _undirected(graph.edges, n)
        left = (len(edges), n, n)
        repeated, isolated = len(graph.edges) - loops - len(edges), n - len(np.unique(edges))
        steps.add("undirected", *left, loops=loops, repeated=repeated, isolated=isolated)
        try:
            parts = dict(zip(SPLITS, split_edges(torch.from_numpy(edges), seed=settings.split_seed), strict=True))
            steps.add("links", *left, **{split: len(part) for split, part in parts.items()})
            negatives = _negatives(parts, graph.features, n, settings)
        except ValueError as error:
            raise InputError(f"{self.raw}: {error}") from None
        per_edge = settings.negatives_per_edge
        steps.add("negatives", *left, kind=settings.negatives, per_edge=per_edge)
        write(pa.table({"id": graph.ids}), folder / "users.parquet")
        write(pa.table({"id": graph.ids}), folder / "items.parquet")
        fingerprint = Fingerprint(graph.ids, graph.ids, settings.task)
        for split, part in parts.items():
            table = pa.table(list(part.T.int().numpy()), ["user", "item"])
            writer = ShardWriter(folder / split)
            writer.add(table)
            writer.close()
            fingerprint.add(split, table)
        (folder / NEGATIVES).mkdir()
        files = {f"{NEGATIVES}/{split}.parquet": negative_table(pairs.numpy()) for split, pairs in negatives.items()}
        if graph.features and width:
            files[FEATURES] = feature_table(graph.features)
        for name, table in files.items():
            write(table, folder / name)
            fingerprint.add_file(name, table)
        counts = {split: len(part) for split, part in parts.items()}
        sizes = {"users": n, "items": n, **counts, "features": width, "negatives_per_edge": per_edge}
        return {"sizes": sizes, "steps": steps.done, "fingerprint": fingerprint.hexdigest()}


def _undirected(edges: NDArray[np.int64], n: int) -> tuple[NDArray[np.int64], int]:
    """Each edge once, its smaller node first, in ascending order, and how many were loops."""
    low, high = edges.min(axis=1), edges.max(axis=1)
    loops = low == high
    keys = np.unique((low * n + high)[~loops])
    return np.stack([keys // n, keys % n], axis=1), int(loops.sum())


def _negatives(
    parts: dict[str, Tensor], features: Features | None, n: int, settings: "PrepareSettings"
) -> dict[str, Tensor]:
    """(E, M, 2) what the edges of validation and test are ranked against; none is an edge of any split."""
    known = torch.cat(list(parts.values()))
    per_edge, seed = settings.negatives_per_edge, settings.split_seed
    if settings.negatives == "random":
        held_out = torch.cat([parts[split] for split in HELD_OUT])
        drawn = random_negatives(held_out, known, n, per_edge, seed=seed)
        return dict(zip(HELD_OUT, drawn.split([len(parts[split]) for split in HELD_OUT]), strict=True))
    given = None if features is None else csr_tensor(features)
    return {split: hard_negatives(parts[split], parts["train"], known, given, n, per_edge) for split in HELD_OUT}
