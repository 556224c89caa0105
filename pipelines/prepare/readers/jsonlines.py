"""JSON lines: one object per interaction."""

import json
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.json

from pipelines.prepare.readers.checks import Checks, Rows
from pipelines.prepare.readers.streams import line_ends


@dataclass(frozen=True)
class JsonLines:
    """Lines that are JSON objects; ``keys``: role -> key, ``kinds``: role -> the type it is expected to have."""

    keys: dict[str, str]
    kinds: dict[str, pa.DataType]
    header: ClassVar[int] = 0
    divisible: ClassVar[bool] = True

    @property
    def columns(self) -> tuple[str, ...]:
        """The roles it has, in order."""
        return tuple(self.keys)

    def rows(self, lines: bytes, first: int, checks: Checks) -> Rows:
        """The raw columns of whole lines; lines that are not as expected are read one by one."""
        total = line_ends(lines) + (not lines.endswith(b"\n"))
        try:
            table = pa.json.read_json(
                pa.BufferReader(lines),
                pa.json.ReadOptions(use_threads=False, block_size=len(lines) + 1),
                pa.json.ParseOptions(
                    explicit_schema=pa.schema([(key, self.kinds[role]) for role, key in self.keys.items()]),
                    unexpected_field_behavior="ignore",
                ),
            )
        except pa.ArrowInvalid:
            return self._careful(lines)
        if table.num_rows != total:
            return self._careful(lines)
        columns = {role: (key, table[key].combine_chunks()) for role, key in self.keys.items()}
        return Rows(columns, again=lambda: self._careful(lines))

    def _careful(self, lines: bytes) -> Rows:
        refused: dict[int, str] = {}
        found: list[list[str | None]] = []
        for at, line in enumerate(lines.removesuffix(b"\n").split(b"\n")):
            try:
                row = json.loads(line)
            except UnicodeDecodeError:
                refused[at] = "not UTF-8 text"
                continue
            except (json.JSONDecodeError, RecursionError):
                row = None
            if not isinstance(row, dict):
                refused[at] = "not a JSON object"
                continue
            if wrong := [
                key for role, key in self.keys.items() if role in ("user", "item") and not _is_id(row.get(key))
            ]:
                refused[at] = f"{wrong[0]} is not a text or whole number"
                continue
            found.append([_text(row.get(key)) for key in self.keys.values()])
        columns = list(zip(*found, strict=True)) or [()] * len(self.keys)
        named = zip(self.keys.items(), columns, strict=True)
        return Rows({role: (key, pa.array(values, pa.string())) for (role, key), values in named}, refused)


def _is_id(value: Any) -> bool:
    return value is None or (isinstance(value, str | int) and not isinstance(value, bool))


def _text(value: Any) -> str | None:
    """A value as text, None for null; the text of anything but a number is no number."""
    return value if value is None or isinstance(value, str) else json.dumps(value)
