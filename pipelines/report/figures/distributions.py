"""Distributions of the scores of positives and negatives, and of the thresholds between them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.report.figures import style
from pipelines.report.figures.evidence import Evidence

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Scores of positives and negatives, and thresholds"
CAPTION = (
    "Scores of up to 2,000 training positives and their sampled negatives by the selected model (first of the "
    "confirmation seeds {confirm_seeds}), and, scaled to the same height, the estimated and the exact top-K "
    "thresholds of up to 2,000 users.{only} These are training positives: the overlap on test items is larger, and "
    "score scales of different losses cannot be compared."
)

_POSITIVE: dict[str, Any] = {"color": "#D55E00", "linewidth": 1.4, "linestyle": "-", "label": "positives"}
_EXACT: dict[str, Any] = {"color": "black", "linewidth": 1.1, "linestyle": "--", "label": "exact top-K thresholds"}
_ESTIMATED: dict[str, Any] = {
    "color": "#0072B2",
    "linewidth": 1.3,
    "linestyle": (0, (1, 1)),
    "label": "estimated thresholds",
}


def draw(evidence: Evidence) -> "Figure | None":
    """A panel per loss (rows; the best ones where there are many), data set and backbone (columns)."""
    looks = style.looks(evidence)
    found = {
        (cell.loss, place): (cell, diagnosed[0])
        for place, group in evidence.panels.items()
        for cell in group
        if looks.get(cell.loss) and (diagnosed := evidence.diagnosed(cell))
    }
    if not found:
        return None
    figure, panels = style.grid(found, width=2.5, height=1.0, left=0.55, right=0.2, bottom=0.45, head=0.3)
    for key, axes in panels.items():
        cell, diagnosis = found[key]
        _panel(axes, diagnosis)
        axes.set_title(style.cell_title(cell), fontsize=style.FONT)
        axes.set_yticks([])
        axes.set_xlabel("score", labelpad=1)
        axes.set_ylabel("density")
    handles = {str(h.get_label()): h for axes in panels.values() for h in axes.get_legend_handles_labels()[0]}
    figure.legend(handles.values(), list(handles), loc="upper left", ncols=4, bbox_to_anchor=(0, 1))
    return figure


def _panel(axes: "Axes", diagnosis: Mapping[str, Any]) -> None:
    scores = diagnosis["scores"]
    edges = scores["edges"]
    negative, positive = (_density(scores[kind]["counts"], edges) for kind in ("negative", "positive"))
    axes.stairs(negative, edges, fill=True, color="0.78", label="sampled negatives")
    axes.stairs(positive, edges, **_POSITIVE)
    tallest = max(*negative, *positive)
    if threshold := diagnosis.get("threshold"):
        joint, edges = threshold["joint"], threshold["edges"][::2]
        for rows, look in ((zip(*joint, strict=True), _EXACT), (joint, _ESTIMATED)):
            counts = [sum(row) for row in rows]
            density = _density([a + b for a, b in zip(counts[::2], counts[1::2], strict=True)], edges)
            axes.stairs([value * tallest / max(density) for value in density], edges, **look)
    axes.set_ylim(0, 1.05 * tallest)
    axes.grid(axis="y", visible=False)


def _density(counts: Sequence[int], edges: Sequence[float]) -> list[float]:
    total = sum(counts)
    return [count / total / (high - low) for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True)]
