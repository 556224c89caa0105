"""The files a log consists of: a file, the files of a folder, the members of a zip archive."""

import fnmatch
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pipelines.prepare.readers.streams import File, magic, packed
from recloss.errors import InputError, choices


def listing(raw: Path) -> tuple[list[File], bool]:
    """The files of ``raw`` in the order of their names, and whether they are members of an archive.

    Of a folder, hidden files are left out; a folder with nothing but one zip archive stands for the archive.

    Raises:
        InputError: there is no such file, or the archive cannot be read.
    """
    place = raw.absolute()  # Ray's workers may run in another folder
    if not raw.exists():
        archive = next((parent for parent in place.parents if parent.is_file() and _is_archive(parent)), None)
        if archive is None:
            raise InputError(f"{raw}: no such file or folder")
        return [_member(archive, str(PurePosixPath(place.relative_to(archive))))], False
    if not raw.is_dir():
        return (members(place), True) if _is_archive(place) else ([packed(place)], False)
    paths = sorted(path for path in place.iterdir() if path.is_file() and not path.name.startswith("."))
    if len(paths) == 1 and _is_archive(paths[0]):
        return members(paths[0]), True
    return [packed(path) for path in paths if not _is_archive(path)], False


def members(path: Path) -> list[File]:
    """The files in a zip archive, which are read in place.

    Raises:
        InputError: the archive is damaged or cut off, or a member has a name that leads out of it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
    except zipfile.BadZipFile:
        raise InputError(f"{path.name}: the zip archive is cut off or damaged (its directory is missing)") from None
    for info in infos:
        parts = PurePosixPath(info.orig_filename.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0]:
            raise InputError(f"{path.name}: refused, its member {info.orig_filename!r} has a name that leads out of it")
    visible = (info.filename for info in infos if not info.filename.rpartition("/")[2].startswith("."))
    return [File(path, "zip", name) for name in sorted(visible) if not name.startswith("__MACOSX/")]


def _member(archive: Path, name: str) -> File:
    found = {file.member: file for file in members(archive)}
    if name not in found:
        raise InputError(f"{archive.name}: {choices('member', name, found)}")
    return found[name]


def matching(files: Sequence[File], patterns: Sequence[str]) -> list[File]:
    """The files whose unpacked names match a pattern.

    Raises:
        InputError: one is there packed and unpacked.
    """
    found: dict[str, File] = {}
    for file in files:
        if not any(fnmatch.fnmatchcase(file.inner, pattern) for pattern in patterns):
            continue
        key = f"{file.member.rpartition('/')[0]}/{file.inner}"
        if key in found:
            raise InputError(f"{found[key].name} and {file.name} are the same file; give the one to read")
        found[key] = file
    return list(found.values())


def _is_archive(path: Path) -> bool:
    return magic(path) in (b"PK\x03\x04", b"PK\x05\x06")
