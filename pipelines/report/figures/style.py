"""How all figures look: panels of fixed size, lines that are told apart without colour, names beside the axes."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pipelines.report.cells import REFERENCE
from recloss.errors import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipelines.report.cells import Cell
    from pipelines.report.figures.evidence import Evidence

Place = TypeVar("Place", bound=tuple[Any, Any])

FONT = 8
"""Points."""
_LEADER = {"arrowstyle": "-", "color": "0.75", "linewidth": 0.5, "shrinkA": 1, "shrinkB": 2, "relpos": (0, 0.5)}
_PAGE = 13.7
"""Inches that panels beside each other take at most."""
RC: Any = {
    "font.size": FONT,
    "axes.titlesize": FONT + 1,
    "axes.labelsize": FONT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": FONT,
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "recloss",
}
"""Names of data sets and losses are never read as formulas; an SVG's text stays text, its bytes are the same again."""

TITLE_LENGTH, SHORT_TITLE_LENGTH, NAME_LENGTH = 44, 20, 16
"""Longer names are cut."""


@dataclass(frozen=True)
class Look:
    """How a loss is drawn, in all figures alike."""

    color: str = "0.72"
    line: Any = "-"
    marker: str = ""
    width: float = 0.8
    front: int = 2

    def __call__(self) -> dict[str, Any]:
        """As matplotlib's ``plot`` takes it."""
        return {
            "color": self.color, "linestyle": self.line, "marker": self.marker, "linewidth": self.width,
            "markersize": 4, "zorder": self.front,
        }  # fmt: skip

    def __bool__(self) -> bool:
        """Whether it is told apart from the others."""
        return bool(self.marker)


PLAIN = Look()
"""Of the losses that are not among the best."""
REFERENCE_LOOK = Look("0.4", (0, (1, 1.2)), "", 1.2, 3)
"""Of a value that lines are compared with."""
LOOKS = tuple(
    Look(color, line, marker, 1.4, 4)
    for color, line, marker in (
        ("#0072B2", "-", "o"),
        ("#D55E00", "--", "s"),
        ("#009E73", "-.", "^"),
        ("#B0578D", (0, (4, 1, 1, 1, 1, 1)), "D"),
        ("#000000", (0, (2, 1)), "v"),
        ("#C47F00", "-", "P"),
        ("#3A8FC4", (0, (6, 2)), "X"),
        ("#7A4B2A", (0, (1, 1)), "*"),
    )
)
"""After Okabe and Ito's colours, darker than the grey of the others; each has a line and a marker of its own."""


def looks(evidence: "Evidence") -> dict[str, Look]:
    """A look for each loss: its own if there are few, else for those with the best mean rank on test; others grey."""
    ranks: dict[str, list[int]] = defaultdict(list)
    for group in evidence.panels.values():
        losses = [cell for cell in group if cell.backbone != REFERENCE]
        scores = {cell.loss: evidence.tested(cell, evidence.metric) for cell in losses}
        ordered = sorted((score for score in scores.values() if score is not None), reverse=True)
        for loss, score in scores.items():
            ranks[loss].append(len(losses) if score is None else ordered.index(score))
    best = sorted(ranks, key=lambda loss: statistics.fmean(ranks[loss]))[: len(LOOKS)]
    own = iter(LOOKS)
    return {loss: next(own) if loss in best else PLAIN for loss in ranks}


def look_of(cell: "Cell", known: Mapping[str, Look]) -> Look:
    """Reference models are grey."""
    return PLAIN if cell.backbone == REFERENCE else known[cell.loss]


def panel_title(cell: "Cell") -> str:
    """Data set and backbone of a panel, by one of its cells that is no reference."""
    return f"{name(cell.data, TITLE_LENGTH)}, {name(cell.backbone_title)}"


def cell_title(cell: "Cell") -> str:
    """Of the small panel of a cell."""
    return f"{name(cell.loss_title)}: {name(cell.data, SHORT_TITLE_LENGTH)}, {name(cell.backbone_title)}"


