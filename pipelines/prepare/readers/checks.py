"""From raw columns to a block: types, ranges, and what is said about a row that cannot be accepted."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.prepare.ids import dictionary
from pipelines.prepare.readers import times
from pipelines.prepare.readers.listed import Numbering
from recloss.errors import InputError

DICTIONARY = pa.dictionary(pa.int32(), pa.string())
TYPES = {
    "user": DICTIONARY,
    "item": DICTIONARY,
    "rating": pa.float64(),
    "timestamp": pa.int64(),
    "position": pa.int64(),
}

NUMBER = r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$"
NOT_FINITE = r"(?i)^[+-]?(nan|inf|infinity)$"
SHOWN = 60
"""Characters of a value that a message shows."""


@dataclass
class Rows:
    """Raw columns of some lines; ``columns``: role -> (name in messages, values)."""

    columns: dict[str, tuple[str, pa.Array]]
    refused: dict[int, str] = field(default_factory=dict)
    """What is wrong with lines that gave no row, by the index of the line."""
    lines: NDArray[np.int64] | None = None
    """Index of each row's line; None: one row per line, in order, the refused lines left out."""
    again: Callable[[], "Rows"] | None = None
    """The same rows with values as they are written: messages about a row must not depend on its neighbours."""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))[1])

    def places(self) -> NDArray[np.int64]:
        """Index of each row's line."""
        if self.lines is not None:
            return self.lines
        return np.delete(np.arange(len(self) + len(self.refused)), list(self.refused))


@dataclass(frozen=True)
class Checks:
    """What a log's values are checked against."""

    unit: times.Unit = times.SECONDS
    hidden: bool = False
    """Messages show no values: one in the wrong column may be the id of a person."""
    numbering: Numbering | None = None
    """The lists that say which original ids the numbers in the file stand for."""
    exact: bool = False
    """Timestamps are given in microseconds, not in seconds."""

    def shown(self, value: Any) -> str:
        """The value in a message, after the name of its column."""
        if self.hidden:
            return ""
        text = repr(value.decode(errors="replace") if isinstance(value, bytes) else value)
        return f" {text}" if len(text) <= SHOWN else f" {text[:SHOWN]}..."


class _Found:
    """The first thing that is wrong with each bad row."""

    def __init__(self, first_only: bool):
        self.messages: dict[int, str] = {}
        self._first_only = first_only

    def add(self, bad: NDArray[np.bool_], message: Callable[[int], str]) -> None:
        rows = np.flatnonzero(bad)
        for row in (rows[:1] if self._first_only else rows).tolist():
            self.messages.setdefault(row, message(row))


def checked(rows: Rows, checks: Checks, place: Callable[[int], str], skip: bool) -> pa.Table:
    """A block; ``place(n)`` names the n-th line (of a Parquet batch: row) in messages.

    Raises:
        InputError: a row is refused and ``skip`` is not set.
    """
    found = _Found(first_only=not skip)
    block = {role: _column(role, name, values, checks, found) for role, (name, values) in rows.columns.items()}
    if not found.messages and not rows.refused:
        if skip:
            block["refused"] = pa.nulls(len(rows), pa.string())
        return pa.table(block)
    if rows.again is not None:
        return checked(rows.again(), checks, place, skip)
    lines = rows.places()
    messages = rows.refused | {int(lines[row]): message for row, message in found.messages.items()}
    if not skip:
        first = min(messages)
        raise InputError(f"{place(first)}: {messages[first]}")
    good = np.ones(len(rows), bool)
    good[list(found.messages)] = False
    texts = np.full(len(rows), None, object)
    for row, message in found.messages.items():
        texts[row] = f"{place(int(lines[row]))}: {message}"
    for role, values in block.items():
        block[role] = pc.if_else(pa.array(good), values, pa.scalar(None, values.type))
    block["refused"] = pa.array(texts, pa.string())
    if not rows.refused:
        return pa.table(block)
    lost = {role: pa.nulls(len(rows.refused), values.type) for role, values in block.items()}
    lost["refused"] = pa.array([f"{place(line)}: {message}" for line, message in rows.refused.items()], pa.string())
    whole = pa.concat_tables([pa.table(block), pa.table(lost)]).unify_dictionaries().combine_chunks()
    return whole.take(np.argsort(np.concatenate([lines, list(rows.refused)]), kind="stable"))


