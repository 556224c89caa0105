"""Raw logs: recognise the format of a file or folder, and read it as blocks of checked interactions.

A source reads its file in pieces of bounded size, so a log larger than memory can be streamed. Ids are
strings (surrounding blanks removed), ratings finite float64, timestamps int64 in whatever unit the log has.
"""

import bisect
import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from recloss.errors import InputError, choices

if TYPE_CHECKING:  # importing it would load torch in every reading worker
    from pipelines.settings import Columns, PrepareSettings

BLOCK_BYTES = 32 * 2**20
BLOCK_ROWS = 2**20

ACCEPTED = (
    "movielens (u.data, ratings.dat, ratings.csv, RecBole .inter), csv (text with a header line, "
    "separated by commas, semicolons or tabs), parquet"
)
PATTERNS = {
    "movielens": ("u.data", "ratings.dat", "ratings.csv", "*.inter"),
    "csv": ("*.csv", "*.tsv", "*.txt"),
    "parquet": ("*.parquet",),
}
"""Files of a folder that are considered, by format."""

INTER = {
    "user": "user_id:token",
    "item": "item_id:token",
    "rating": "rating:float",
    "timestamp": "timestamp:float",
}
RATINGS_CSV = {"user": "userId", "item": "movieId", "rating": "rating", "timestamp": "timestamp"}

Where = Callable[[int], str]
"""Place of the n-th row of a block, for messages."""


@dataclass(frozen=True)
class TextSource:
    """A file of separated values, one row per line; ``columns``: role -> (position, name in messages)."""

    path: Path
    format: str
    delimiter: str
    width: int
    columns: dict[str, tuple[int, str]]
    header: bool
    quoted: bool

    def blocks(self) -> Iterator[pa.Table]:
        """Yield the interactions in the order of the file.

        Raises:
            InputError: naming the file, the line and the value that cannot be accepted.
        """
        empty = True
        for line, lines in _whole_lines(self.path, skip=int(self.header)):
            yield self._parse(lines, line)
            empty = False
            if self.format != "csv" and not lines.endswith(b"\n"):
                last = line + lines.count(b"\n")
                raise InputError(f"{self.path.name}, line {last}: the file ends inside this line: is it cut off?")
        if empty:
            raise InputError(f"{self.path.name}: no interactions{' after the header line' if self.header else ''}")

    def _parse(self, lines: bytes, first: int) -> pa.Table:
        """A block from whole lines, the first of which is line ``first`` of the file."""
        delimiter = self.delimiter
        if len(delimiter) > 1:
            lines, delimiter = lines.replace(delimiter.encode(), b"\x1f"), "\x1f"
        refused: list[pa.csv.InvalidRow] = []

        def refuse(row: pa.csv.InvalidRow) -> str:
            refused.append(row)
            return "skip"

        names = [str(position) for position in range(self.width)]
        try:
            raw = pa.csv.read_csv(
                pa.BufferReader(lines),
                pa.csv.ReadOptions(use_threads=False, column_names=names, block_size=len(lines) + 1),
                pa.csv.ParseOptions(
                    delimiter=delimiter,
                    quote_char='"' if self.quoted else False,
                    ignore_empty_lines=False,
                    invalid_row_handler=refuse,
                ),
                pa.csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    include_columns=[names[position] for position, _ in self.columns.values()],
                ),
            )
        except pa.ArrowInvalid:
            raise InputError(_not_utf8(self.path, lines, first)) from None
        rows = raw.num_rows + len(refused)
        if rows != lines.count(b"\n") + (not lines.endswith(b"\n")):
            raise InputError(
                f"{self.path.name}, line {first + _broken(lines)}: a quote or carriage return breaks the line"
            )
        if refused:
            row = refused[0]
            hint = ""
            if row.number == rows and not lines.endswith(b"\n"):
                hint = " (the last line: is the file cut off?)"
            elif self.quoted and '"' in row.text:
                hint = " (a quoted value must not contain a line break)"
            found = f"{row.actual_columns} columns, expected {self.width}"
            raise InputError(f"{self.path.name}, line {first + row.number - 1}: {found}{hint}")
        columns = zip(self.columns.items(), raw.columns, strict=True)
        return _checked(
            {role: (name, column) for (role, (_, name)), column in columns},
            lambda row: f"{self.path.name}, line {first + row}",
        )


