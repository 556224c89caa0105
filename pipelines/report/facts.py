"""What a reader asks of one cell of the table: its seeds, search, cost and runs."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.report.cells import Cell, sweep_cells
from pipelines.report.report import Report
from pipelines.report.selected import Selected, varied
from pipelines.tracking import TrialRun
from recloss.errors import plain

_NAMES = ("backbone", "data", "loss", "task")


@dataclass(frozen=True)
class CellFacts:
    """One cell beside its scores in the table."""

    anchor: str
    """Identifier of its place on a page."""
    names: tuple[str, str, str]
    """Of data set, backbone and loss, as in code; the data set's is printable."""
    selected: Selected
    metric: str
    """That selected, such as ``valid/ndcg_20``; empty before."""
    varied: dict[str, str]
    """Selected values of the settings that its search varied."""
    fixed: dict[str, str]
    """All other settings of the selected configuration."""
    edges: tuple[tuple[str, str], ...]
    """What the search tried on an axis whose selected value lies on its edge, and the change that extends it."""
    notes: tuple[str, ...]
    """What else is to be known of its search."""
    pruned: int
    """Search trials that successive halving ended."""
    epoch_seconds: float | None
    """Mean over the confirmation trials; over the search's where none is known."""
    confirmation: tuple[TrialRun, ...]
    run_id: str
    """Of its run in MLflow; empty where there is none."""
    run_name: str
    missing: str
    """Why the search has no result; empty if it has."""


def cell_facts(report: Report) -> list[CellFacts]:
    """The cells of a report, in the sweep's order."""
    selected = {s.names: s for s in report.selected}
    cells = sweep_cells(report.results, mix_fingerprints=True)  # what may not be mixed is refused by the table
    return [_facts(report, cell, selected, number) for number, cell in enumerate(cells, start=1)]


def _facts(report: Report, cell: Cell, selected: dict[tuple[str, str, str], Selected], number: int) -> CellFacts:
    names = (plain(cell.data), cell.backbone, cell.loss)
    configuration = cell.selection.configuration if cell.selection else {}
    settings = {key: value for key, value in sorted(configuration.items()) if key not in _NAMES}
    searched = varied(cell)
    halves = [plain(note).rpartition(" -> ") for note in cell.notes]
    return CellFacts(
        anchor=f"cell-{number}",
        names=names,
        selected=selected[names],
        metric=cell.selection.metric if cell.selection else "",
        varied={key: value for key, value in settings.items() if key in searched},
        fixed={key: value for key, value in settings.items() if key not in searched},
        edges=tuple((axis, change) for axis, arrow, change in halves if arrow),
        notes=tuple(note for _, arrow, note in halves if not arrow),
        pruned=sum(trial.pruned for trial in cell.grid),
        epoch_seconds=_epoch_seconds(cell.confirmation) or _epoch_seconds(cell.grid),
        confirmation=tuple(sorted(cell.confirmation, key=lambda trial: trial.seed)),
        run_id=report.results.run_ids.get((cell.data, cell.backbone, cell.loss), ""),
        run_name=" | ".join((cell.data, cell.backbone, cell.loss)),
        missing="" if cell.selection else cell.why_unselected,
    )


def _epoch_seconds(trials: Sequence[TrialRun]) -> float | None:
    known = [seconds for trial in trials if (seconds := trial.epoch_seconds) is not None]
    return statistics.fmean(known) if known else None
