"""The preparation of what is held in memory as a whole: lists of documents, and graphs."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipelines.prepare.folder import occupied, publish, staging
from pipelines.prepare.graphs.write import RawGraph
from pipelines.prepare.origin import check_unchanged, found, origin_of, states
from pipelines.prepare.ranking.write import RawLists
from recloss.errors import InputError

if TYPE_CHECKING:
    from pipelines.settings import PrepareSettings


class Raw(Protocol):
    """The raw files of a task."""

    @property
    def format(self) -> str:
        """What they were recognised as."""

    @property
    def paths(self) -> list[Path]:
        """All files that are read."""

    def write(
        self, folder: Path, settings: "PrepareSettings", workers: int, say: Callable[[str], None]
    ) -> dict[str, Any]:
        """Write the dataset into ``folder``; returns the manifest's sizes, steps and fingerprint."""


TASKS: dict[str, Callable[[Path, Callable[[str], None]], Raw]] = {"rank": RawLists, "link": RawGraph}
"""The tasks whose data is prepared here, and how their raw files are opened."""


def prepare_whole(
    raw: Path, out: Path, settings: "PrepareSettings", engine: str, workers: int | None, say: Callable[[str], None]
) -> dict[str, Any]:
    """Write the prepared dataset ``out`` and return its manifest; if ``out`` is what this would write, do nothing.

    Raises:
        InputError: the raw files cannot be read, ``out`` holds something else, or Ray is asked for.
    """
    if engine == "ray":
        raise InputError(
            f"engine 'ray' cannot be used with task {settings.task!r}, whose data one process prepares; "
            "accepted: auto, local"
        )
    files = TASKS[settings.task](raw, say)
    before = states(files.paths)
    origin = origin_of(before, settings)
    if occupied(out):
        return found(out, origin, files.format, settings, say)
    with staging(out) as folder:
        manifest = origin | files.write(folder, settings, workers or len(os.sched_getaffinity(0)), say)
        check_unchanged(before)
        if not publish(folder, out, manifest):
            return found(out, origin, files.format, settings, say)
    say(f"wrote {out}")
    return manifest
