"""Files of judged documents as arrays: which query each belongs to, its grade and its features."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.prepare.ranking.files import ListFile
from pipelines.prepare.readers.libsvm import LETOR, Rows, read
from pipelines.prepare.readers.streams import File, whole_lines
from recloss.errors import InputError, plain

MOST_FEATURES = 100_000
"""Features are kept for every document, whether a line names them or not."""


@dataclass(frozen=True, eq=False)
class Judged:
    """The n documents of one file, those of a query after the other's, in the order of the file."""

    name: str
    split: str | None
    queries: NDArray[np.int64] | None
    """Id of each query; None where the file has none, and the queries are counted."""
    sizes: NDArray[np.int64]
    """Documents of each query."""
    grades: NDArray[np.float32]
    features: list[NDArray[np.float32]]
    """In pieces of (rows, features up to the largest that occurs in the piece)."""
    documents: pa.Array | None
    """The id of each document, null where the file has none; None where it has none at all."""


def read_lists(source: ListFile, workers: int) -> Judged:
    """Read one file.

    Raises:
        InputError: a line is refused, a query comes again after another one, or the numbers of documents per query
            are missing or do not add up.
    """
    name = source.file.name
    lines, grades, queries, documents = [], [], [], []
    features: list[NDArray[np.float32]] = []
    for rows in read(source.file, LETOR, workers):
        if rows.queries is not None and source.counts:
            raise InputError(f"{name}: its lines have a qid, and {source.counts.name} beside it counts them; remove it")
        if rows.queries is None and not source.counts:
            raise InputError(
                f"{name}, line {rows.lines[0]}: no qid; expected 'grade qid:Q 1:value 2:value ...' on every line, or "
                f"beside it a file {source.file.inner}.query with the number of documents of each query"
            )
        features.append(rows.dense(LETOR.first, _width(rows, name)))
        lines.append(rows.lines)
        grades.append(rows.labels)
        if rows.queries is not None:
            queries.append(rows.queries)
        documents.append(pa.nulls(len(rows.lines), pa.string()) if rows.documents is None else rows.documents)
    whole = pa.concat_arrays(documents)
    ids, sizes = None, np.zeros(0, np.int64)
    if source.counts:
        sizes = _counted(source.counts, source.file, sum(map(len, lines)))
    else:
        ids, sizes = _blocks(np.concatenate(queries), np.concatenate(lines), name)
    return Judged(
        name=name,
        split=source.split,
        queries=ids,
        sizes=sizes,
        grades=np.concatenate(grades),
        features=features,
        documents=None if whole.null_count == len(whole) else whole,
    )


def _width(rows: Rows, name: str) -> int:
    width = int(rows.features.max(initial=0))
    if width > MOST_FEATURES:
        at = np.searchsorted(np.cumsum(rows.counts), np.argmax(rows.features), side="right")
        raise InputError(
            f"{name}, line {rows.lines[at]}: feature {width:,}; every document keeps every feature, "
            f"so they are accepted up to {MOST_FEATURES:,}"
        )
    return width


def _blocks(query: NDArray[np.int64], lines: NDArray[np.int64], name: str) -> tuple[NDArray[np.int64], ...]:
    """The id and the number of documents of each query, whose lines must follow each other."""
    starts = np.flatnonzero(np.concatenate([[True], query[1:] != query[:-1]]))
    ids = query[starts]
    _, first = np.unique(ids, return_index=True)
    if len(first) < len(ids):
        again = starts[np.delete(np.arange(len(ids)), first)[0]]
        raise InputError(
            f"{name}, line {lines[again]}: query {query[again]} comes again after another one; "
            "the documents of a query must be on neighbouring lines"
        )
    return ids, np.diff(starts, append=len(query))


def _counted(counts: File, lists: File, n: int) -> NDArray[np.int64]:
    """The numbers in a file of counts."""
    text = b"".join(piece for _, piece in whole_lines(counts, 0)).replace(b"\r", b"")
    found = text.splitlines()
    for line, number in enumerate(found, 1):
        if not (number.strip().isdigit() and int(number)):
            shown = plain(number[:60].decode(errors="replace"))
            raise InputError(f"{counts.name}, line {line}: {shown!r} is not a number of documents from 1")
    sizes = np.array([int(number) for number in found], np.int64)
    if sizes.sum() != n:
        raise InputError(
            f"{counts.name}: its {len(sizes):,} queries have {sizes.sum():,} documents together, {lists.name} has {n:,}"
        )
    return sizes
