"""The sources of a log: which of its files are read, as what, and what that was decided by."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.prepare.readers.folders import listing, matching, members
from pipelines.prepare.readers.formats import FORMATS
from pipelines.prepare.readers.given import LISTS, Given, given_splits
from pipelines.prepare.readers.listed import Listed
from pipelines.prepare.readers.opening import Opened, open_file, open_parts, unit_of_log
from pipelines.prepare.readers.source import Source
from recloss.errors import InputError, choices

if TYPE_CHECKING:  # importing it would load torch in every reading worker
    from pipelines.settings import PrepareSettings


NAMED = ("csv", "JSON lines", "parquet")
"""What sources with named columns have as ``format``."""


def sources(raw: Path, settings: "PrepareSettings", say: Callable[[str], None]) -> list[Source]:
    """The sources of ``raw``: a file, a folder, a zip archive, or (``archive.zip/name``) a member of one.

    Of a folder the files whose names fit the format are taken in the order of their names. With the split "given"
    the sources are its train, validation and test files; ``raw`` may then also be the train file.

    Raises:
        InputError: no such file, unknown or ambiguous format, a named column is missing, files of a given split
            without the split "given" or the other way round.
    """
    if settings.format not in ("auto", *FORMATS):
        raise InputError(choices("format", settings.format, ["auto", *FORMATS]))
    chosen = _given(raw, settings) if settings.split == "given" else _whole(raw, settings)
    found = [opened.source for opened in chosen.files]
    if len({(source.format, *source.columns) for source in found}) > 1:
        listed = ", ".join(f"{source.name} ({source.format}: {', '.join(source.columns)})" for source in found)
        raise InputError(f"{raw}: the files differ in format, give the one to read or state the format: {listed}")
    if settings.min_rating is not None and "rating" not in found[0].columns:
        raise InputError(
            f"{found[0].name}: min_rating {settings.min_rating:g} needs a rating column; "
            "name it in the settings (columns.rating) or leave min_rating out"
        )
    if settings.columns != type(settings.columns)() and found[0].format not in NAMED:
        raise InputError(
            f"{found[0].name}: columns can be named in csv, json and parquet, not in {found[0].format}; "
            "leave columns out or state one of these formats"
        )
    say(chosen.summary())
    unit = unit_of_log(chosen.files, settings.timestamp_unit)
    exact = settings.task == "sequence"
    return [replace(source, checks=replace(source.checks, unit=unit, exact=exact)) for source in found]


def listed(log: Sequence[Source]) -> Listed | None:
    """The original ids of a given split that comes with lists of them.

    Raises:
        InputError: a list is damaged.
    """
    numbering = log[0].checks.numbering
    return None if numbering is None else numbering.listed()


@dataclass(frozen=True)
class _Chosen:
    """The files that are read, and remarks on them."""

    files: list[Opened]
    remarks: list[str]

    def summary(self) -> str:
        """One line for the user."""
        first = self.files[0]
        because = [f"recognised by {first.reason}"] if first.reason else []
        remarks = "; ".join([*because, *self.remarks])
        files = f"{len(self.files)} file{'s' if len(self.files) > 1 else ''}"
        return f"format: {first.source.format}, {files}{f' ({remarks})' if remarks else ''}"


def _whole(raw: Path, settings: "PrepareSettings") -> _Chosen:
    """The files of a log that is not split."""
    files, archived = listing(raw)
    if not raw.is_dir() and not archived:
        opened = open_file(files[0], settings)
        return _Chosen([opened], []) if opened else _raise_unknown(raw, settings)
    splits = given_splits(files)
    parts = {file for split in splits for file in (*split.parts.values(), *split.repeated)}
    patterns = _patterns(settings.format)
    others = [file for file in files if file not in parts and not LISTS.fullmatch(file.inner)]
    considered = matching(others, patterns)
    found = [opened for file in considered if (opened := open_file(file, settings))]
    if not found and splits:
        given = "" if settings.task == "sequence" else "use split 'given', or "
        raise InputError(f"{raw}: holds a given split ({splits[0]}); {given}give one file to split it anew")
    if not considered:
        raise InputError(f"{raw}: no file here is named {', '.join(patterns)}; give the file itself")
    if not found:
        _raise_unknown(raw, settings)
    if archived and len(found) > 1:
        names = [opened.source.name.partition(": ")[2] for opened in found]
        example = found[0].source.path / names[0]
        raise InputError(f"{raw}: several members can be read ({', '.join(names)}); give one as {example}")
    read = {opened.source.name for opened in found}
    ignored = [file.name for file in considered if file.name not in read] + sorted(file.inner for file in parts)
    return _Chosen(found, [f"ignored: {', '.join(ignored)}"] if ignored else [])


def _given(raw: Path, settings: "PrepareSettings") -> _Chosen:
    """The files of a given split."""
    split = _the_split(raw)
    numbering = split.numbering
    files = []
    for part, opened in zip(split.parts, open_parts(list(split.parts.values()), settings), strict=True):
        checks = replace(opened.source.checks, numbering=numbering)
        files.append(replace(opened, source=replace(opened.source, split=part, checks=checks)))
    remarks = [f"given split {split}"]
    if split.repeated:
        remarks.append(
            f"ignored: {', '.join(file.inner for file in split.repeated)}, which repeats train and validation"
        )
    if numbering:
        remarks.append(f"original ids from {numbering.user.inner} and {numbering.item.inner}")
    return _Chosen(files, remarks)


def _the_split(raw: Path) -> Given:
    files, archived = listing(raw)
    if raw.is_dir() or archived:
        found = given_splits(files)
    else:
        near = members(files[0].path) if files[0].member else listing(raw.absolute().parent)[0]
        found = [split for split in given_splits(near) if split.parts["train"] == files[0]]
    if not found:
        raise InputError(
            f"{raw}: no given split; it needs a train and a test file of one name, such as train.txt and test.txt, "
            "ua.base and ua.test, x.train.inter and x.test.inter"
        )
    if len(found) > 1:
        raise InputError(f"{raw}: several given splits ({', '.join(map(str, found))}); give the train file of one")
    return found[0]


def _patterns(format_: str) -> list[str]:
    names = FORMATS if format_ == "auto" else [format_]
    return list(dict.fromkeys(pattern for name in names for pattern in FORMATS[name].patterns))


def _raise_unknown(raw: Path, settings: "PrepareSettings") -> "_Chosen":
    columns = f"with the columns {settings.columns.user!r} and {settings.columns.item!r}"
    raise InputError(
        f"{raw}: unknown format; accepted: {', '.join(sorted(FORMATS))}. A csv file is recognised by a header {columns}"
    )
