"""Given splits: which files are the parts of one."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.prepare.readers.listed import Numbering
from pipelines.prepare.readers.streams import File
from recloss.errors import InputError

SPLITS = ("train", "valid", "test")
WORDS = {"train": "train", "base": "train", "valid": "valid", "validation": "valid", "val": "valid", "test": "test"}
SUFFIXES = "tsv|txt|csv|dat|inter|json|jsonl|parquet"
PART = re.compile(rf"(?:(?P<stem>.+)\.)?(?P<word>train|valid|validation|val|test)\.(?P<suffix>{SUFFIXES})")
MOVIELENS = re.compile(r"(?P<stem>u[1-5ab])\.(?P<word>base|test)")
FIT = {"train_data.txt": "train", "valid_data.txt": "valid"}
"""Train without validation, and validation; ``train.txt`` beside them is both together."""
LISTS = re.compile(r"(?P<side>user|item)_list\.(?:txt|tsv)")


@dataclass(frozen=True)
class Given:
    """The files of a given split by part, the lists of original ids, and files that repeat others."""

    parts: dict[str, File]
    numbering: Numbering | None
    repeated: tuple[File, ...]

    def __str__(self) -> str:
        return " + ".join(file.inner for file in self.parts.values())


def given_splits(files: Sequence[File]) -> list[Given]:
    """The given splits among the files of a folder or archive; one has at least a train and a test file.

    Raises:
        InputError: a list of ids is there for one side only.
    """
    found: dict[tuple[str, str], dict[str, File]] = {}
    fit: dict[str, dict[str, File]] = {}
    lists: dict[str, dict[str, File]] = {}
    for file in files:
        place = file.member.rpartition("/")[0]
        if match := PART.fullmatch(file.inner) or MOVIELENS.fullmatch(file.inner):
            stem = f"{place}/{match['stem'] or ''}"
            suffix = match.groupdict().get("suffix") or ""
            found.setdefault((stem, suffix), {})[WORDS[match["word"]]] = file
        elif file.inner in FIT:
            fit.setdefault(f"{place}/", {})[FIT[file.inner]] = file
        elif match := LISTS.fullmatch(file.inner):
            lists.setdefault(f"{place}/", {})[match["side"]] = file
    splits = []
    for (stem, _), parts in found.items():
        repeated: tuple[File, ...] = ()
        if len(fit.get(stem, {})) == 2:
            repeated = tuple(parts[word] for word in ("train",) if word in parts)
            parts = parts | fit[stem]
        if {"train", "test"} <= set(parts):
            ordered = {split: parts[split] for split in SPLITS if split in parts}
            splits.append(Given(ordered, _numbering(lists.get(f"{stem.rpartition('/')[0]}/", {})), repeated))
    return splits


def beside(raw: Path) -> list[Path]:
    """The files in the folder of a train file that may be parts of the same split."""
    return sorted(path for path in raw.absolute().parent.iterdir() if path.is_file())


def _numbering(lists: dict[str, File]) -> Numbering | None:
    if not lists:
        return None
    if len(lists) == 1:
        ((side, file),) = lists.items()
        other = "item" if side == "user" else "user"
        raise InputError(f"{file.name}: lists the {side}s, but there is no {other}_list file beside it")
    return Numbering(lists["user"], lists["item"])
