"""Validation metric over two hyper-parameters of a loss, or of its soft labels."""

import math
from typing import TYPE_CHECKING

from pipelines.report.cells import Cell
from pipelines.report.figures import style
from pipelines.report.figures.evidence import Evidence
from pipelines.report.figures.heat import heat

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Metric over the two hyper-parameters of a loss"
CAPTION = (
    "Validation {metric} of the best configuration that the search found with each pair of values, mean over the "
    "search's seeds {seeds}; the selected pair is framed. Colours go from the lowest to the highest of each panel, so "
    "they do not compare panels, and exaggerate small differences; these are no test results."
)

_OWN = ("loss.", "soft_labels.")
_MOST = 16
"""Values of a hyper-parameter that a grid has at most; a search by random points has more."""

Grid = dict[tuple[float, float], float]
"""The metric by both values."""


def draw(evidence: Evidence) -> "Figure | None":
    """A panel per loss of a data set and backbone whose search tried a grid of exactly two numbers of its own."""
    tables = [(cell, *found) for group in evidence.panels.values() for cell in group if (found := grid(evidence, cell))]
    if not tables:
        return None
    widest, tallest = (max(len({pair[i] for pair in values}) for _, _, values in tables) for i in (1, 0))
    figure, panels = style.grid(
        [(number, 0) for number in range(len(tables))],
        width=0.6 * widest + 0.2,
        height=0.3 * tallest + 0.1,
        right=0.35,
        top=0.5,
    )
    for (cell, (down, across), values), axes in zip(tables, panels.values(), strict=True):
        rows, columns = (sorted({pair[i] for pair in values}) for i in (0, 1))
        assert cell.selection is not None
        chosen = float(cell.selection.configuration[down]), float(cell.selection.configuration[across])
        selected = [(rows.index(chosen[0]), columns.index(chosen[1]))] if chosen in values else []
        numbers = [[values.get((row, column), math.nan) for column in columns] for row in rows]
        heat(axes, numbers, lambda value: f"{value:.4f}", selected)
        for y, x in selected:
            _frame(axes, x, y)
        axes.set_xticks(range(len(columns)), [f"{value:g}" for value in columns])
        axes.set_yticks(range(len(rows)), [f"{value:g}" for value in rows])
        axes.set_title(style.cell_title(cell), fontsize=style.FONT)
        axes.set_xlabel(across.partition(".")[2])
        axes.set_ylabel(down.partition(".")[2])
    return figure


def grid(evidence: Evidence, cell: Cell) -> tuple[tuple[str, str], Grid] | None:
    """The two settings and the metric by their values; ``None`` if they are not two, or not half of a grid was tried.

    Settings count that the search gave several values, all of them numbers: the loss's, else those of its soft labels.
    """
    if not evidence.selected_on_it(cell):
        return None
    tried = evidence.configurations(cell)
    params = [trials[0].params for _, trials in tried]
    pairs = [varied for section in _OWN if len(varied := _varied(section, params)) == 2]
    if not pairs:
        return None
    first, second = pairs[0]
    values: Grid = {}
    for reached, trials in tried:
        pair = float(trials[0].params[first]), float(trials[0].params[second])
        values[pair] = max(reached, values.get(pair, reached))
    sizes = [len({pair[i] for pair in values}) for i in (0, 1)]
    if max(sizes) > _MOST or 2 * len(values) < sizes[0] * sizes[1]:
        return None
    return (first, second), values


def _varied(section: str, params: list[dict[str, str]]) -> list[str]:
    """Settings of a section with several values; not one of them if a value of one is no number."""
    names = sorted({name for one in params for name in one if name.startswith(section)})
    varied = [name for name in names if len({one.get(name) for one in params}) > 1]
    try:
        return [name for name in varied if [float(one[name]) for one in params]]
    except (KeyError, ValueError):
        return []


def _frame(axes: "Axes", x: int, y: int) -> None:
    from matplotlib.patches import Rectangle

    color = style.LOOKS[1].color
    axes.add_patch(
        Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor=color, linewidth=1.6, clip_on=False, gid="selected")
    )
