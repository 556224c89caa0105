"""One file of a log as a source, in the format that is stated or recognised."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipelines.prepare.readers.checks import Checks
from pipelines.prepare.readers.formats import FORMATS, named
from pipelines.prepare.readers.head import Head, read_head
from pipelines.prepare.readers.parquet import ParquetSource, parquet
from pipelines.prepare.readers.recognise import formats_of, formats_of_parts
from pipelines.prepare.readers.source import TextSource
from pipelines.prepare.readers.streams import File, body
from pipelines.prepare.readers.times import SECONDS, Unit, unit_of
from recloss.errors import InputError

if TYPE_CHECKING:  # importing it would load torch in every reading worker
    from pipelines.settings import PrepareSettings


@dataclass(frozen=True)
class Opened:
    """A source, the beginning of its file (of text), and what its format was recognised by."""

    source: TextSource | ParquetSource
    head: Head | None
    reason: str = ""


def open_file(file: File, settings: "PrepareSettings") -> Opened | None:
    """A file as a source; None where ``auto`` does not recognise it.

    Raises:
        InputError: the file cannot be of the stated format, or may be of several.
    """
    if _is_parquet(file, settings):
        return _open_parquet(file, settings)
    head = read_head(file, settings.hash_ids)
    may_be = formats_of(head, settings.columns) if settings.format == "auto" else {settings.format: ""}
    if settings.task == "sequence" and "sequences" in may_be:  # the others that its lines may be have no order
        may_be = {"sequences": may_be["sequences"]}
    return _open_text(head, may_be, settings) if may_be else None


def open_parts(files: Sequence[File], settings: "PrepareSettings") -> list[Opened]:
    """The files of a given split as sources, in one format.

    Raises:
        InputError: there is no format that all of them have, or several.
    """
    if any(_is_parquet(file, settings) for file in files):
        return [_open_parquet(file, settings) for file in files]
    heads = [read_head(file, settings.hash_ids) for file in files]
    may_be = {settings.format: ""} if settings.format != "auto" else formats_of_parts(heads, settings.columns)
    if not may_be:
        each = (", ".join(formats_of(head, settings.columns)) or "unknown format" for head in heads)
        found = ", ".join(f"{head.name} ({names})" for head, names in zip(heads, each, strict=True))
        raise InputError(f"the files of the given split differ in format, or have none that is known: {found}")
    return [_open_text(head, may_be, settings) for head in heads]


def unit_of_log(files: Sequence[Opened], stated: Literal["auto", "s", "ms"]) -> Unit:
    """The unit of a log's timestamps: the stated one, or that of the first timestamp that can be read."""
    for opened in files:
        for value, place in _first_times(opened):
            unit = unit_of(value, place, opened.source.checks.hidden)
            if unit is not None:
                return unit if stated == "auto" or unit.name == "iso" else Unit(stated)
    return SECONDS if stated == "auto" else Unit(stated)


def _is_parquet(file: File, settings: "PrepareSettings") -> bool:
    return settings.format == "parquet" or (settings.format == "auto" and file.inner.endswith(".parquet"))


def _open_parquet(file: File, settings: "PrepareSettings") -> Opened:
    if file.packing != "plain":
        raise InputError(f"{file.name}: a packed Parquet file cannot be read; unpack it")
    return Opened(parquet(file.path, named(settings.columns), Checks(hidden=settings.hash_ids)), None)


def _open_text(head: Head, may_be: dict[str, str], settings: "PrepareSettings") -> Opened:
    if len(may_be) > 1:
        told = ", ".join(f"{name} ({reason})" for name, reason in may_be.items())
        raise InputError(f"{head.name}: the format is not certain, state it (format): it may be {told}")
    ((name, reason),) = may_be.items()
    open_ = FORMATS[name].open
    assert open_ is not None, "Parquet is opened before"
    label, layout = open_(head, settings.columns)
    return Opened(TextSource(head.file, label, layout, Checks(hidden=settings.hash_ids)), head, reason)


def _first_times(opened: Opened) -> Iterator[tuple[str | float, str]]:
    """Timestamps at the beginning of a file, with their places."""
    source = opened.source
    if "timestamp" not in source.columns:
        return
    if isinstance(source, ParquetSource):
        for row, value in enumerate(source.first_times(), 1):
            yield value, f"{source.name}, row {row}"
        return
    assert opened.head is not None, "only Parquet has none"
    before = source.layout.header
    text = body(opened.head.text.rstrip(b"\r\n") + b"\n", before)
    if not text:
        return
    rows = source.layout.rows(text, before, source.checks)
    rows = rows.again() if rows.again else rows
    for line, value in zip(rows.places().tolist(), rows.columns["timestamp"][1].to_pylist(), strict=True):
        time = value.decode(errors="replace") if isinstance(value, bytes) else value
        if time is not None:
            yield time.strip(), f"{source.name}, line {line + before + 1}"
