"""The first lines of a file, by which its format is told."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from pipelines.prepare.readers.streams import BOM, LONGEST_LINE, File
from recloss.errors import InputError, choices

HEAD_BYTES = 2**18
MOST = 0.9
"""Part of the lines that must agree on a property: a few may be malformed, which the reader reports."""

USER = re.compile(r"user|uid|customer|reviewer|member|visitor|session", re.IGNORECASE)
ITEM = re.compile(r"item|iid|movie|product|asin|artist|track|book|business|article|sku", re.IGNORECASE)
TIME = re.compile(r"time|date", re.IGNORECASE)


@dataclass(frozen=True)
class Head:
    """Whole lines from the beginning of a file, without byte order mark; the first one is sure to be UTF-8."""

    file: File
    text: bytes
    hidden: bool

    @property
    def name(self) -> str:
        """The file's name in messages."""
        return self.file.name

    @cached_property
    def lines(self) -> list[str]:
        """The lines as text."""
        return [line.removesuffix("\r") for line in self.text.decode(errors="replace").rstrip("\r\n").split("\n")]

    @property
    def first(self) -> str:
        """The first line."""
        return self.lines[0]

    def positions(self, names: Sequence[str], wanted: dict[str, str]) -> dict[str, tuple[int, str]]:
        """Role -> (position, name) of the wanted columns among those of a header line.

        Raises:
            InputError: a column is missing or occurs twice.
        """
        for name in wanted.values():
            if name not in names:
                missing = f"no column {name!r} in the first line" if self.hidden else choices("column", name, names)
                raise InputError(f"{self.name}: {missing}")
            if names.count(name) > 1:
                raise InputError(f"{self.name}: {names.count(name)} columns are named {name!r}")
        return {role: (names.index(name), name) for role, name in wanted.items()}


def read_head(file: File, hidden: bool) -> Head:
    """The first lines of a file.

    Raises:
        InputError: the file is empty or does not begin with UTF-8 text.
    """
    text = b""
    for piece in file.pieces(HEAD_BYTES):
        text += piece
        if len(text) >= HEAD_BYTES and (b"\n" in text or len(text) > LONGEST_LINE):
            text = text[: text.rfind(b"\n") + 1]
            break
    if not text:
        raise InputError(f"{file.name}: the file is empty")
    text = text.removeprefix(BOM)
    try:
        text.partition(b"\n")[0].decode()
    except UnicodeDecodeError:
        raise InputError(f"{file.name}, line 1: not UTF-8 text; convert it, or give a file of another kind") from None
    return Head(file, text, hidden)


@dataclass(frozen=True)
class Table:
    """The lines of a head as values; ``rows`` are those of the usual ``width``, without a header line."""

    delimiter: str
    width: int
    regular: bool
    """Whether nearly all lines have this width."""
    header: list[str] | None
    rows: list[list[str]]

    def share(self, column: int, fits: Callable[[str], object]) -> bool:
        """Whether nearly all values of a column fit."""
        return bool(self.rows) and sum(bool(fits(row[column])) for row in self.rows) >= MOST * len(self.rows)

    def named(self, column: int, pattern: re.Pattern[str]) -> bool:
        """Whether the header's name of the column matches."""
        return self.header is not None and bool(pattern.search(self.header[column]))


def table(head: Head) -> Table | None:
    """The head as separated values, if the first line has a separator: tab, comma, semicolon or space."""
    delimiter = next((d for d in "\t,; " if d in head.first), None)
    if delimiter is None:
        return None
    split = [[value.strip() for value in line.split(delimiter)] for line in head.lines]
    width, lines = Counter(len(row) for row in split).most_common(1)[0]
    rows = [row for row in split if len(row) == width]
    header = split[0] if len(split[0]) == width and _is_header(rows) else None
    return Table(delimiter, width, lines >= MOST * len(split), header, rows[1:] if header else rows)


def whole(value: str) -> bool:
    """Whether it is a whole number."""
    return value.isascii() and value.isdecimal()


def number(value: str) -> float | None:
    """Its value, if it is a number."""
    try:
        return float(value)
    except ValueError:
        return None


def _is_header(rows: list[list[str]]) -> bool:
    """Whether the first line names columns: words above numbers, or words for users and items."""
    first, others = rows[0], rows[1:]
    if any(number(value) is not None for value in first):
        return False
    numeric = [
        column for column in range(len(first)) if others and all(number(row[column]) is not None for row in others)
    ]
    words = any(USER.search(value) for value in first) and any(ITEM.search(value) for value in first)
    return bool(numeric) or words