@dataclass(frozen=True)
class ParquetSource:
    """A Parquet file; ``columns``: role -> name of its column."""

    path: Path
    format: str
    columns: dict[str, str]

    def blocks(self) -> Iterator[pa.Table]:
        """Yield the interactions in the order of the file.

        Raises:
            InputError: naming the file, the row (from 1) and the value that cannot be accepted.
        """
        first = 1
        try:
            with pq.ParquetFile(self.path) as file:
                for batch in file.iter_batches(BLOCK_ROWS, columns=list(self.columns.values())):
                    yield _checked(
                        {role: (name, batch[name]) for role, name in self.columns.items()},
                        lambda row, first=first: f"{self.path.name}, row {first + row}",  # type: ignore[misc]
                    )
                    first += batch.num_rows
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{self.path.name}: damaged Parquet file ({_one_line(error)})") from None
        if first == 1:
            raise InputError(f"{self.path.name}: no interactions")


Source = TextSource | ParquetSource


def sources(raw: Path, settings: "PrepareSettings", say: Callable[[str], None]) -> list[Source]:
    """The files of ``raw`` (a file, or a folder whose matching files are taken in the order of their names).

    Raises:
        InputError: no such file, unknown or ambiguous format, a named column is missing.
    """
    if not raw.exists():
        raise InputError(f"{raw}: no such file or folder")
    wanted = [settings.format] if settings.format != "auto" else list(PATTERNS)
    place = raw.absolute()  # Ray's workers may run in another folder
    if raw.is_dir():
        patterns = [pattern for name in wanted for pattern in PATTERNS[name]]
        files = sorted({file for pattern in patterns for file in place.glob(pattern) if file.is_file()})
        if not files:
            raise InputError(f"{raw}: no file here is named {', '.join(patterns)}; give the file itself")
    else:
        files = [place]
    found = [source for file in files if (source := _open(file, settings)) is not None]
    if not found:
        columns = f"with the columns {settings.columns.user!r} and {settings.columns.item!r}"
        raise InputError(f"{raw}: unknown format; accepted: {ACCEPTED}. A csv file is recognised by a header {columns}")
    if len({(source.format, *source.columns) for source in found}) > 1:
        listed = ", ".join(f"{source.path.name} ({source.format}: {', '.join(source.columns)})" for source in found)
        raise InputError(f"{raw}: the files differ in format, give the one to read or state the format: {listed}")
    if settings.min_rating is not None and "rating" not in found[0].columns:
        raise InputError(
            f"{found[0].path.name}: min_rating {settings.min_rating:g} needs a rating column; "
            "name it in the settings (columns.rating) or leave min_rating out"
        )
    ignored = [file.name for file in files if file not in {source.path for source in found}]
    skipped = f" (ignored: {', '.join(ignored)})" if ignored else ""
    say(f"format: {found[0].format}, {len(found)} file{'s' if len(found) > 1 else ''}{skipped}")
    return found


def _open(path: Path, settings: "PrepareSettings") -> Source | None:
    """The source for one file; None where ``auto`` does not recognise it.

    A file named ``.parquet`` or asked to be of a format is opened as such; what is wrong with it is an error.
    """
    if path.stat().st_size == 0:
        raise InputError(f"{path.name}: the file is empty")
    automatic = settings.format == "auto"
    if settings.format == "parquet" or (automatic and path.suffix == ".parquet"):
        return _parquet(path, settings.columns)
    line = _first_line(path)
    header_of_named = _delimiter(line, settings.columns) is not None
    columns_given = settings.columns != type(settings.columns)()
    if settings.format == "csv" or (automatic and columns_given and header_of_named):
        return _csv(path, line, settings.columns)
    if not automatic or _is_movielens(line):
        return _movielens(path, line)
    return _csv(path, line, settings.columns) if header_of_named else None


