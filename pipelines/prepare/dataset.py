"""A prepared dataset on disk: its layout, its fingerprint, and reading it back."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recloss.errors import InputError

SCHEMA_VERSION = 1
SPLITS = ("train", "valid", "test")
POOL = "pool"
SIDES = ("users", "items")
MANIFEST = "manifest.json"
ROWS = {"pairs": "interactions", "sequence": "interactions", "rank": "documents", "link": "edges"}
"""What the data sets of each task have a row for."""

HASHED = {"position": "<i8", "grade": "<f4", "features": "<f4"}
"""Columns of the splits that are part of the fingerprint where they are there, and as what."""

Pairs = tuple[NDArray[np.int32], NDArray[np.int32]]
"""(user, item) of every interaction, sorted by user, then item, of sequences by user, then position."""


class Fingerprint:
    """Content of a dataset as 64 hex digits: its ids and the pairs of its splits, however they are sharded.

    sha256("<task>/1" | sha256 of the user ids | of the item ids | of train | valid | test), where ids are
    hashed as their number, their byte lengths (both little-endian int64) and their UTF-8 bytes, and pairs,
    in order, as little-endian int32 user, item, user, item, ... A dataset that has more adds to what is hashed:
    "position/1" | sha256 of the positions in train | valid | test, as little-endian int64, -1 where there is none;
    likewise "grade/1" and "features/1" of the grades and the features of documents, as little-endian float32; then
    "pool/1" | sha256 of the pairs in the pool of false negatives; then for each further file <name> "<name>/1" | sha256
    of its columns, one after the other.
    """

    def __init__(self, users: pa.Array, items: pa.Array, task: str = "pairs"):
        self._task = task
        self._ids = b"".join(_hash_ids(ids) for ids in (users, items))
        self._pairs = {part: sha256() for part in (*SPLITS, POOL)}
        self._columns = {(name, split): sha256() for name in HASHED for split in SPLITS}
        self._files: dict[str, bytes] = {}
        self._has: set[str] = set()

    def add(self, part: str, rows: pa.Table) -> None:
        """The next interactions of a split or the pool, in order."""
        pairs = np.stack([rows[side].to_numpy() for side in ("user", "item")], axis=1)
        self._pairs[part].update(pairs.astype("<i4").tobytes())
        self._has.add(part)
        for name, kind in HASHED.items():
            if name in rows.column_names and part in SPLITS:
                self._columns[name, part].update(_values(rows[name]).astype(kind).tobytes())
                self._has.add(name)

    def add_file(self, name: str, rows: pa.Table) -> None:
        """A further file, as a whole; its columns are int32 or float32."""
        columns = (column.to_numpy() for column in rows.columns)
        self._files[name] = sha256(b"".join(c.astype(c.dtype.newbyteorder("<")).tobytes() for c in columns)).digest()

    def hexdigest(self) -> str:
        """The fingerprint of all that was added."""
        content = f"{self._task}/1".encode() + self._ids + b"".join(self._pairs[split].digest() for split in SPLITS)
        for name in HASHED:
            if name in self._has:
                content += f"{name}/1".encode() + b"".join(self._columns[name, split].digest() for split in SPLITS)
        if POOL in self._has:
            content += b"pool/1" + self._pairs[POOL].digest()
        for name, digest in sorted(self._files.items()):
            content += f"{name}/1".encode() + digest
        return sha256(content).hexdigest()


def _values(column: pa.ChunkedArray) -> NDArray[Any]:
    """The values of a column, lists one after the other."""
    whole = column.combine_chunks()
    if pa.types.is_fixed_size_list(whole.type):
        return whole.flatten().to_numpy()
    return (whole.fill_null(-1) if pa.types.is_integer(whole.type) else whole).to_numpy()


def _hash_ids(ids: pa.Array) -> bytes:
    encoded = [text.encode() for text in ids.to_pylist()]
    numbers = np.array([len(encoded), *map(len, encoded)], "<i8")
    return sha256(numbers.tobytes() + b"".join(encoded)).digest()


@dataclass(frozen=True, eq=False)
class Prepared:
    """A prepared dataset on disk. Its splits are read when they are asked for: read-only int32 of shape (rows,)."""

    path: Path
    manifest: dict[str, Any]

    @cached_property
    def train(self) -> Pairs:
        """Training pairs."""
        return _pairs(self.path / "train")

    @cached_property
    def valid(self) -> Pairs:
        """Validation pairs."""
        return _pairs(self.path / "valid")

    @cached_property
    def test(self) -> Pairs:
        """Test pairs."""
        return _pairs(self.path / "test")

    @cached_property
    def pool(self) -> Pairs | None:
        """False negatives, where it was prepared with such noise."""
        return _pairs(self.path / POOL) if POOL in self.manifest["sizes"] else None

    @property
    def n_users(self) -> int:
        """Number of users."""
        return self.manifest["sizes"]["users"]

    @property
    def n_items(self) -> int:
        """Number of items."""
        return self.manifest["sizes"]["items"]

    @property
    def fingerprint(self) -> str:
        """Content fingerprint, as the manifest states it."""
        return self.manifest["fingerprint"]


def load(path: Path) -> Prepared:
    """Open a prepared dataset: every shard is checked, one at a time in memory.

    Raises:
        InputError: the folder or its manifest is missing or of another version, a shard is missing or damaged,
            the row counts differ from the manifest, or an index is out of range.
    """
    manifest = read_manifest(path)
    sizes = manifest["sizes"]
    for side in SIDES:
        rows = _read(path / f"{side}.parquet", "id").num_rows
        if rows != sizes[side]:
            raise InputError(f"{path / side}.parquet: {rows:,} ids, the manifest says {sizes[side]:,}")
    for part in parts(sizes):
        _check(path, part, sizes)
    return Prepared(path, manifest)


def parts(sizes: dict[str, int]) -> tuple[str, ...]:
    """The folders of shards that a dataset has."""
    return (*SPLITS, POOL) if POOL in sizes else SPLITS


def shard_files(folder: Path) -> list[Path]:
    """The shards of a split, in order."""
    return sorted(folder.glob("part-*.parquet"))


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a prepared dataset.

    Raises:
        InputError: the folder or its manifest is missing or of another version.
    """
    file = path / MANIFEST
    if not path.exists():
        raise InputError(f"{path}: no such folder; expected a prepared dataset (`recloss prepare` writes one)")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        version = manifest["schema_version"]
        complete = version != SCHEMA_VERSION or (
            all(isinstance(manifest["sizes"][name], int) for name in (*SIDES, *SPLITS, *_more_sizes(manifest)))
            and isinstance(manifest["fingerprint"], str)
            and manifest.get("task", "pairs") in ROWS
        )
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: not a prepared dataset, it has no {MANIFEST}") from None
    except (ValueError, TypeError, KeyError):
        complete = False
    if not complete:
        raise InputError(f"{file}: not the manifest of a prepared dataset")
    if version != SCHEMA_VERSION:
        raise InputError(f"{file}: schema version {version!r}, this recloss reads {SCHEMA_VERSION}; prepare it again")
    return manifest


