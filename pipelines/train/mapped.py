"""What training reads of a prepared dataset, as arrays on disk that all processes of a machine share.

``<RECLOSS_CACHE>/pairs`` (``~/.cache/recloss/pairs``) holds a file per data set and split, named by the data set's
fingerprint, with what `Interactions` consists of: 24 bytes per pair; for sequences another one with what `Sequences`
consists of: 8 bytes per row. Processes map them instead of reading the shards, so they neither sort nor hold copies,
and what does not fit in memory is read when it is needed. The first process that wants a file makes it. Files of more
than ``KEEP_BYTES`` together are removed again, the longest unused first.
"""

import fcntl
import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.prepare.dataset import Pairs, placed_shards, read_manifest, shards
from recloss.errors import InputError
from recloss.interactions import Interactions
from recloss.sequences import Sequences

KEEP_BYTES = 50 * 2**30
"""Bound of the folder, besides the file that was asked for last."""
_PARTIAL = ".partial"


def manifest_of(data: Path, fingerprint: str) -> dict[str, Any]:
    """The manifest of a prepared dataset.

    Raises:
        InputError: if the folder does not hold the data set of this fingerprint.
    """
    manifest = read_manifest(data)
    if manifest["fingerprint"] != fingerprint:
        found = manifest["fingerprint"][:12]
        raise InputError(f"{data}: holds the data set {found}, not {fingerprint[:12]} of the sweep")
    return manifest


def interactions(data: Path, fingerprint: str, split: str) -> Interactions:
    """A split of a prepared dataset, its tensors mapped from the cache: to write to them ends the process.

    Of sequences these are the distinct pairs.

    Raises:
        InputError: if the folder does not hold the data set of this fingerprint, its shards are damaged, or the cache
            cannot be written.
    """
    manifest = manifest_of(data, fingerprint)
    sizes, sequential = manifest["sizes"], manifest.get("task") == "sequence"
    n, n_users, n_items = (manifest["distinct"] if sequential else sizes)[split], sizes["users"], sizes["items"]

    def write(file: BinaryIO) -> None:
        pairs = shards(data, split)
        _write_interactions(file, data, split, _distinct(pairs) if sequential else pairs, n, n_users, n_items)

    lengths = [n, n, n, n_users, n_users + 1]
    whole = mapped_array(f"{fingerprint}-{split}.int64", (sum(lengths),), np.int64, write)
    keys, user, item, degrees, offsets = tensor(whole).split(lengths)
    return Interactions.from_arrays(keys, user, item, degrees, offsets, n_items)


def sequences(data: Path, fingerprint: str, split: str) -> Sequences:
    """A split of prepared sequences: each user's items in it, oldest first, mapped from the cache as `interactions`.

    Raises:
        InputError: as `interactions`, or if the data set was prepared for another task.
    """
    manifest = manifest_of(data, fingerprint)
    if manifest.get("task") != "sequence":
        raise InputError(f"{data}: holds no sequences; prepare it with task sequence")
    sizes = manifest["sizes"]
    lengths = [sizes[split], sizes["users"] + 1]

    def write(file: BinaryIO) -> None:
        _write_sequences(file, data, split, sizes)

    whole = mapped_array(f"{fingerprint}-{split}-sequences.int64", (sum(lengths),), np.int64, write)
    items, offsets = tensor(whole).split(lengths)
    return Sequences.from_arrays(items, offsets, sizes["items"])


