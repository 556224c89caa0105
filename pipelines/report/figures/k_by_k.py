"""K that was trained for against K that is measured."""

import statistics
from typing import TYPE_CHECKING

from pipelines.report.cells import Cell
from pipelines.report.figures import style
from pipelines.report.figures.evidence import Evidence, title
from pipelines.report.figures.heat import heat
from pipelines.tracking import TrialRun
from recloss.metrics import metric_name, parse_metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "K trained for against K′ measured"
CAPTION = (
    "For every K that the search tried: its configuration with the best validation {metric}, measured on validation "
    "at every K′, in percent of the best of the column (bold), mean over the search's seeds {seeds}. Epoch and "
    "configuration were selected by {metric}, which favours K near its cut-off; these are no test results."
)


def draw(evidence: Evidence) -> "Figure | None":
    """A panel per loss of a data set and backbone whose search tried several K."""
    tables = [
        (cell, values) for group in evidence.panels.values() for cell in group if (values := table(evidence, cell))
    ]
    if not tables:
        return None
    trained, measured = (max(f(v) for _, v in tables) for f in (len, lambda v: len(next(iter(v.values())))))
    figure, panels = style.grid(
        [(number, 0) for number in range(len(tables))],
        width=0.55 * measured + 0.2,
        height=0.3 * trained + 0.1,
        right=0.35,
        top=0.5,
    )
    kind = title(metric_name(parse_metric(evidence.metric)[0], 0)).split("@")[0]
    for (cell, values), axes in zip(tables, panels.values(), strict=True):
        numbers = [list(row.values()) for row in values.values()]
        best = {(y, x) for y, row in enumerate(numbers) for x, value in enumerate(row) if value == 1}
        heat(axes, numbers, lambda value: f"{100 * value:.1f}", best)
        axes.set_xticks(range(len(numbers[0])), [str(k) for k in next(iter(values.values()))])
        axes.set_yticks(range(len(numbers)), [f"{k:g}" for k in values])
        axes.set_title(style.cell_title(cell), fontsize=style.FONT)
        axes.set_xlabel(f"K′ of validation {kind}@K′")
        axes.set_ylabel("K trained for")
    return figure


def table(evidence: Evidence, cell: Cell) -> dict[float, dict[int, float]]:
    """By K of the loss and K′ of the metric, the validation metric as a share of its K′'s best; empty for one K or K′.

    Of each K the configuration with the best selection metric, at the epoch that was best by it, averaged over seeds.
    """
    found = evidence.best_of_each(cell, "loss.k") if evidence.selected_on_it(cell) else {}
    if min(len(found), len(evidence.cutoffs(cell))) < 2:
        return {}
    kind, _ = parse_metric(evidence.metric)
    values: dict[float, dict[int, float]] = {}
    for k, (_, trials) in found.items():
        for measured in evidence.cutoffs(cell):
            reached = [_at_best(evidence, trial, f"valid/{metric_name(kind, measured)}") for trial in trials]
            known = [value for value in reached if value is not None]
            if len(known) == len(trials):
                values.setdefault(k, {})[measured] = statistics.fmean(known)
    complete = {k: row for k, row in values.items() if len(row) == len(evidence.cutoffs(cell))}
    if len(complete) < 2:
        return {}
    best = {measured: max(row[measured] for row in complete.values()) for measured in next(iter(complete.values()))}
    return {k: {m: value / best[m] if best[m] else 1.0 for m, value in row.items()} for k, row in complete.items()}


def _at_best(evidence: Evidence, trial: TrialRun, metric: str) -> float | None:
    """A metric at the epoch that was the trial's best."""
    return evidence.histories.get(trial.hash, {}).get(metric, {}).get(int(trial.metrics["best_epoch"]))