def _is_movielens(line: str) -> bool:
    """Whether a first line can be nothing else: a known header, or four values of the right kinds."""
    if line == ",".join(RATINGS_CSV.values()) or {INTER["user"], INTER["item"]} <= set(line.split("\t")):
        return True
    values = line.split("::" if "::" in line else "\t")
    if len(values) != 4:
        return False
    user, item, rating, timestamp = values
    return all(v.isdecimal() for v in (user, item, timestamp)) and rating.replace(".", "", 1).isdecimal()


def _movielens(path: Path, line: str) -> TextSource:
    """One of the four layouts, told apart by the separator and by ``:token`` in the first line."""
    if "::" in line or ("\t" in line and ":token" not in line):
        delimiter, name = ("::", "ratings.dat") if "::" in line else ("\t", "u.data")
        columns = {role: (position, role) for position, role in enumerate(RATINGS_CSV)}
        return TextSource(path, f"MovieLens {name}", delimiter, 4, columns, header=False, quoted=False)
    if "\t" in line:
        names = line.split("\t")
        present = {role: name for role, name in INTER.items() if role in ("user", "item") or name in names}
        columns = {role: (at, role) for role, (at, _) in _positions(path, names, present).items()}
        return TextSource(path, "RecBole .inter", "\t", len(names), columns, header=True, quoted=False)
    if "," not in line:
        raise InputError(f"{path.name}: not a MovieLens file; accepted: {ACCEPTED}")
    names = line.split(",")
    columns = _positions(path, names, RATINGS_CSV)
    return TextSource(path, "MovieLens ratings.csv", ",", len(names), columns, header=True, quoted=True)


def _csv(path: Path, line: str, columns: "Columns") -> TextSource:
    """Text with a header; if no separator gives the named columns, the most frequent serves the message."""
    delimiter = _delimiter(line, columns) or max(",;\t", key=line.count)
    names = _split(line, delimiter)
    positions = _positions(path, names, _named(columns))
    return TextSource(path, "csv", delimiter, len(names), positions, header=True, quoted=True)


def _parquet(path: Path, columns: "Columns") -> ParquetSource:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path.name}: not a complete Parquet file ({_one_line(error)})") from None
    named = _named(columns)
    _positions(path, schema.names, named)
    for role, name in named.items():
        kind = schema.field(name).type
        if not _fits(role, kind):
            raise InputError(f"{path.name}: column {name!r} has the type {kind}; accepted for {role}: {_FITTING[role]}")
    return ParquetSource(path, "parquet", named)


_FITTING = {
    "user": "strings, integers",
    "item": "strings, integers",
    "rating": "numbers",
    "timestamp": "numbers, timestamps",
}


def _fits(role: str, kind: pa.DataType) -> bool:
    if isinstance(kind, pa.DictionaryType):
        kind = kind.value_type
    if pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return True
    if role == "timestamp" and pa.types.is_timestamp(kind):
        return True
    return role in ("rating", "timestamp") and (pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _named(columns: "Columns") -> dict[str, str]:
    return {role: name for role, name in columns.model_dump().items() if name is not None}


def _positions(path: Path, names: Sequence[str], wanted: dict[str, str]) -> dict[str, tuple[int, str]]:
    """Role -> (position, name) of the wanted columns.

    Raises:
        InputError: a column is missing or occurs twice.
    """
    for name in wanted.values():
        if name not in names:
            raise InputError(f"{path.name}: {choices('column', name, names)}")
        if names.count(name) > 1:
            raise InputError(f"{path.name}: {names.count(name)} columns are named {name!r}")
    return {role: (names.index(name), name) for role, name in wanted.items()}


def _delimiter(line: str, columns: "Columns") -> str | None:
    """The separator that splits a header line into names among which are the user's and the item's."""
    fitting = (d for d in ",;\t" if {columns.user, columns.item} <= set(_split(line, d)))
    return next(fitting, None)


def _split(line: str, delimiter: str) -> list[str]:
    return [name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])]


