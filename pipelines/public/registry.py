"""The table of public data sets."""

import shlex
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.settings import Columns, PrepareSettings, PublicDataset, parse, read_yaml
from recloss.errors import InputError, choices

FILE = Path(__file__).parent / "datasets.yaml"


@cache
def public_datasets() -> dict[str, PublicDataset]:
    """Every known data set by name, in the order of the table."""
    entries = read_yaml(FILE)
    return {
        name: parse(PublicDataset, entry, f"{FILE.name}: {name}")
        for name, entry in entries.items()
        if not name.startswith("_")
    }


def named(name: str) -> PublicDataset:
    """The data set of this name.

    Raises:
        InputError: there is none; the nearest is named.
    """
    known = public_datasets()
    if name not in known:
        raise InputError(choices("public data set", name, known))
    return known[name]


def readable(name: str, settings: PrepareSettings) -> PrepareSettings:
    """The settings with the format and the columns of a data set where they do not name others."""
    dataset = named(name)
    known: dict[str, Any] = {"format": dataset.format} if settings.format == "auto" else {}
    if dataset.columns and settings.columns == Columns():
        known["columns"] = dataset.columns
    return settings.model_copy(update=known)


def prepare_command(name: str, file: Path) -> str:
    """The shortest command that prepares a fetched data set."""
    dataset = named(name)
    columns = dataset.columns.model_dump(exclude_none=True) if dataset.columns else {}
    options = "".join(f" --{role} {column}" for role, column in columns.items())
    return f"recloss prepare --raw {shlex.quote(str(file))} --format {dataset.format}{options} --out data/{name}"


_CHECKED = {
    "file": "the file itself",
    "copies": "the checksum, which several public projects state alike; not downloaded here",
    "address": "the address, as other public projects use it; not downloaded here, no checksum known",
}


def described(name: str) -> list[str]:
    """All that is known of a data set, line by line."""
    dataset = named(name)
    lines = [f"{name}: {dataset.title}", f"page: {dataset.homepage}", f"terms: {dataset.licence}"]
    lines += [f"cite: {dataset.cite}", f"file: {_sized(dataset.file, dataset.bytes, dataset.sha256)}"]
    lines += [
        f"from: {_sized(source.name, source.bytes, source.sha256)}{f', in it {source.member}' if source.member else ''}"
        for source in dataset.sources
    ]
    lines += [f"by hand: {dataset.by_hand}"] if dataset.by_hand else []
    lines += [f"compared when this entry was written: {_CHECKED[dataset.checked]}"]
    return [*lines, f"prepare: {prepare_command(name, Path(dataset.file))}"]


def _sized(what: str, size: int | None, digest: str | None) -> str:
    return what + (f", {size:,} bytes" if size else "") + (f", SHA-256 {digest}" if digest else "")
