"""Where the raw files of a paper's data sets are on this machine."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pipelines.papers.catalogue import Preset
from pipelines.public import cache, public_datasets
from recloss.errors import InputError

FOLDER = "RECLOSS_DATA"
"""Environment variable: the folder of raw data sets."""

State = Literal["ready", "fetch", "data missing"]


def state(preset: Preset, data: str, given: Mapping[str, Path]) -> State:
    """``ready``: the raw files are here. ``fetch``: a run downloads them. ``data missing``: the user must get them."""
    if raw_path(preset, data, given) is not None:
        return "ready"
    fetch = preset.source(data).fetch
    if fetch is None:
        return "data missing"
    return "ready" if (cache() / fetch / public_datasets()[fetch].file).is_file() else "fetch"


def raw_path(preset: Preset, data: str, given: Mapping[str, Path]) -> Path | None:
    """The raw files that ``--raw`` names (for the data set or the one it is like), or those in the folder of
    ``RECLOSS_DATA``; ``None`` where there are none."""
    for name in (data, preset.paper.data[data].like):
        if name is not None and name in given:
            return given[name]
    source, folder = preset.source(data), os.environ.get(FOLDER)
    if source.raw and folder and (path := Path(folder).expanduser() / source.raw).exists():
        return path
    return None


def how_to_get(preset: Preset, data: str) -> str:
    """One line."""
    source = preset.source(data)
    place = f" into the folder that {FOLDER} names, as {source.raw}" if source.raw else ""
    return f"{source.get}{place}"


def check_given(preset: Preset, given: Mapping[str, Path]) -> None:
    """Refuse a ``--raw`` of a data set that the experiment does not have, or a path that is not there.

    Raises:
        InputError: naming it.
    """
    known = {name for data in preset.run.data for name in (data, preset.paper.data[data].like) if name}
    for name, path in given.items():
        if name not in known:
            raise InputError(f"--raw {name}: {preset.id} has no such data set (it has {', '.join(sorted(known))})")
        if not path.exists():
            raise InputError(f"--raw {name}: {path}: no such file or folder")
