"""Separated values: one interaction per line."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from pipelines.prepare.readers.checks import TYPES, Checks, Rows, decoded
from pipelines.prepare.readers.streams import line_ends

UNCHECKED = {"user": pa.dictionary(pa.int32(), pa.binary()), "item": pa.dictionary(pa.int32(), pa.binary())}
"""What ids are parsed as when something in the block is wrong; all else is parsed as bytes then."""


@dataclass(frozen=True)
class Separated:
    """Lines of ``width`` values; ``roles``: role -> (position, name in messages)."""

    delimiter: str
    width: int
    roles: dict[str, tuple[int, str]]
    header: int = 0
    quoted: bool = False
    ended: bool = False
    """Whether files of this kind end with a line end, so that one which does not may be cut off."""
    divisible: ClassVar[bool] = True

    @property
    def columns(self) -> tuple[str, ...]:
        """The roles it has, in order."""
        return tuple(self.roles)

    def rows(self, lines: bytes, first: int, checks: Checks) -> Rows:
        """The raw columns of whole lines: typed, or, if some value cannot be, as bytes."""
        kinds = TYPES | {"user": pa.string(), "item": pa.string()}  # `ids.dictionary` is faster than Arrow's reader
        if checks.unit.name == "iso":
            kinds["timestamp"] = pa.string()
        try:
            return replace(self._rows(lines, kinds), again=lambda: self._rows(lines, UNCHECKED))
        except pa.ArrowInvalid:
            return self._rows(lines, UNCHECKED)

    def _rows(self, lines: bytes, kinds: dict[str, pa.DataType]) -> Rows:
        refused: dict[int, str] = {}
        total = line_ends(lines)
        unended = not lines.endswith(b"\n")
        if unended and self.ended:
            refused[total] = "the file ends inside this line: is it cut off?"
            lines = lines[: lines.rfind(b"\n") + 1]
        else:
            total += unended
        broken = _odd_quotes(lines) if self.quoted and b'"' in lines else {}
        if b"\r" in lines:
            broken |= _carriage_returns(lines)
        if not lines.isascii() and decoded(lines) is None:
            broken |= self._undecodable(lines, broken)
        table, wrong = self._parse(lines, broken, kinds)
        if table.num_rows + len(wrong) + len(broken) != total:
            raise RuntimeError(f"{total} lines gave {table.num_rows} rows")
        if unended and total - 1 in wrong:
            wrong[total - 1] += " (the last line: is the file cut off?)"
        names = [name for _, name in self.roles.values()]
        columns = (column.chunk(0) if column.num_chunks == 1 else column.combine_chunks() for column in table.columns)
        return Rows(dict(zip(self.roles, zip(names, columns, strict=True), strict=True)), refused | broken | wrong)

    def _parse(
        self, lines: bytes, broken: dict[int, str], kinds: dict[str, pa.DataType]
    ) -> tuple[pa.Table, dict[int, str]]:
        """The columns of all lines but the broken ones, and what is wrong with lines of another width."""
        kept = None
        if broken:
            each = lines.removesuffix(b"\n").split(b"\n")
            kept = [at for at in range(len(each)) if at not in broken]
            lines = b"".join(each[at] + b"\n" for at in kept)
        wrong: dict[int, str] = {}

        def refuse(row: pa.csv.InvalidRow) -> str:
            line = row.number - 1 if kept is None else kept[row.number - 1]
            wrong[line] = f"{row.actual_columns} columns, expected {self.width}"
            return "skip"

        names = [str(position) for position in range(self.width)]
        types = {str(position): kinds.get(role, pa.binary()) for role, (position, _) in self.roles.items()}
        if not lines:
            return pa.table({name: pa.array([], kind) for name, kind in types.items()}), {}
        delimiter = self.delimiter
        if len(delimiter) > 1:
            lines, delimiter = lines.replace(delimiter.encode(), b"\x1f"), "\x1f"
        table = pa.csv.read_csv(
            pa.BufferReader(lines),
            pa.csv.ReadOptions(use_threads=False, column_names=names, block_size=len(lines) + 1),
            pa.csv.ParseOptions(
                delimiter=delimiter,
                quote_char='"' if self.quoted else False,
                ignore_empty_lines=False,
                invalid_row_handler=refuse,
            ),
            pa.csv.ConvertOptions(column_types=types, include_columns=list(types), null_values=[]),
        )
        return table, wrong

    def _undecodable(self, lines: bytes, broken: dict[int, str]) -> dict[int, str]:
        """What is wrong with lines that are not UTF-8 and of another width: Arrow's reader stumbles over them."""
        each = enumerate(lines.removesuffix(b"\n").split(b"\n"))
        found = {at: line for at, line in each if at not in broken and decoded(line) is None}
        texts = (line.decode(errors="replace") + "\n" for line in found.values())
        _, wrong = self._parse("".join(texts).encode(), {}, UNCHECKED)
        places = list(found)
        return {places[at]: message for at, message in wrong.items()}


def _odd_quotes(lines: bytes) -> dict[int, str]:
    """What is wrong with lines in which a quoted value does not end."""
    text = _ended(lines)
    quotes = np.searchsorted(np.flatnonzero(text == ord('"')), np.flatnonzero(text == ord("\n")))
    odd = np.flatnonzero(np.diff(quotes, prepend=0) % 2).tolist()
    return dict.fromkeys(odd, "an odd number of quotes (a quoted value must not contain a line break)")


def _carriage_returns(lines: bytes) -> dict[int, str]:
    """What is wrong with lines that have a carriage return before their end."""
    text = _ended(lines)
    returns = np.flatnonzero(text == ord("\r"))
    inside = returns[text[returns + 1] != ord("\n")]
    broken = np.searchsorted(np.flatnonzero(text == ord("\n")), inside).tolist()
    return dict.fromkeys(broken, "a carriage return inside the line")


def _ended(lines: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(lines if lines.endswith(b"\n") else lines + b"\n", np.uint8)
