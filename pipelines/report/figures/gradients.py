"""How unevenly the gradient falls on the samples."""

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.report.figures import style
from pipelines.report.figures.evidence import Evidence

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Gradient share of the top 5 % samples"
CAPTION = (
    "Share of the sum of absolute gradients of the loss with respect to the scores that falls on the 5 % of sampled "
    "negatives, and of positives, with the largest: mean and range over the confirmation seeds {confirm_seeds}, by "
    "the selected model on up to 2,000 training pairs with fresh negatives. The dotted line is an even share; losses "
    "whose gradients are all zero there have no point. A large share alone says nothing of quality: some losses mean "
    "to concentrate on hard negatives."
)


_KINDS: dict[str, dict[str, Any]] = {
    "negative": {"marker": "o", "markersize": 4, "color": "#0072B2", "label": "negatives"},
    "positive": {
        "marker": "s",
        "markersize": 7,
        "markerfacecolor": "none",
        "color": "#D55E00",
        "label": "positives (training pairs)",
    },
}


def draw(evidence: Evidence) -> "Figure | None":
    """A row per loss: the share of the largest 5 % of negatives and of positives, mean and range over the seeds."""
    shares = {
        place: [(cell, kinds) for cell in group if any((kinds := _shares(evidence.diagnosed(cell))).values())]
        for place, group in evidence.panels.items()
    }
    shares = {place: found for place, found in shares.items() if found}
    if not shares:
        return None
    names = list(dict.fromkeys(cell.loss_title for found in shares.values() for cell, _ in found))
    figure, panels = style.grid(shares, height=0.19 * len(names) + 0.25, left=1.25, right=0.25, head=0.3)
    for place, axes in panels.items():
        for cell, kinds in shares[place]:
            y = names.index(cell.loss_title)
            for kind, values in kinds.items():
                if values:
                    axes.plot([min(values), max(values)], [y, y], color=_KINDS[kind]["color"], linewidth=1)
                    point = [statistics.fmean(values)], [y]
                    axes.plot(*point, linestyle="", gid=f"{kind} {cell.loss}", **_KINDS[kind])
        axes.axvline(5, **style.REFERENCE_LOOK())
        axes.set_yticks(range(len(names)), [style.name(text) for text in names])
        axes.set(xlim=(0, 103), ylim=(len(names) - 0.5, -0.5))
        axes.set_title(style.panel_title(evidence.panels[place][0]))
        axes.set_xlabel("share of the gradient on the 5 % largest (%)")
    handles, labels = next(iter(panels.values())).get_legend_handles_labels()
    known = dict(zip(labels, handles, strict=True))
    figure.legend(known.values(), list(known), loc="upper left", ncols=2, bbox_to_anchor=(0, 1))
    return figure


def _shares(diagnosed: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """In percent, on the seeds on which there is a gradient."""
    return {
        kind: [100 * share for found in diagnosed if (share := found["gradient"][kind]) is not None] for kind in _KINDS
    }