def name(text: str, length: int = NAME_LENGTH) -> str:
    """A name on one line, cut where it is too long."""
    text = plain(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def grid(
    places: Iterable[Place],
    *,
    width: float = 2.7,
    height: float = 2.1,
    left: float = 0.7,
    right: float = 1.15,
    top: float = 0.38,
    bottom: float = 0.5,
    head: float = 0.0,
) -> tuple["Figure", dict[Place, "Axes"]]:
    """A figure with a panel at each place (row, column), both in the order in which they first occur.

    Panels are ``width`` x ``height`` inches with fixed room around each; ``head`` is above all. One column, or
    more than fit on a page, are set row by row instead.
    """
    from matplotlib.figure import Figure

    places = list(places)
    rows, columns = ([*dict.fromkeys(place[axis] for place in places)] for axis in (0, 1))
    across, down = left + width + right, top + height + bottom
    if len(columns) == 1 or across * len(columns) > _PAGE:
        corners = [divmod(number, int(_PAGE / across)) for number in range(len(places))]
    else:
        corners = [(rows.index(row), columns.index(column)) for row, column in places]
    size = across * (1 + max(column for _, column in corners)), down * (1 + max(row for row, _ in corners)) + head
    figure = Figure(figsize=size)
    panels: dict[Place, Axes] = {}
    for place, (row, column) in zip(places, corners, strict=True):
        x, y = column * across + left, size[1] - head - (row + 1) * down + bottom
        panels[place] = figure.add_axes((x / size[0], y / size[1], width / size[0], height / size[1]))
    return figure, panels


def panel_height(names: int) -> float:
    """Inches that a panel needs for so many names beside it, at least its usual height."""
    return max(2.1, 0.155 * names)


def name_ends(axes: "Axes", ends: Sequence[tuple[float, float, str, Look]]) -> None:
    """Write a name for each point (x, y) at the right of the panel, with a thin line from the point to its name.

    The panel's limits must be final.
    """
    import numpy as np
    from scipy.optimize import isotonic_regression

    if not ends:
        return
    to_panel = axes.transData + axes.transAxes.inverted()
    placed = sorted((float(to_panel.transform((x, y))[1]), x, y, text, look) for x, y, text, look in ends)
    inches = axes.bbox.height / axes.figure.dpi
    gap = 1.3 * FONT / 72 / inches
    steps = gap * np.arange(len(placed))
    heights = isotonic_regression(np.array([end[0] for end in placed]) - steps).x + steps
    heights = heights - max(0.0, heights[-1] - max(1.0, steps[-1]))
    for at, (_, x, y, text, look) in zip(heights, placed, strict=True):
        axes.annotate(
            name(text), (x, y), (1.05, float(at)), xycoords="data", textcoords="axes fraction",
            va="center", ha="left", fontsize=FONT - 1, color=look.color if look else "0.4",
            weight="bold" if look else "normal", annotation_clip=False,
            arrowprops=_LEADER,
        )  # fmt: skip


def log_ticks(axis: Any, values: Sequence[float]) -> None:
    """A logarithmic axis with ticks at some of the values, written as plain numbers."""
    (axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale)("log")
    ordered = sorted(set(values))
    span = math.log(ordered[-1] / ordered[0]) or 1.0
    ticks = ordered[:1]
    for value in ordered[1:]:
        if math.log(value / ticks[-1]) >= span / 8:
            ticks.append(value)
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_ticks([], minor=True)


def plain_log(axis: Any) -> None:
    """A logarithmic axis whose powers of ten are written as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    (axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale)("log")
    low, high = axis.get_data_interval()
    decades = math.log10(high / low) if 0 < low < high < math.inf else 0.0
    subs = (1.0, 2.0, 5.0) if decades < 1.5 else (1.0, 3.0) if decades < 2.5 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=9))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
