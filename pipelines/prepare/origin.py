"""Where a prepared dataset comes from: its raw files and settings, and whether a folder was made of the same."""

from collections.abc import Callable, Iterable
from hashlib import file_digest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.prepare.dataset import SCHEMA_VERSION, load
from pipelines.prepare.hash_ids import check_value, hash_key
from pipelines.prepare.readers import Source
from recloss import __version__
from recloss.errors import InputError

if TYPE_CHECKING:
    from pipelines.settings import PrepareSettings

States = dict[Path, tuple[int, int] | None]
"""Size and time of the last change of each raw file; None if it is gone."""


def origin_of(files: States, settings: "PrepareSettings") -> dict[str, Any]:
    """The beginning of a manifest: what the result will be made of.

    Raises:
        InputError: ids are to be hashed without a key.
    """
    origin: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "recloss": __version__,
        "task": settings.task,
        "sources": [_checksum(file) for file in files],
        "settings": settings.content(),
    }
    return origin | ({"hash_key_check": check_value(hash_key())} if settings.hash_ids else {})


def paths_of(log: list[Source]) -> list[Path]:
    """The raw files: those of the sources, and lists of ids that come with a given split."""
    paths = [source.path for source in log]
    if log[0].checks.numbering:
        paths += [file.path for file in log[0].checks.numbering.files.values()]
    return paths


def states(paths: Iterable[Path]) -> States:
    """The raw files as they are now."""
    return {path: _state(path) for path in dict.fromkeys(paths)}


def check_unchanged(before: States) -> None:
    """Refuse files that are not what the checksum was computed of.

    Raises:
        InputError: naming the first of them.
    """
    for path, state in states(before).items():
        if state != before[path]:
            raise InputError(f"{path.name}: changed while it was read; prepare it again when nothing writes to it")


def found(
    out: Path, origin: dict[str, Any], format_: str, settings: "PrepareSettings", say: Callable[[str], None]
) -> dict[str, Any]:
    """The manifest of what is in ``out``, if it has this origin.

    Raises:
        InputError: it is something else.
    """
    advice = "remove it or choose another --out"
    try:
        manifest = load(out).manifest
    except InputError as error:
        raise InputError(f"{error}; {advice}") from None
    same = {key: manifest.get(key) == origin.get(key) for key in ("task", "sources", "hash_key_check")}
    same["settings"] = settings.equal(manifest["settings"])
    same["format"] = manifest["steps"][0]["format"] == format_
    changed = [key.replace("_", " ") for key, unchanged in same.items() if not unchanged]
    if changed:
        raise InputError(f"{out}: prepared before with other {' and '.join(changed)}; {advice}")
    say(f"unchanged: {out}")
    return manifest


def _state(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_size, stat.st_mtime_ns


def _checksum(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        return {
            "name": file.name,
            "bytes": file.stat().st_size,
            "sha256": file_digest(stream, "sha256").hexdigest(),
        }
