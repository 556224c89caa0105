"""The lines above a table: how its numbers came about."""

from collections.abc import Iterable
from typing import Any

from pipelines.report.cells import FINGERPRINT_DIGITS, Cell, plain
from pipelines.tracking import Results

_MASKING = {"False": "training positives hidden", "True": "training and validation positives hidden"}


def header(results: Results, cells: list[Cell]) -> list[str]:
    """Data, ranking, selection, seeds and budget; a setting that differs between cells shows all its values."""
    settings = results.settings
    lines = [_data(data, cells) for data in settings["data"]]
    masking = " or ".join(_MASKING.get(value, value) for value in _protocol(cells, "mask_valid"))
    cutoffs = " or ".join(value.strip("[]") for value in _protocol(cells, "cutoffs"))
    ties, metric = (" or ".join(_protocol(cells, key)) for key in ("ties", "metric"))
    lines.append(f"ranking: all items, K = {cutoffs}, {masking}, ties by {ties}")
    lines.append(f"selection: validation {metric}, mean over seeds {_list(settings['seeds'])}")
    lines.append(f"scores: test, mean ± standard deviation (n-1) over seeds {_list(settings['confirm_seeds'])}")
    lines.append(f"tuning budget, grid points: {_list(_budgets(cells))}")
    return [plain(line) for line in lines]


def _data(data: dict[str, Any], cells: list[Cell]) -> str:
    fingerprint = next(cell.fingerprint for cell in cells if cell.data == data["name"])
    settings = {k: v for k, v in (data["prepare"] or {}).items() if k not in ("format", "columns")}
    split = ", ".join(f"{key} {value}" for key, value in settings.items()) or "split as in its manifest"
    return f"data {data['name']}: fingerprint {fingerprint[:FINGERPRINT_DIGITS] or 'not known yet'}, {split}"


def _protocol(cells: list[Cell], key: str) -> list[str]:
    """All values that a protocol setting has in the selections."""
    found = {cell.selection.configuration[f"protocol.{key}"] for cell in cells if cell.selection}
    return sorted(found) or ["not known yet"]


def _budgets(cells: list[Cell]) -> list[str]:
    points: dict[str, list[int]] = {}
    for cell in cells:
        points.setdefault(cell.loss_title, []).append(cell.points)
    return [f"{loss} {' to '.join(map(str, sorted({min(n), max(n)})))}" for loss, n in points.items()]


def _list(values: Iterable[Any]) -> str:
    return ", ".join(str(value) for value in values)