def tensor(array: NDArray[Any]) -> Tensor:
    """The tensor of a mapped array, which must not be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


def mapped_array(
    name: str, shape: tuple[int, ...], dtype: type[np.generic], write: Callable[[BinaryIO], None]
) -> NDArray[Any]:
    """The read-only array in a file of the cache; ``write`` makes the file where it is missing or of another size.

    Processes take turns, so each file is made once; it is complete or not there.

    Raises:
        InputError: if the cache cannot be written.
    """
    folder = Path(os.environ.get("RECLOSS_CACHE") or Path.home() / ".cache" / "recloss").expanduser() / "pairs"
    file, size = folder / name, math.prod(shape) * np.dtype(dtype).itemsize
    with _turn(folder):
        if not file.exists() or file.stat().st_size != size:
            _make(file, size, write)
            _clean(folder, file)
        os.utime(file)
        return np.memmap(file, dtype, "r", shape=shape)


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which a killed process leaves free."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise InputError(
            f"{folder}: cannot be written ({error.strerror}); set RECLOSS_CACHE to another folder"
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _make(file: Path, size: int, write: Callable[[BinaryIO], None]) -> None:
    for left in file.parent.glob(f"*{_PARTIAL}"):  # of a killed process: a living one would hold the lock
        left.unlink()
    temporary = file.with_name(file.name + _PARTIAL)
    try:
        with open(temporary, "w+b") as target:
            write(target)
            target.flush()
            os.fsync(target.fileno())
        assert temporary.stat().st_size == size
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def _clean(folder: Path, keep: Path) -> None:
    """Remove what exceeds the bound; processes that have mapped a removed file keep it."""
    used = sorted((path.stat().st_mtime_ns, path.stat().st_size, path) for path in folder.iterdir() if path != keep)
    total = sum(size for _, size, _ in used)
    for _, size, path in used:
        if total > KEEP_BYTES:
            path.unlink()
            total -= size


def _distinct(pairs: Iterator[Pairs]) -> Iterator[Pairs]:
    """Shards sorted by user as shards of distinct pairs sorted by (user, item): a shard's last user waits for more."""
    waiting = np.zeros(0, np.int64)
    for user, item in pairs:
        keys = np.unique(np.concatenate([waiting, user.astype(np.int64) << 32 | item]))
        last = np.searchsorted(keys, keys[-1] >> 32 << 32) if len(keys) else 0
        yield _parts(keys[:last])
        waiting = keys[last:]
    yield _parts(waiting)


def _parts(keys: NDArray[np.int64]) -> Pairs:
    return (keys >> 32).astype(np.int32), keys.astype(np.int32)


def _write_sequences(file: BinaryIO, data: Path, split: str, sizes: dict[str, int]) -> None:
    """Items, then offsets (n_users + 1); a shard at a time is in memory."""
    counts, rows, last = np.zeros(sizes["users"], np.int64), 0, -1
    for user, item, position in placed_shards(data, split):
        keys = user.astype(np.int64) << 32 | position
        if len(keys) and not (
            0 <= user.min() <= user.max() < len(counts) and 0 <= item.min() <= item.max() < sizes["items"]
            and 0 <= position.min() <= position.max() < 2**31 and last < keys[0] and (keys[1:] > keys[:-1]).all()
        ):  # fmt: skip
            raise InputError(f"{data / split}: rows out of order or range; prepare the dataset again")
        file.write(item.astype(np.int64).data)
        counts += np.bincount(user, minlength=len(counts))
        rows, last = rows + len(keys), keys[-1] if len(keys) else last
    _check_rows(data, split, rows, sizes[split])
    file.write(np.concatenate([[0], counts.cumsum()]).astype(np.int64).data)


def _check_rows(data: Path, split: str, found: int, stated: int) -> None:
    if found != stated:
        raise InputError(f"{data / split}: {found:,} rows, the manifest says {stated:,}; prepare the dataset again")


def _write_interactions(
    file: BinaryIO, data: Path, split: str, pairs: Iterator[Pairs], n: int, n_users: int, n_items: int
) -> None:
    """Keys, users, items (n each), degrees (n_users) and offsets (n_users + 1); a shard at a time is in memory."""
    degrees, rows, last = np.zeros(n_users, np.int64), 0, -1
    for user, item in pairs:
        keys = user.astype(np.int64) * n_items + item
        if len(keys) and not (
            0 <= user.min() <= user.max() < n_users and 0 <= item.min() <= item.max() < n_items
            and last < keys[0] and (keys[1:] > keys[:-1]).all()
        ):  # fmt: skip
            raise InputError(f"{data / split}: pairs out of order or range; prepare the dataset again")
        for part, column in enumerate((keys, user, item)):
            file.seek(8 * (part * n + rows))
            file.write(column.astype(np.int64).data)
        degrees += np.bincount(user, minlength=n_users)
        rows, last = rows + len(keys), keys[-1] if len(keys) else last
    _check_rows(data, split, rows, n)
    file.seek(8 * 3 * n)
    file.write(degrees.data)
    file.write(np.concatenate([[0], degrees.cumsum()]).astype(np.int64).data)
