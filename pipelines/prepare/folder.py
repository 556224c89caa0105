"""Writing a folder so that it is complete or not there, and Parquet files whose rows alone fix their bytes."""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.prepare.dataset import MANIFEST
from recloss.errors import InputError

SHARD_ROWS = 4_000_000
GROUP_ROWS = 1_000_000
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What the system answers when there is no room for a file."""


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """A temporary sibling of ``out``: rename it when complete, else it is removed.

    It is locked while in use, so the one a killed run left behind is recognised and removed by the next run.

    Raises:
        InputError: the folder cannot be created, or there is no room for what is written into it.
    """
    prefix = f".{out.name}.partial-"
    folder = out.with_name(prefix + uuid4().hex[:8])
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror})") from None
    with _locked(folder):
        try:
            for left in [p for p in out.parent.iterdir() if p.name.startswith(prefix)]:
                with suppress(FileNotFoundError), _locked(left) as free:  # another run may remove it too
                    if free:
                        shutil.rmtree(left)
            yield folder
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise InputError(f"{out}: cannot be written ({os.strerror(error.errno)}); nothing was kept") from None
        finally:
            if folder.exists():
                shutil.rmtree(folder)


def publish(folder: Path, out: Path, manifest: dict[str, Any]) -> bool:
    """Complete a folder by its manifest and give it its name; False if another run was there meanwhile."""
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    try:
        folder.rename(out)
    except OSError:
        if not occupied(out):
            raise
        return False
    return True


def occupied(out: Path) -> bool:
    """Whether there is something at ``out``."""
    return out.exists() and not (out.is_dir() and not any(out.iterdir()))


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder; False if another process holds it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        yield free
    finally:
        os.close(handle)


def write(table: pa.Table, file: Path) -> None:
    """Write one Parquet file; how the table is chunked in memory does not show."""
    pq.write_table(table.combine_chunks(), file, compression="zstd", row_group_size=GROUP_ROWS)


class ShardWriter:
    """Cuts a stream of tables into ``part-00000.parquet``, ... of ``rows`` rows each."""

    def __init__(self, folder: Path, rows: int | None = None):
        folder.mkdir()
        self.folder = folder
        self.rows = rows or SHARD_ROWS
        self.written = 0
        self._waiting: list[pa.Table] = []
        self._shards = 0

    def add(self, table: pa.Table) -> None:
        """Append rows."""
        self._waiting.append(table)
        self.written += table.num_rows
        while self.written - self._shards * self.rows >= self.rows:
            whole = pa.concat_tables(self._waiting)
            self._write(whole[: self.rows])
            self._waiting = [whole[self.rows :]]

    def close(self) -> None:
        """Write the rows that are left."""
        if self.written > self._shards * self.rows:
            self._write(pa.concat_tables(self._waiting))

    def _write(self, table: pa.Table) -> None:
        write(table, self.folder / f"part-{self._shards:05}.parquet")
        self._shards += 1
