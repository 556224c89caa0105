"""From files of judged documents to the splits of a prepared dataset."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.prepare.dataset import SPLITS, Fingerprint
from pipelines.prepare.folder import ShardWriter, write
from pipelines.prepare.ranking.divide import divided
from pipelines.prepare.ranking.files import list_files
from pipelines.prepare.ranking.read import Judged, read_lists
from pipelines.prepare.steps import Steps
from recloss.errors import InputError

if TYPE_CHECKING:
    from pipelines.settings import PrepareSettings

WRITTEN_AT_ONCE = 2**24
"""Values of features that are copied at a time."""
SHARD_VALUES = 2**27
"""Values of features in a shard."""


class RawLists:
    """The raw files of a learning-to-rank dataset."""

    def __init__(self, raw: Path, say: Callable[[str], None]):
        self.raw, self.files = raw, list_files(raw)
        if len({file.counts is None for file in self.files}) > 1:
            raise InputError(f"{raw}: a .query file belongs to each file of the split or to none")
        self.format = "LETOR" if self.files[0].counts is None else "LibSVM with a file of counts"
        parts = ", ".join(f"{file.split} {file.file.name}" for file in self.files if file.split)
        say(f"format: {self.format}, {parts or f'{self.files[0].file.name}, to be divided'}")

    @property
    def paths(self) -> list[Path]:
        """All files that are read."""
        both = [file for source in self.files for file in (source.file, source.counts) if file is not None]
        return [file.path for file in both]

    def write(
        self, folder: Path, settings: "PrepareSettings", workers: int, say: Callable[[str], None]
    ) -> dict[str, Any]:
        """Read, divide and write; returns the manifest's sizes, steps and fingerprint.

        Raises:
            InputError: a file cannot be read, or its queries cannot be divided.
        """
        steps = Steps(self.raw, say, ("judged documents", "queries", "different documents"))
        lists = _Lists([read_lists(source, workers) for source in self.files])
        steps.note("lists", lists.degrees, format=self.format, features=lists.width)
        splits = divided(lists.files, settings)[lists.order]
        counts = {f"{name}_queries": int((splits == code).sum()) for code, name in enumerate(SPLITS)}
        rows = {name: int(lists.sizes[splits == code].sum()) for code, name in enumerate(SPLITS)}
        given = {file.split for file in self.files}
        steps.note("queries", lists.degrees, **rows, **counts, given=[name for name in SPLITS if name in given])
        write(pa.table({"id": lists.queries}), folder / "users.parquet")
        write(pa.table({"id": lists.documents}), folder / "items.parquet")
        fingerprint = Fingerprint(lists.queries, lists.documents, settings.task)
        for code, name in enumerate(SPLITS):
            writer = ShardWriter(folder / name, max(SHARD_VALUES // lists.width, 1))
            for table in lists.tables(splits == code):
                writer.add(table)
                fingerprint.add(name, table)
            writer.close()
        sizes = {"users": len(lists.queries), "items": len(lists.documents), **rows, "features": lists.width}
        return {"sizes": sizes, "steps": steps.done, "fingerprint": fingerprint.hexdigest()}


class _Lists:
    """All files together, queries in the order of their index, documents of a query in the order of theirs."""

    def __init__(self, files: list[Judged]):
        self.files = files
        ids, self.order = _queries(files)
        sizes = np.concatenate([file.sizes for file in files])
        starts = np.cumsum(sizes) - sizes
        self.queries, self.sizes = ids, sizes[self.order]
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(self.sizes) - self.sizes, self.sizes)
        rows = np.repeat(starts[self.order], self.sizes) + within  # of the files, one after the other
        self.user = np.repeat(np.arange(len(ids), dtype=np.int32), self.sizes)
        names = _named(files, rows, ids.take(pa.array(self.user)), within)
        coded = names.dictionary_encode()
        self.item, self.documents = coded.indices.to_numpy(), coded.dictionary
        keys = self.user.astype(np.int64) << 32 | self.item
        in_order = np.argsort(keys, kind="stable")
        if len(repeated := np.flatnonzero(np.diff(keys[in_order]) == 0)):
            at = in_order[repeated[0]]
            raise InputError(
                f"{_file_of(files, rows[at])}: document {names[at].as_py()!r} comes twice in query "
                f"{ids[self.user[at]].as_py()}; each is judged once for a query"
            )
        self.item, self.rows = self.item[in_order], rows[in_order]
        self.grades = np.concatenate([file.grades for file in files])
        self.width = max(1, *(piece.shape[1] for file in files for piece in file.features))
        self.features = np.zeros((len(keys), self.width), np.float32)
        at = 0
        for file in files:
            while file.features:  # a piece is freed when it is copied
                piece = file.features.pop(0)
                self.features[at : at + len(piece), : piece.shape[1]] = piece
                at += len(piece)

    @property
    def degrees(self) -> list[NDArray[np.int64]]:
        """Documents per query, and queries per document."""
        return [self.sizes, np.bincount(self.item, minlength=len(self.documents))]

    def tables(self, chosen: NDArray[np.bool_]) -> Iterator[pa.Table]:
        """The rows of the queries that are marked."""
        places = np.flatnonzero(chosen[self.user])
        step = max(WRITTEN_AT_ONCE // self.width, 1)
        for start in range(0, len(places), step):
            at = places[start : start + step]
            values = pa.array(self.features[self.rows[at]].ravel())
            yield pa.table(
                {
                    "user": self.user[at],
                    "item": self.item[at],
                    "grade": self.grades[self.rows[at]],
                    "features": pa.FixedSizeListArray.from_arrays(values, self.width),
                }
            )


def _queries(files: list[Judged]) -> tuple[pa.Array, NDArray[np.int64]]:
    """Ids of all queries in the order of their index, and the place of each in the files.

    Ids are in the order of numbers; counted queries, called ``1`` or ``train/1``, in that of the files.
    """
    if files[0].queries is None:
        named = [
            f"{file.split}/{place}" if file.split else str(place)
            for file in files
            for place in range(1, len(file.sizes) + 1)
        ]
        return pa.array(named), np.arange(len(named))
    ids = np.concatenate([file.queries for file in files if file.queries is not None])
    order = np.argsort(ids, kind="stable")
    if len(twice := np.flatnonzero(np.diff(ids[order]) == 0)):
        ends = np.cumsum([len(file.sizes) for file in files])
        names = [files[int(np.searchsorted(ends, order[at], side="right"))].name for at in (twice[0], twice[0] + 1)]
        raise InputError(f"{names[1]}: query {ids[order[twice[0]]]} is in {names[0]} too; a query belongs to one split")
    return pa.array(ids[order]).cast(pa.string()), order


def _named(files: list[Judged], rows: NDArray[np.int64], queries: pa.Array, within: NDArray[np.int64]) -> pa.Array:
    """The id of each document: its own, or ``<query>/<place in the query, from 1>``."""
    places = pc.binary_join_element_wise(queries, pa.array(within + 1).cast(pa.string()), "/")
    if all(file.documents is None for file in files):
        return places
    own = [pa.nulls(len(file.grades), pa.string()) if file.documents is None else file.documents for file in files]
    return pc.coalesce(pa.concat_arrays(own).take(pa.array(rows)), places)


def _file_of(files: list[Judged], row: int) -> str:
    ends = np.cumsum([len(file.grades) for file in files])
    return files[int(np.searchsorted(ends, row, side="right"))].name