def _first_line(path: Path) -> str:
    with path.open("rb") as file:
        line = file.readline(2**16)
    try:
        return line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise InputError(f"{_not_utf8(path, line, 1)}; accepted: {ACCEPTED}") from None


def _not_utf8(path: Path, lines: bytes, first: int) -> str:
    try:
        lines.decode()
    except UnicodeDecodeError as error:
        line = first + lines.count(b"\n", 0, error.start)
        return f"{path.name}, line {line}: not UTF-8 text"
    return f"{path.name}, line {first}: cannot be read as separated text"


def _whole_lines(path: Path, skip: int) -> Iterator[tuple[int, bytes]]:
    """Number of the first line and text of pieces of whole lines, without byte order mark and blank end."""
    with path.open("rb") as file:
        if file.read(3) != b"\xef\xbb\xbf":
            file.seek(0)
        for _ in range(skip):
            file.readline()
        line, rest = 1 + skip, b""
        while piece := file.read(BLOCK_BYTES):
            rest += piece
            cut = rest.rstrip(b"\r\n").rfind(b"\n") + 1  # the last line stays: only blank lines may follow it
            if cut:
                yield line, rest[:cut]
                line += rest.count(b"\n", 0, cut)
                rest = rest[cut:]
    if last := rest.rstrip(b"\r\n"):
        yield line, last if last == rest else last + b"\n"


def _broken(lines: bytes) -> int:
    """Index of the first line with an odd number of quotes or with a carriage return inside."""
    each = enumerate(line.removesuffix(b"\r") for line in lines.split(b"\n"))
    return next((index for index, line in each if line.count(b'"') % 2 or b"\r" in line), 0)


def _checked(columns: dict[str, tuple[str, pa.ChunkedArray]], where: Where) -> pa.Table:
    """A block from raw columns, role -> (name in messages, values)."""
    block = {}
    for role, (name, values) in columns.items():
        if values.null_count:
            raise InputError(f"{where(pc.index(values.is_null(), True).as_py())}: {name} is missing")
        if role in ("user", "item"):
            block[role] = _ids(values, name, where)
        elif role == "rating":
            block[role] = _numbers(values, name, where)
        else:
            block[role] = _timestamps(values, name, where)
    return pa.table(block)


def _ids(values: pa.ChunkedArray, name: str, where: Where) -> pa.ChunkedArray:
    ids = pc.ascii_trim_whitespace(values.cast(pa.string()))
    empty = pc.index(ids, "").as_py()
    if empty >= 0:
        raise InputError(f"{where(empty)}: {name} is empty")
    return ids


def _numbers(values: pa.ChunkedArray, name: str, where: Where) -> pa.ChunkedArray:
    numbers, bad = _cast(values, pa.float64())
    if numbers is None:
        raise InputError(f"{where(bad)}: {name} {values[bad].as_py()!r} is not a number")
    infinite = pc.index(pc.is_finite(numbers), False).as_py()
    if infinite >= 0:
        raise InputError(f"{where(infinite)}: {name} {values[infinite].as_py()!r} is not a finite number")
    return numbers


def _timestamps(values: pa.ChunkedArray, name: str, where: Where) -> pa.ChunkedArray:
    """Whole numbers, also written as 881250949.0."""
    whole, _ = _cast(values, pa.int64())
    if whole is not None:
        return whole
    numbers = _numbers(values, name, where)
    whole, bad = _cast(numbers, pa.int64())
    if whole is None:
        raise InputError(f"{where(bad)}: {name} {values[bad].as_py()!r} is not a whole number")
    return whole


def _cast(values: pa.ChunkedArray, kind: pa.DataType) -> tuple[pa.ChunkedArray | None, int]:
    """The values as ``kind``; or None and the index of the first that is refused."""
    if pa.types.is_string(values.type):
        values = pc.ascii_trim_whitespace(values)

    def refused(index: int) -> bool:
        try:
            values[: index + 1].cast(kind)
        except pa.ArrowInvalid:
            return True
        return False

    try:
        return values.cast(kind), -1
    except pa.ArrowInvalid:
        return None, bisect.bisect_left(range(len(values)), True, key=refused)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
