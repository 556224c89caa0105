"""Critical-difference diagram: mean ranks on an axis, bars joining losses that cannot be told apart.

Source: J. Demšar, Statistical comparisons of classifiers over multiple data sets, JMLR 7 (2006), figure 1.
"""

from typing import TYPE_CHECKING

from pipelines.report.paired import ALPHA, shown_p
from pipelines.report.ranks import Ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_AXIS, _MARGIN, _LETTER = 3.8, 2.1, 0.09
"""Inches: length of the axis, room for names beside it at least, and of a letter."""
_LINE, _BAR_STEP, _ABOVE, _BELOW = 0.24, 0.12, 1.15, 0.4
"""Inches: between two names, between two bars, above the axis and under the last name."""
_OVERHANG = 0.05
"""Inches that a bar reaches beyond the ranks it joins."""


def draw(ranking: Ranking) -> "Figure | None":
    """The diagram of a ranking; none where Friedman's test was not made (`Ranking.notes` say why)."""
    from matplotlib.figure import Figure

    if ranking.test is None:
        return None
    n = len(ranking.losses)
    levels = _levels(ranking)
    first_name = 0.3 + _BAR_STEP * (1 + max(levels, default=-1))
    width, height = _AXIS + 2 * _margin(ranking), _ABOVE + first_name + _LINE * ((n + 1) // 2) + _BELOW
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-_margin(ranking), _AXIS + _margin(ranking)), ylim=(height - _ABOVE, -_ABOVE))
    axes.axis("off")
    _scale(axes, n)
    _ruler(axes, ranking.test.critical_difference, n)
    for level, (first, last) in zip(levels, ranking.groups, strict=True):
        ends = [_x(ranking.ranks[first], n) - _OVERHANG, _x(ranking.ranks[last], n) + _OVERHANG]
        axes.plot(ends, [0.18 + _BAR_STEP * level] * 2, color="black", linewidth=4, solid_capstyle="butt", zorder=3)
    for index in range(n):
        _name(axes, ranking, index, first_name)
    _words(axes, ranking, height - _ABOVE)
    return figure


def _margin(ranking: Ranking) -> float:
    """Room for the longest name and its rank."""
    return max(_MARGIN, _LETTER * (8 + max(map(len, ranking.titles))))


def _x(rank: float, n: int) -> float:
    """Place of a rank on the axis, in inches."""
    return (rank - 1) / (n - 1) * _AXIS


def _levels(ranking: Ranking) -> list[int]:
    """Height of each bar: the nearest to the axis where it touches no other."""
    n, reached = len(ranking.losses), list[float]()
    levels = []
    for first, last in ranking.groups:
        start, end = _x(ranking.ranks[first], n) - 2 * _OVERHANG, _x(ranking.ranks[last], n) + _OVERHANG
        level = next((level for level, before in enumerate(reached) if before < start), len(reached))
        reached[level : level + 1] = [end]
        levels.append(level)
    return levels


def _scale(axes: "Axes", n: int) -> None:
    axes.plot([_x(1, n), _x(n, n)], [0, 0], color="black", linewidth=1)
    step = 1 if n <= 13 else 2
    for rank in range(1, n + 1):
        labelled = (rank - 1) % step == 0
        axes.plot([_x(rank, n)] * 2, [0, -0.1 if labelled else -0.06], color="black", linewidth=1)
        if labelled:
            axes.text(_x(rank, n), -0.14, str(rank), ha="center", va="bottom", fontsize=9)


def _ruler(axes: "Axes", distance: float, n: int) -> None:
    ends = [_x(1, n), _x(1 + distance, n)]
    axes.plot(ends, [-0.45, -0.45], color="black", linewidth=1.5)
    for end in ends:
        axes.plot([end, end], [-0.5, -0.4], color="black", linewidth=1.5)
    axes.text(sum(ends) / 2, -0.52, f"critical difference {distance:.2f}", ha="center", va="bottom", fontsize=9)


def _name(axes: "Axes", ranking: Ranking, index: int, first_name: float) -> None:
    """The better half stands on the left, the best at the top; the other half on the right, the worst at the top."""
    n = len(ranking.losses)
    left = index < (n + 1) // 2
    y = first_name + _LINE * (index if left else n - 1 - index)
    x, end = _x(ranking.ranks[index], n), -0.15 if left else _AXIS + 0.15
    axes.plot([x, x, end], [0, y, y], color="0.45", linewidth=0.8)
    parts = (ranking.titles[index], f"{ranking.ranks[index]:.2f}")
    text, align = "  ".join(parts if left else parts[::-1]), "right" if left else "left"
    axes.text(end + (-0.06 if left else 0.06), y, text, ha=align, va="center", fontsize=10, parse_math=False)


def _words(axes: "Axes", ranking: Ranking, bottom: float) -> None:
    assert ranking.test is not None
    title = f"{ranking.backbone_title}, {ranking.metric_title}: mean rank over {len(ranking.data)} data sets, 1 is best"
    axes.text(_AXIS / 2, -_ABOVE + 0.12, title, ha="center", va="top", fontsize=11, parse_math=False)
    joined = "bars join losses that cannot be told apart (Nemenyi, 5 %)"
    why = joined if ranking.test.p < ALPHA else "it shows no difference between the losses, so one bar joins them all"
    axes.text(
        _AXIS / 2,
        bottom - 0.1,
        f"Friedman's test {shown_p(ranking.test.p)}; {why}",
        ha="center",
        va="bottom",
        fontsize=9,
        color="0.25",
    )
