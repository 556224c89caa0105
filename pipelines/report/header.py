"""The lines above a table: how its numbers came about."""

from collections.abc import Iterable
from typing import Any

from pipelines.report.cells import FINGERPRINT_DIGITS, Cell, canonical
from pipelines.settings import TASKS, PrepareSettings
from pipelines.tracking import Results
from recloss.errors import plain

_MASKING = {"False": "training positives hidden", "True": "training and validation positives hidden"}

_UNSAID = ("format", "columns")
_DEFAULTS = PrepareSettings().content()
_SAID_ALWAYS = ("min_rating", "k_core", "split", "test_ratio", "valid_ratio", "test_last", "valid_last", "split_seed")


def header(results: Results, cells: list[Cell]) -> list[str]:
    """Data, ranking, selection, seeds and budget; a setting that differs between cells shows all its values."""
    settings = results.settings
    lines = [_data(data, cells) for data in settings["data"]]
    masking = " or ".join(_MASKING.get(value, value) for value in _protocol(cells, "mask_valid"))
    cutoffs = " or ".join(value.strip("[]") for value in _protocol(cells, "cutoffs"))
    ties, metric = (" or ".join(_protocol(cells, key)) for key in ("ties", "metric"))
    ranking = TASKS[settings.get("task", "pairs")].ranking
    lines.append(f"ranking: {ranking.format(cutoffs=cutoffs, masking=masking, ties=ties)}")
    lines += _search(settings)
    lines.append(f"selection: validation {metric}, mean over seeds {_list(settings['seeds'])}")
    lines.append(f"scores: test, mean ± standard deviation (n-1) over seeds {_list(settings['confirm_seeds'])}")
    lines.append(f"tuning budget, grid points: {_list(_budgets(cells))}")
    if settings["baselines"]:
        lines.append(f"Imp.%: the best other loss over the best baseline ({_list(_baselines(settings, cells))})")
    return [plain(line) for line in lines]


def _data(data: dict[str, Any], cells: list[Cell]) -> str:
    contents = dict.fromkeys(c for cell in cells if cell.data == data["name"] for c in _contents(cell))
    fingerprint = " and ".join(content[:FINGERPRINT_DIGITS] for content in contents) or "not known yet"
    recorded = (data["prepare"] or {}).items()
    said = [(k, v) for k, v in recorded if k in _SAID_ALWAYS or (k not in _UNSAID and v != _DEFAULTS.get(k))]
    split = ", ".join(f"{key} {value}" for key, value in said) or "split as in its manifest"
    return f"data {data['name']}: fingerprint {fingerprint}, {split}"


def _contents(cell: Cell) -> list[str]:
    """That of the column first; none is known before the first trial."""
    return [content for content in (cell.column_fingerprint, cell.fingerprint) if content]


def _search(settings: dict[str, Any]) -> list[str]:
    """How configurations were found, where it was not by the grid alone. Older sweeps name the method only."""
    search, halving = settings["search"], settings.get("halving")
    parts = []
    if isinstance(search, dict) and search["method"] != "grid":
        parts.append(f"{search['method']}, {search['trials']} configurations per cell, seed {search['seed']}")
    if halving:
        parts.append(
            f"successive halving from epoch {halving['first']}, the best 1/{halving['reduction']} of a rung train on"
        )
    return [f"search: {'; '.join(parts)}"] if parts else []


def _protocol(cells: list[Cell], key: str) -> list[str]:
    """All values that a protocol setting has in the selections."""
    found = {cell.selection.configuration[f"protocol.{key}"] for cell in cells if cell.selection}
    return sorted(found) or ["not known yet"]


def _budgets(cells: list[Cell]) -> list[str]:
    points: dict[str, list[int]] = {}
    for cell in cells:
        points.setdefault(cell.loss_title, []).append(cell.points)
    return [f"{loss} {' to '.join(map(str, sorted({min(n), max(n)})))}" for loss, n in points.items()]


def _baselines(settings: dict[str, Any], cells: list[Cell]) -> list[str]:
    titles = {cell.loss: cell.loss_title for cell in cells}
    known = TASKS[settings.get("task", "pairs")].losses
    names = [canonical(known, name) for name in settings["baselines"]]
    return [titles.get(name, name) for name in names]


def _list(values: Iterable[Any]) -> str:
    return ", ".join(str(value) for value in values)