def _column(role: str, name: str, values: pa.Array, checks: Checks, found: _Found) -> pa.Array:
    if values.null_count:
        found.add(_mask(values.is_null()), lambda _: f"{name} is missing")
    if role in ("user", "item"):
        return _ids(role, name, values, checks, found)
    if isinstance(values, pa.DictionaryArray):
        values = values.dictionary_decode()
    if role == "rating":
        return _finite(name, values, checks, found)
    if role == "timestamp":
        return _seconds(name, values, checks, found)
    return values


# --- ids


def _ids(role: str, name: str, values: pa.Array, checks: Checks, found: _Found) -> pa.DictionaryArray:
    """Ids as strings; the work is done on distinct values."""
    coded = values if isinstance(values, pa.DictionaryArray) else dictionary(values)
    codes, ids = coded.indices, coded.dictionary
    if _is_text(ids):
        ids = _text(ids)
        if ids.null_count:
            _add_ids(found, codes, ids.is_null(), lambda _: f"{name} is not UTF-8 text")
    ids = pc.ascii_trim_whitespace(ids.cast(pa.string()))
    if pc.index(ids, "").as_py() >= 0:
        _add_ids(found, codes, pc.equal(ids, ""), lambda _: f"{name} is empty")
    if checks.numbering is not None:
        numbers, (ids, unknown) = ids, checks.numbering.originals(role, ids)
        lists = checks.numbering.files[role].name
        _add_ids(
            found, codes, unknown, lambda code: f"{name}{checks.shown(numbers[code].as_py())} is not listed in {lists}"
        )
    if not ids.equals(coded.dictionary):  # then two of them may be equal
        again = ids.dictionary_encode()
        codes, ids = again.indices.take(codes), again.dictionary
    return pa.DictionaryArray.from_arrays(codes.cast(pa.int32()), ids)


def _text(ids: pa.Array) -> pa.Array:
    """The values as strings, null where they are not UTF-8."""
    raw = ids.cast(pa.large_binary() if pa.types.is_large_string(ids.type) else pa.binary())
    try:
        return raw.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([decoded(value) for value in raw.to_pylist()], pa.string())


