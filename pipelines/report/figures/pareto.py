"""Quality against the cost of finding it."""

from typing import TYPE_CHECKING

from pipelines.report.cells import Cell
from pipelines.report.cost import cell_cost
from pipelines.report.figures import style
from pipelines.report.figures.evidence import Evidence

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Quality against cost"
CAPTION = (
    "Test {metric} (mean over the confirmation seeds {confirm_seeds}) against the hours that search and confirmation "
    "took, one trial after the other, failed and pruned trials too. No loss beats those on the line, whose points are "
    "filled, in both.{grey} Hours depend on the machine, on what else ran on it and on how many configurations were "
    "tried: a loss with a larger grid is not a slower loss."
)

Point = tuple[float, float, Cell]
"""Hours, test metric, cell."""


def draw(evidence: Evidence) -> "Figure | None":
    """A point per loss, and a line through those that no other beats in both."""
    points = {place: points_of(evidence, group) for place, group in evidence.panels.items()}
    points = {place: found for place, found in points.items() if found}
    if not any(len(found) > 1 for found in points.values()):
        return None
    looks = style.looks(evidence)
    figure, panels = style.grid(points, height=style.panel_height(max(map(len, points.values()))))
    for place, axes in panels.items():
        best = front(points[place])
        axes.plot(
            [x for x, _, _ in best], [y for _, y, _ in best], gid="front", color="0.3", linewidth=0.9,
            drawstyle="steps-post", zorder=2,
        )  # fmt: skip
        for hours, value, cell in points[place]:
            look = style.look_of(cell, looks)
            marker = look.marker or "."
            on_it = (hours, value, cell) in best
            axes.plot(
                hours, value, gid=cell.loss, color=look.color, marker=marker, linestyle="", markersize=6,
                markerfacecolor=look.color if on_it else "white", zorder=4,
            )  # fmt: skip
        style.plain_log(axes.xaxis)
        axes.margins(0.08)
        axes.set_title(style.panel_title(evidence.panels[place][0]))
        axes.set_xlabel("hours of search and confirmation (log scale)")
        axes.set_ylabel(f"test {evidence.metric_title}")
        axes.autoscale_view()
        ends = [(x, y, cell.loss_title, style.look_of(cell, looks)) for x, y, cell in points[place]]
        style.name_ends(axes, ends)
    return figure


def points_of(evidence: Evidence, group: list[Cell]) -> list[Point]:
    """The cells whose cost and test metric are known."""
    found = []
    for cell in group:
        cost, value = cell_cost(cell), evidence.tested(cell, evidence.metric)
        if cost is not None and cost.hours > 0 and value is not None:
            found.append((cost.hours, value, cell))
    return found


def front(points: list[Point]) -> list[Point]:
    """Those that no other beats in one of cost and quality and equals or beats in the other, the cheapest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or point[1] > best[-1][1]:
            best.append(point)
    return best
