"""Parquet files with named columns."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.prepare.readers.checks import Checks, Rows, checked, no_rows
from pipelines.prepare.readers.source import OnBadRow, Source
from recloss.errors import InputError, choices

BLOCK_ROWS = 2**20
FITTING = {
    "user": "strings, integers",
    "item": "strings, integers",
    "rating": "numbers",
    "timestamp": "numbers, timestamps, strings",
}


@dataclass(frozen=True)
class ParquetSource:
    """A Parquet file, or some row groups of it; ``names``: role -> name of its column."""

    path: Path
    names: dict[str, str]
    checks: Checks
    split: str | None = None
    groups: tuple[int, ...] | None = None
    format: str = "parquet"

    @property
    def name(self) -> str:
        """The file's name in messages."""
        return self.path.name

    @property
    def columns(self) -> tuple[str, ...]:
        """The roles it has, in order."""
        return tuple(self.names)

    def parts(self, size: int) -> list[Source]:
        """Runs of row groups of about ``size`` bytes, in order."""
        with opened(self.path) as file:
            sizes = [file.metadata.row_group(at).total_byte_size for at in range(file.num_row_groups)]
        runs: list[list[int]] = []
        left = 0
        for group, bytes_ in enumerate(sizes):
            if not runs or bytes_ > left:
                runs.append([])
                left = size
            runs[-1].append(group)
            left -= bytes_
        return [self] if len(runs) < 2 else [replace(self, groups=tuple(run)) for run in runs]

    def blocks(self, on_bad_row: OnBadRow) -> Iterator[pa.Table]:
        """The interactions in the order of the file.

        Raises:
            InputError: naming the file, the row (from 1) and the value that cannot be accepted.
        """
        with opened(self.path, dictionaries=[self.names[role] for role in ("user", "item")]) as file:
            groups = range(file.num_row_groups) if self.groups is None else self.groups
            first = 1 + sum(file.metadata.row_group(at).num_rows for at in range(groups[0] if groups else 0))
            if not file.metadata.num_rows:
                raise no_rows(self.name, header=False)
            batches = file.iter_batches(BLOCK_ROWS, row_groups=list(groups), columns=list(self.names.values()))
            while True:
                try:
                    batch = next(batches, None)
                except (pa.ArrowException, OSError) as error:
                    raise InputError(f"{self.name}: damaged Parquet file ({_one_line(error)})") from None
                if batch is None:
                    return
                rows = Rows({role: (name, batch[name]) for role, name in self.names.items()})
                yield checked(rows, self.checks, self._place(first), on_bad_row == "skip")
                first += batch.num_rows

    def first_times(self) -> list[Any]:
        """Timestamps of the first rows; none if the column's type says what they are."""
        with opened(self.path) as file:
            name = self.names["timestamp"]
            if pa.types.is_timestamp(file.schema_arrow.field(name).type):
                return []
            batch = next(file.iter_batches(1000, columns=[name]), None)
            return [] if batch is None else batch[name].to_pylist()

    def _place(self, first: int) -> Callable[[int], str]:
        return lambda row: f"{self.name}, row {first + row}"


@contextmanager
def opened(path: Path, dictionaries: Sequence[str] = ()) -> Iterator[pq.ParquetFile]:
    """The open file; texts in the columns ``dictionaries`` are read as such.

    Raises:
        InputError: it is damaged or cut off.
    """
    try:
        file = pq.ParquetFile(path, read_dictionary=list(dictionaries))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path.name}: not a complete Parquet file ({_one_line(error)})") from None
    with file:
        yield file


def parquet(path: Path, named: dict[str, str], checks: Checks) -> ParquetSource:
    """The source for a Parquet file; ``named``: role -> column.

    Raises:
        InputError: a column is missing or has another type.
    """
    with opened(path) as file:
        schema = file.schema_arrow
    for role, name in named.items():
        if name not in schema.names:
            raise InputError(f"{path.name}: {choices('column', name, schema.names)}")
        kind = schema.field(name).type
        if not _fits(role, kind):
            raise InputError(f"{path.name}: column {name!r} has the type {kind}; accepted for {role}: {FITTING[role]}")
    return ParquetSource(path, named, checks)


def _fits(role: str, kind: pa.DataType) -> bool:
    if isinstance(kind, pa.DictionaryType):
        kind = kind.value_type
    if pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return True
    if role == "timestamp" and pa.types.is_timestamp(kind):
        return True
    return role in ("rating", "timestamp") and (pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
