"""Which files hold the lists: those of a given split, or one file that is to be divided."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.prepare.dataset import SPLITS
from pipelines.prepare.readers.folders import listing
from pipelines.prepare.readers.streams import File
from recloss.errors import InputError

WORDS = {"train": "train", "vali": "valid", "valid": "valid", "validation": "valid", "val": "valid", "test": "test"}
SUFFIXES = "txt|dat|svm|libsvm|letor"
PART = re.compile(rf"(?:(?P<stem>.+)\.)?(?P<word>{'|'.join(WORDS)})(?:\.(?P<suffix>{SUFFIXES}))?")
COUNTS = ".query"
"""What LightGBM appends to the name of a file for that of its number of documents per query."""


@dataclass(frozen=True)
class ListFile:
    """A file of judged documents, the split it holds (None: to be divided), and the file with its queries' sizes."""

    file: File
    split: str | None
    counts: File | None


def list_files(raw: Path) -> list[ListFile]:
    """The files of ``raw``: a folder or archive with train, test and perhaps validation lists, or one file.

    Raises:
        InputError: there is no such file, or no split or several.
    """
    found, archived = listing(raw)
    counts = {_place(file): file for file in found if file.inner.endswith(COUNTS)}
    lists = [file for file in found if not file.inner.endswith(COUNTS)]
    if not raw.is_dir() and not archived:
        if not lists:
            raise InputError(
                f"{raw}: holds numbers of documents; give the file {raw.name.removesuffix(COUNTS)} beside it"
            )
        near = [] if lists[0].member else listing(raw.absolute().parent)[0]
        beside = {file.inner: file for file in near}.get(f"{lists[0].inner}{COUNTS}")
        return [ListFile(lists[0], None, beside)]
    splits = _given(lists)
    if len(splits) > 1:
        named = "; ".join(" + ".join(file.name for file in split.values()) for split in splits)
        raise InputError(f"{raw}: several splits ({named}); give a folder with the files of one")
    if splits:
        return [ListFile(file, split, counts.get(f"{_place(file)}{COUNTS}")) for split, file in splits[0].items()]
    if len(lists) != 1:
        raise InputError(
            f"{raw}: no train and test file of one name, such as train.txt and test.txt, or rank.train and rank.test; "
            "to divide the queries of one file, give the file"
        )
    return [ListFile(lists[0], None, counts.get(f"{_place(lists[0])}{COUNTS}"))]


def _given(files: Sequence[File]) -> list[dict[str, File]]:
    """The files of each split that has at least train and test, by part."""
    found: dict[tuple[str, ...], dict[str, File]] = {}
    for file in files:
        if match := PART.fullmatch(file.inner):
            key = (file.member.rpartition("/")[0], match["stem"] or "", match["suffix"] or "")
            part = WORDS[match["word"]]
            if other := found.setdefault(key, {}).get(part):
                raise InputError(f"{file.name} and {other.name} are both the {part} file; give a folder with one")
            found[key][part] = file
    return [
        {split: parts[split] for split in SPLITS if split in parts}
        for parts in found.values()
        if {"train", "test"} <= set(parts)
    ]


def _place(file: File) -> str:
    """Folder and name of what is inside."""
    return f"{file.member.rpartition('/')[0]}/{file.inner}"
