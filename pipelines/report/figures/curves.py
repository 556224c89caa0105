"""Validation metric, and where a loss has thresholds their mean and their error, over the epochs."""

import statistics
from typing import TYPE_CHECKING

from pipelines.report.cells import Cell
from pipelines.report.figures import style
from pipelines.report.figures.evidence import THRESHOLD, THRESHOLD_ERROR, Evidence

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Learning curves"
CAPTION = (
    "Validation {metric} of each selected configuration over the epochs: mean and range over the confirmation seeds "
    "{confirm_seeds}, up to the first one that stopped; in panels of their own, the users' mean thresholds of losses "
    "that have them, and where these estimate top-K thresholds, the mean absolute error of up to 500 users'.{others} "
    "An epoch's cost differs between losses: a steeper curve need not be faster in seconds."
)

_OF_THRESHOLDS = {THRESHOLD: "mean threshold (score)", THRESHOLD_ERROR: "threshold error (score)"}

Place = tuple[str, str, str]
"""Data set, backbone and what is shown."""
Curve = dict[int, list[float]]
"""Values on the confirmation seeds, by epoch."""


def draw(evidence: Evidence) -> "Figure | None":
    """A panel per data set and backbone for the metric, and below it those for thresholds where a loss has them."""
    metric, looks = f"valid/{evidence.metric}", style.looks(evidence)
    curves = {
        (data, backbone, what): [
            (cell, found) for cell in group if cell.loss in looks and (found := curve(evidence, cell, what))
        ]
        for (data, backbone), group in evidence.panels.items()
        for what in (metric, *_OF_THRESHOLDS)
    }
    curves = {place: found for place, found in curves.items() if found}
    if not any(what == metric and any(len(c) > 1 for _, c in found) for (_, _, what), found in curves.items()):
        return None
    order = [metric, *_OF_THRESHOLDS]
    if len({backbone for _, backbone, _ in curves}) > 1:
        places: dict[tuple[object, str], Place] = {((place[0], place[2]), place[1]): place for place in curves}
    else:
        places = {(place[2], place[0]): place for place in sorted(curves, key=lambda place: order.index(place[2]))}
    figure, panels = style.grid(places, height=style.panel_height(max(map(len, curves.values()))))
    for place, axes in panels.items():
        data, backbone, what = places[place]
        ends = [_line(axes, cell, found, looks[cell.loss]) for cell, found in curves[data, backbone, what]]
        axes.set_title(style.panel_title(evidence.panels[data, backbone][0]))
        axes.set_xlabel("epoch")
        axes.set_ylabel(_OF_THRESHOLDS.get(what, f"validation {evidence.metric_title}"))
        style.name_ends(axes, ends)
    return figure


def curve(evidence: Evidence, cell: Cell, what: str) -> Curve:
    """A metric at the epochs at which all confirmation seeds were validated."""
    trials = evidence.confirmed(cell)
    histories = [evidence.histories.get(trial.hash, {}).get(what, {}) for trial in trials]
    shared = set.intersection(*map(set, histories)) if histories else set()
    return {epoch: [history[epoch] for history in histories] for epoch in sorted(shared)}


def _line(axes: "Axes", cell: Cell, found: Curve, look: style.Look) -> tuple[float, float, str, style.Look]:
    epochs = list(found)
    means, low, high = ([f(values) for values in found.values()] for f in (statistics.fmean, min, max))
    axes.plot(epochs, means, gid=cell.loss, markevery=max(1, len(epochs) // 6), **look())
    if look:
        axes.fill_between(epochs, low, high, color=look.color, alpha=0.15, linewidth=0)
    return epochs[-1], means[-1], cell.loss_title, look