def _more_sizes(manifest: dict[str, Any]) -> tuple[str, ...]:
    """Sizes that only the datasets of some tasks have."""
    return {"rank": ("features",), "link": ("features", "negatives_per_edge")}.get(manifest.get("task", "pairs"), ())


def _check(path: Path, split: str, sizes: dict[str, int]) -> None:
    rows = 0
    for users, items in shards(path, split):
        rows += len(users)
        for side, indices, size in (("user", users, sizes["users"]), ("item", items, sizes["items"])):
            if len(indices) and not (indices.min() >= 0 and indices.max() < size):
                raise InputError(f"{path / split}: {side} index out of range, the manifest has {size:,} {side}s")
    if rows != sizes[split]:
        count = len(shard_files(path / split))
        raise InputError(f"{path / split}: {rows:,} rows in {count} shards, the manifest says {sizes[split]:,}")


def _pairs(folder: Path) -> Pairs:
    tables = [_read(file, "user", "item") for file in shard_files(folder)]
    users, items = (_array([table[side] for table in tables]) for side in ("user", "item"))
    return users, items


def shards(path: Path, split: str) -> Iterator[Pairs]:
    """The pairs of a split's shards, in order, one shard in memory at a time.

    Raises:
        InputError: a shard is damaged.
    """
    for file in shard_files(path / split):
        table = _read(file, "user", "item")
        yield _array([table["user"]]), _array([table["item"]])


def placed_shards(path: Path, split: str) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]]:
    """(user, item, position) of a split's shards of sequences, in order, one shard in memory at a time.

    Raises:
        InputError: a shard is damaged.
    """
    for file in shard_files(path / split):
        table = _read(file, "user", "item", "position")
        users, items, positions = (_array([column]) for column in table.columns)
        yield users, items, positions


def _array(columns: list[pa.ChunkedArray]) -> NDArray[Any]:
    chunks = [chunk.to_numpy() for column in columns for chunk in column.chunks]
    array = chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
    array.flags.writeable = False
    return array


def _read(file: Path, *columns: str) -> pa.Table:
    try:
        table = pq.read_table(file, columns=list(columns), memory_map=True, partitioning=None)
    except FileNotFoundError:
        raise InputError(f"{file}: missing; prepare the dataset again") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{file}: not a complete Parquet file ({' '.join(str(error).split())})") from None
    kinds = {"id": pa.string(), "position": pa.int64()}
    expected = pa.schema([(name, kinds.get(name, pa.int32())) for name in columns])
    if table.schema.remove_metadata() != expected or any(column.null_count for column in table.columns):
        raise InputError(f"{file}: expected the columns {', '.join(f'{f.name} ({f.type})' for f in expected)}")
    return table
