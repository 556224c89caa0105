"""Was a row run as its preset says? Presets are files that change; results stay."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.papers.catalogue import Preset
from pipelines.papers.sweeps import Hyper, PaperSweep, sweep_settings
from pipelines.search.cell import Cell
from pipelines.settings import Choices, SearchSettings
from pipelines.sweep.plan import plan
from pipelines.tracking import Results


def others(
    preset: Preset, sweep: PaperSweep, hyper: Hyper, results: Results, spaces: Path | None
) -> dict[str, dict[str, tuple[str, str]]]:
    """By loss: the settings of the selected configuration that are not what the preset says, as (is, should be).

    A setting that one of the two does not know, since it is older or newer, is not compared.
    """
    settings = sweep_settings(preset, sweep, hyper=hyper, seeds=1, storage=Path(), raw={}, missing=True)
    one_each = settings.model_copy(update={"search": SearchSettings(method="random", trials=1)})
    found = {}
    for cell in plan(one_each, {}, spaces):
        selection = results.selections.get((cell.data, cell.backbone, cell.loss))
        if selection and (different := _different(cell, selection.configuration)):
            found[cell.loss] = different
    return found


def _different(cell: Cell, selected: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    expected: dict[str, Any] = cell.configurations[0][0].flat()
    different = {}
    for key in expected.keys() & selected.keys() - {"data", "seed", "task"}:
        axis = cell.space.axes.get(key)
        accepted = axis.choices if isinstance(axis, Choices) and axis.open else [expected[key]]
        if not any(_same(selected[key], choice) for choice in accepted):
            different[key] = (selected[key], " or ".join(map(str, accepted)))
    return different


def _same(text: str, value: Any) -> bool:
    """Whether a recorded text is this value; numbers by value, since 0 is recorded as 0.0."""
    if text == str(value):
        return True
    try:
        return not isinstance(value, bool) and float(text) == float(value)
    except (TypeError, ValueError):
        return False