def decoded(value: bytes) -> str | None:
    """The text, or None if it is not UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _add_ids(found: _Found, codes: pa.Array, wrong: pa.Array, message: Callable[[int], str]) -> None:
    """Refuse the rows whose id is marked in ``wrong``; ``message`` gets its code."""
    marked = np.append(_mask(wrong), False)
    if marked.any():
        numbers = codes.fill_null(len(marked) - 1).to_numpy(zero_copy_only=False)
        found.add(marked[numbers], lambda row: message(int(numbers[row])))


# --- numbers


def _finite(name: str, values: pa.Array, checks: Checks, found: _Found) -> pa.Array:
    numbers = _numbers(name, values, checks, found)
    infinite = ~np.isfinite(numbers.fill_null(0).to_numpy(zero_copy_only=False))
    if infinite.any():
        found.add(infinite, lambda row: f"{name}{checks.shown(values[row].as_py())} is not a finite number")
    return numbers


def _numbers(name: str, values: pa.Array, checks: Checks, found: _Found) -> pa.Array:
    """As float64; null where the value is not a number."""
    if not _is_text(values):
        return values.cast(pa.float64(), safe=False)
    texts = _stripped(values)
    try:
        return texts.cast(pa.float64())
    except pa.ArrowInvalid:
        number = pc.or_(pc.match_substring_regex(texts, NUMBER), pc.match_substring_regex(texts, NOT_FINITE))
        wrong = ~_mask(number.fill_null(True))
        found.add(wrong, lambda row: f"{name}{checks.shown(texts[row].as_py())} is not a number")
        return pc.if_else(number, texts, pa.scalar(None, pa.string())).cast(pa.float64())


def _seconds(name: str, values: pa.Array, checks: Checks, found: _Found) -> pa.Array:
    """As int64 seconds since 1970, or microseconds; null where the value is refused."""
    if pa.types.is_timestamp(values.type):
        seconds = values.cast(pa.timestamp("s", values.type.tz), safe=False).cast(pa.int64())
        seconds = _in_range(name, values, seconds, times.SECONDS, checks, found)
        return values.cast(pa.timestamp("us", values.type.tz), safe=False).cast(pa.int64()) if checks.exact else seconds
    if checks.unit.name == "iso":
        exact, wrong = times.from_iso(_stripped(values))
        if wrong is not None:
            shown = lambda row: f"{name}{checks.shown(values[row].as_py())} is not a time such as {times.EXAMPLE}"  # noqa: E731
            found.add(wrong, shown)
        seconds = _in_range(name, values, _scaled(exact, 1, times.MICRO), times.SECONDS, checks, found)
        return exact if checks.exact else seconds
    whole = values if not _is_text(values) else _stripped(values)
    per_second = 1000 if checks.unit.name == "ms" else 1
    wanted = times.MICRO if checks.exact else 1
    try:
        return _scaled(_in_range(name, values, whole.cast(pa.int64()), checks.unit, checks, found), wanted, per_second)
    except pa.ArrowInvalid:
        numbers = _finite(name, values, checks, found)
    fraction = _mask(pc.not_equal(pc.floor(numbers), numbers).fill_null(False))
    found.add(fraction, lambda row: f"{name}{checks.shown(values[row].as_py())} is not a whole number")
    limited = pc.if_else(pc.less(pc.abs(numbers), 2.0**62), pc.floor(numbers), 2.0**62)
    whole = limited.cast(pa.int64(), safe=False)
    return _scaled(_in_range(name, values, whole, checks.unit, checks, found), wanted, per_second)


def _in_range(
    name: str, values: pa.Array, numbers: pa.Array, unit: times.Unit, checks: Checks, found: _Found
) -> pa.Array:
    whole = numbers.fill_null(0).to_numpy(zero_copy_only=False)
    for wrong, reason in unit.refused(whole):
        if wrong.any():
            found.add(wrong, lambda row, reason=reason: f"{name}{checks.shown(values[row].as_py())} {reason}")  # type: ignore[misc]
    return numbers


def _scaled(numbers: pa.Array, by: int, per: int) -> pa.Array:
    """floor(numbers * by / per)."""
    if by == per:
        return numbers
    factor, divisor = max(by // per, 1), max(per // by, 1)
    whole = numbers.fill_null(0).to_numpy(zero_copy_only=False)
    return pa.array(whole * factor // divisor, mask=_mask(numbers.is_null()))


def _is_text(values: pa.Array) -> bool:
    kind = values.type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind)


def _stripped(values: pa.Array) -> pa.Array:
    """As text without surrounding blanks, bytes that are not UTF-8 replaced."""
    try:
        texts = values.cast(pa.string())
    except pa.ArrowInvalid:
        texts = pa.array([value and value.decode(errors="replace") for value in values.to_pylist()], pa.string())
    return pc.ascii_trim_whitespace(texts)


def _mask(flags: pa.Array) -> NDArray[np.bool_]:
    return flags.fill_null(False).to_numpy(zero_copy_only=False)


def no_rows(name: str, header: bool) -> InputError:
    """The error for a file that has no interactions."""
    return InputError(f"{name}: no interactions{' after the header line' if header else ''}")
