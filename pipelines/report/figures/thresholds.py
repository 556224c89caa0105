"""Thresholds as a loss estimates them against exact ones."""

from typing import TYPE_CHECKING

from pipelines.report.figures import style
from pipelines.report.figures.evidence import Evidence

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Estimated against exact thresholds"
CAPTION = (
    "Top-K thresholds as the loss knew them in its selected epoch, against the exact ones (the K-th largest score "
    "over all items), of up to 2,000 users: darker is more users (logarithmic); r is their correlation, MAE the mean "
    "absolute error; first of the confirmation seeds {confirm_seeds}. On the dashed line an estimate is exact. One "
    "that is off by a constant can still order users well, and a small error alone does not make a loss good."
)


def draw(evidence: Evidence) -> "Figure | None":
    """A panel per loss with thresholds (rows), data set and backbone (columns)."""
    found = {
        (cell.loss, place): (cell, diagnosed[0]["threshold"])
        for place, group in evidence.panels.items()
        for cell in group
        if (diagnosed := evidence.diagnosed(cell)) and "threshold" in diagnosed[0]
    }
    if not found:
        return None
    figure, panels = style.grid(found, width=2.0, height=2.0, left=0.75, right=0.3, top=0.55)
    for key, axes in panels.items():
        cell, threshold = found[key]
        edges = threshold["edges"]
        shown = [[count or float("nan") for count in row] for row in zip(*threshold["joint"], strict=True)]
        axes.imshow(
            shown, extent=(edges[0], edges[-1], edges[0], edges[-1]), origin="lower", zorder=1, interpolation="nearest",
            cmap="Blues", norm="log", vmin=0.3,
        )  # fmt: skip
        axes.plot(edges[:: len(edges) - 1], edges[:: len(edges) - 1], color="black", linewidth=0.7, linestyle="--")
        r = threshold["correlation"]
        told = f"r = {'none' if r is None else f'{r:.2f}'}, MAE = {threshold['mean_absolute_error']:.3f}"
        axes.set_title(f"{style.cell_title(cell)}\n{told}", fontsize=style.FONT)
        axes.set_xlabel("estimated threshold (score)")
        axes.set_ylabel(f"exact top-{threshold['k']} threshold")
    return figure
