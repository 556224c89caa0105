"""The configuration that each cell selected, and what its search cost."""

import statistics
from dataclasses import dataclass

from pipelines.report.cells import Cell, sweep_cells
from pipelines.report.cost import CellCost, cell_cost
from pipelines.tracking import Results
from recloss.errors import plain


@dataclass(frozen=True)
class Selected:
    """One cell's search; all text is printable and on one line."""

    names: tuple[str, str, str]
    """Of data set, backbone and loss, as the sweep file has them."""
    data: str
    backbone: str
    """Title."""
    loss: str
    """Title."""
    params: str
    """Selected values of the settings that the grid varies (``loss.tau=0.1 optim.lr=0.01``)."""
    value: float | None
    """The validation metric that selected it."""
    points: int
    """Grid points tried."""
    failed: int
    """Grid trials that failed."""
    seconds: float | None
    """Mean training time of the finished grid trials."""
    notes: tuple[str, ...]
    """How the search was cut short, and which values lie on an edge of it, with the change that extends it."""
    cost: CellCost | None
    """Of search and confirmation, where it is known."""


def selected_configurations(results: Results, mix_fingerprints: bool = False) -> list[Selected]:
    """A line per cell of the sweep, in its order.

    Raises:
        InputError: if a data set's results are from different contents and ``mix_fingerprints`` is not set.
    """
    return [_selected(cell) for cell in sweep_cells(results, mix_fingerprints)]


def _selected(cell: Cell) -> Selected:
    chosen = cell.selection.configuration if cell.selection else {}
    seconds = [trial.metrics["seconds"] for trial in cell.grid if trial.status == "FINISHED"]
    return Selected(
        names=(plain(cell.data), cell.backbone, cell.loss),
        data=plain(cell.data),
        backbone=cell.backbone_title,
        loss=cell.loss_title,
        params=" ".join(f"{key}={plain(chosen[key])}" for key in varied(cell) if key in chosen),
        value=cell.selection.value if cell.selection else None,
        points=cell.points,
        failed=sum(trial.status == "FAILED" for trial in cell.grid),
        seconds=statistics.fmean(seconds) if seconds else None,
        notes=tuple(plain(note) for note in cell.notes),
        cost=cell_cost(cell),
    )


def varied(cell: Cell) -> list[str]:
    """Settings that take several values in the grid, sorted."""
    values: dict[str, set[str]] = {}
    for trial in cell.grid:
        for key, value in trial.configuration.items():
            values.setdefault(key, set()).add(value)
    return sorted(key for key, found in values.items() if len(found) > 1)
