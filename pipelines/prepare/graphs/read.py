"""The edges of a graph and the features of its nodes as arrays."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.prepare.ids import Index, integers
from pipelines.prepare.readers.folders import listing, matching
from pipelines.prepare.readers.libsvm import NODES, read
from pipelines.prepare.readers.opening import open_file
from pipelines.prepare.readers.source import TextSource
from pipelines.prepare.readers.streams import File
from recloss.errors import InputError

if TYPE_CHECKING:
    from pipelines.settings import PrepareSettings

EDGES = ("edges.txt", "edges.tsv", "edges.csv")
FEATURES = ("nodes.svm",)
PICKLED = re.compile(r"ind\..+")
"""The files of Planetoid: pickles, which run what is written in them, so they are never opened."""


@dataclass(frozen=True)
class GraphFiles:
    """A file of edges, one with a line per node where it is there, and files that are not read."""

    edges: File
    nodes: File | None
    ignored: list[str]


@dataclass(frozen=True, eq=False)
class Features:
    """The features of n nodes as CSR arrays."""

    offsets: NDArray[np.int64]
    columns: NDArray[np.int32]
    values: NDArray[np.float32]
    width: int


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes, and a row per line of the file of edges."""

    ids: pa.Array
    edges: NDArray[np.int64]
    features: Features | None


def graph_files(raw: Path) -> GraphFiles:
    """The files of ``raw``: a folder or archive with ``edges.txt``, or a file of edges.

    Raises:
        InputError: there is no such file.
    """
    found, archived = listing(raw)
    if raw.is_dir() or archived:
        edges = matching(found, EDGES)
        if len(edges) != 1:
            several = f"several files of edges ({', '.join(file.name for file in edges)})" if edges else "no edges.txt"
            raise InputError(f"{raw}: {several}; give the file with a line 'node node' per edge")
        beside = found
    else:
        edges = found
        beside = [] if edges[0].member else listing(raw.absolute().parent)[0]
    nodes = matching(beside, FEATURES)
    ignored = [file.name for file in beside if PICKLED.fullmatch(file.inner)]
    return GraphFiles(edges[0], nodes[0] if nodes else None, ignored)


def read_graph(files: GraphFiles, settings: "PrepareSettings", workers: int) -> Graph:
    """Read nodes and edges; without a file of nodes they are those that the edges name.

    Raises:
        InputError: a line is refused, or an edge names a node that has no line.
    """
    source = open_file(files.edges, settings.model_copy(update={"format": "pairs"}))
    assert source is not None, "the format is stated"
    assert isinstance(source.source, TextSource), "pairs are text"
    if source.source.columns != ("user", "item"):
        more = len(source.source.columns)
        raise InputError(
            f"{files.edges.name}: {more} columns, expected two, the nodes of an edge; weights are not used"
        )
    blocks = list(source.source.blocks("error"))
    ends = [pa.concat_arrays([_texts(block[side]) for block in blocks]) for side in ("user", "item")]
    if files.nodes is None:
        index = Index.of(ends)
        return Graph(index.ids, np.stack(index.places, axis=1).astype(np.int64), None)
    features = _features(files.nodes, workers)
    n = len(features.offsets) - 1
    numbers = [_numbers(end, n, files, source.source.layout.header) for end in ends]
    return Graph(pa.array(np.arange(n)).cast(pa.string()), np.stack(numbers, axis=1), features)


def _texts(column: pa.ChunkedArray) -> pa.Array:
    return column.cast(pa.string()).combine_chunks()


def _numbers(ids: pa.Array, n: int, files: GraphFiles, header: int) -> NDArray[np.int64]:
    """The nodes as numbers of lines."""
    numbers = integers(ids)
    if numbers is None:
        texts = ids.to_pylist()
        wrong = next((at for at, text in enumerate(texts) if not re.fullmatch(r"0|[1-9]\d*", text)), 0)
    else:
        outside = np.flatnonzero((numbers < 0) | (numbers >= n))
        if not len(outside):
            return numbers
        wrong = int(outside[0])
    assert files.nodes is not None, "without it any id is accepted"
    raise InputError(
        f"{files.edges.name}, line {wrong + header + 1}: node {ids[wrong].as_py()!r} has no line in "
        f"{files.nodes.name}, whose nodes are numbered 0 to {n - 1:,}"
    )


def _features(file: File, workers: int) -> Features:
    pieces = list(read(file, NODES, workers))
    lines = np.concatenate([piece.lines for piece in pieces])
    if len(empty := np.flatnonzero(lines != np.arange(1, len(lines) + 1))):
        raise InputError(f"{file.name}, line {empty[0] + 1}: is empty; line k is node k, with at least its class")
    counts, columns, values = (
        np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("counts", "features", "values")
    )
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return Features(offsets, columns, values, int(columns.max(initial=-1)) + 1)
