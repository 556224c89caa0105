"""What every reader offers: a source, which gives blocks of checked interactions and can be divided."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

import pyarrow as pa

from pipelines.prepare.readers.checks import Checks, Rows, checked, no_rows
from pipelines.prepare.readers.streams import File, cuts, lines_before, whole_lines

OnBadRow = Literal["error", "skip"]


class Layout(Protocol):
    """How the lines of a text are read."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The roles it gives, in order."""

    @property
    def header(self) -> int:
        """Number of lines before the first interaction."""

    @property
    def divisible(self) -> bool:
        """Whether a line means the same wherever the reading starts."""

    def rows(self, lines: bytes, first: int, checks: Checks) -> Rows:
        """The raw columns of whole lines; ``first`` lines (with the header) came before them."""


@dataclass(frozen=True)
class TextSource:
    """A file of lines, or the lines between two offsets of it."""

    file: File
    format: str
    layout: Layout
    checks: Checks
    split: str | None = None
    start: int = 0
    end: int | None = None

    @property
    def name(self) -> str:
        """The file's name in messages."""
        return self.file.name

    @property
    def path(self) -> Path:
        """The file on disk."""
        return self.file.path

    @property
    def columns(self) -> tuple[str, ...]:
        """The roles it has, in order."""
        return self.layout.columns

    def parts(self, size: int) -> list["Source"]:
        """Pieces of about ``size`` bytes that can be read independently, in order; itself where it cannot be cut."""
        if self.file.packing != "plain" or not self.layout.divisible:
            return [self]
        ranges = cuts(self.file, self.layout.header, size)
        return [self] if len(ranges) == 1 else [replace(self, start=start, end=end) for start, end in ranges]

    def blocks(self, on_bad_row: OnBadRow) -> Iterator[pa.Table]:
        """The interactions in the order of the file.

        Raises:
            InputError: naming the file, the line and the value that cannot be accepted.
        """
        empty = True
        for before, lines in whole_lines(self.file, self.layout.header, self.start, self.end):
            rows = self.layout.rows(lines, before, self.checks)
            yield checked(rows, self.checks, _Place(self, before), on_bad_row == "skip")
            empty = False
        if empty:
            raise no_rows(self.name, bool(self.layout.header))


@dataclass(frozen=True)
class _Place:
    """Names a line; the lines before the source's start are counted only when one is named."""

    source: TextSource
    before: int

    def __call__(self, line: int) -> str:
        return f"{self.source.name}, line {self._first + line + 1}"

    @cached_property
    def _first(self) -> int:
        return lines_before(self.source.file, self.source.start) + self.before


class Source(Protocol):
    """One file of a log, or a piece of it; can be pickled.

    ``name`` is its name in messages, ``path`` the file on disk (of a zip member: the archive), ``format`` what
    was recognised, ``columns`` its roles in order, ``split`` the part of a given split it holds (train, valid,
    test) or None, ``checks`` what its values are held against.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def path(self) -> Path: ...  # noqa: D102
    @property
    def format(self) -> str: ...  # noqa: D102
    @property
    def columns(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def split(self) -> str | None: ...  # noqa: D102
    @property
    def checks(self) -> Checks: ...  # noqa: D102

    def parts(self, size: int) -> list["Source"]:
        """Pieces of about ``size`` bytes that can be read independently, in order; itself where it cannot be cut."""

    def blocks(self, on_bad_row: OnBadRow) -> Iterator[pa.Table]:
        """The interactions in the order of the file, in bounded memory.

        ``user``, ``item``: dictionaries (int32) of strings without surrounding blanks; ``rating``: finite float64;
        ``timestamp``: int64, in seconds, with ``checks.exact`` in microseconds; ``position``: int64, place in the
        user's sequence. With "skip" a column ``refused`` says what is wrong with a row (all else in it is null), or is
        null.

        Raises:
            InputError: with "error", naming file, line, column and value of the first bad row; always, if the file
                itself cannot be read.
        """
