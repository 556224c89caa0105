"""Lists: one user per line, followed by items."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.prepare.readers.checks import Checks, Rows, decoded


@dataclass(frozen=True)
class Lists:
    """``user item item ...``; with ``ordered`` the items are oldest first, which gives their positions."""

    ordered: bool = False
    header: ClassVar[int] = 0
    divisible: ClassVar[bool] = True

    @property
    def columns(self) -> tuple[str, ...]:
        """The roles it has, in order."""
        return ("user", "item", "position") if self.ordered else ("user", "item")

    def rows(self, lines: bytes, first: int, checks: Checks) -> Rows:
        """One row for each item of each line; a line with a user alone gives none."""
        values, ends, refused = _values(lines)
        counts = np.diff(ends, prepend=0)
        at = np.flatnonzero(counts)
        starts = (ends - counts)[at]
        users = values.take(pa.array(np.repeat(starts, counts[at] - 1)))
        keep = np.ones(len(values), bool)
        keep[starts] = False
        columns = {"user": ("user", users), "item": ("item", values.filter(pa.array(keep)))}
        if self.ordered:
            columns["position"] = ("position", pa.array(_within(counts[at] - 1)))
        return Rows(columns, refused, np.repeat(at, counts[at] - 1))


@dataclass(frozen=True)
class CountedLists:
    """Line k (from 0) holds the items of user k, after their number."""

    header: ClassVar[int] = 0
    divisible: ClassVar[bool] = False
    columns: ClassVar[tuple[str, ...]] = ("user", "item")

    def rows(self, lines: bytes, first: int, checks: Checks) -> Rows:
        """One row for each item of each line."""
        values, ends, refused = _values(lines)
        counts = np.diff(ends, prepend=0)
        at = np.flatnonzero(counts)
        starts = (ends - counts)[at]
        stated = values.take(pa.array(starts))
        right = pc.equal(stated, pa.array(counts[at] - 1).cast(pa.string())).to_numpy(zero_copy_only=False)
        for wrong in np.flatnonzero(~right).tolist():
            shown = checks.shown(stated[wrong].as_py())
            refused[int(at[wrong])] = f"the first number{shown} is not {counts[at[wrong]] - 1}, the count of items"
        keep = np.repeat(right, counts[at])
        keep[starts] = False
        lines_of = np.repeat(at, np.where(right, counts[at] - 1, 0))
        users = pa.array(lines_of + first).dictionary_encode()
        return Rows({"user": ("user", users), "item": ("item", values.filter(pa.array(keep)))}, refused, lines_of)


@dataclass(frozen=True)
class Padded:
    """Line k (from 0) holds the items of user k, oldest first, filled up on the left with 0 to ``width`` values."""

    delimiter: str
    width: int
    header: ClassVar[int] = 0
    divisible: ClassVar[bool] = False
    columns: ClassVar[tuple[str, ...]] = ("user", "item", "position")

    def rows(self, lines: bytes, first: int, checks: Checks) -> Rows:
        """One row for each item of each line."""
        texts, refused = _lines(lines)
        each = pc.split_pattern(texts, self.delimiter)
        counts = pc.list_value_length(each).to_numpy()
        values = pc.ascii_trim_whitespace(each.flatten())
        ends = np.cumsum(counts)
        items = pc.not_equal(values, "0").to_numpy(zero_copy_only=False)
        number = pc.match_substring_regex(values, r"^\d+$").to_numpy(zero_copy_only=False)
        line = np.repeat(np.arange(len(counts)), counts)
        given = np.bincount(line[items], minlength=len(counts))

        for at in np.flatnonzero(counts != self.width).tolist():
            refused.setdefault(at, f"{counts[at]} values, expected {self.width}")
        for at in np.flatnonzero(~number).tolist():
            refused.setdefault(int(line[at]), f"item{checks.shown(values[at].as_py())} is not a whole number")
        for at in np.flatnonzero(given == 0).tolist():
            refused.setdefault(at, "no item, 0 (padding) alone")
        place = np.arange(len(values)) - np.repeat(ends - given, counts)
        for at in line[items & (place < 0)].tolist():
            refused.setdefault(at, "0 (padding) after an item; it is accepted on the left only")
        items &= ~np.isin(line, list(refused))
        columns = {
            "user": ("user", pa.array(line[items] + first).dictionary_encode()),
            "item": ("item", values.filter(pa.array(items))),
            "position": ("position", pa.array(place[items])),
        }
        return Rows(columns, refused, line[items])


def _lines(lines: bytes) -> tuple[pa.Array, dict[int, str]]:
    """Each line as text (empty where it is not UTF-8), and what is wrong with lines."""
    text = lines.removesuffix(b"\n")
    try:
        return pc.split_pattern(pa.array([text], pa.large_binary()).cast(pa.large_string()), "\n").flatten(), {}
    except pa.ArrowInvalid:
        texts = [decoded(line) for line in text.split(b"\n")]
    wrong = {at: "not UTF-8 text" for at, line in enumerate(texts) if line is None}
    return pa.array([line or "" for line in texts], pa.large_string()), wrong


def _values(lines: bytes) -> tuple[pa.Array, NDArray[np.int64], dict[int, str]]:
    """The values of all lines, where each line's values end, and what is wrong with lines."""
    texts, refused = _lines(lines)
    texts = pc.ascii_trim_whitespace(texts)
    blank = pc.equal(texts, "").to_numpy(zero_copy_only=False)
    each = pc.ascii_split_whitespace(texts)
    counts = np.where(blank, 0, pc.list_value_length(each).to_numpy())
    values = each.filter(pa.array(~blank)).flatten() if blank.any() else each.flatten()
    return values, np.cumsum(counts), dict.fromkeys(np.flatnonzero(blank).tolist(), "the line is empty") | refused


def _within(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, ... within each run of the given lengths."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
