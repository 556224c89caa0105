"""Training time of an epoch over the size of the catalogue."""

import statistics
from collections import defaultdict
from typing import TYPE_CHECKING

from pipelines.report.figures import style
from pipelines.report.figures.evidence import Evidence

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Epoch time against catalogue size"
CAPTION = (
    "Median seconds per training epoch of the confirmation trials (seeds {confirm_seeds}), validation not counted, "
    "over the number of items, a point per data set.{others} Data sets differ in their number of training pairs too, "
    "which an epoch's time grows with; times taken while several trials shared a machine are too long."
)


def draw(evidence: Evidence) -> "Figure | None":
    """A panel per backbone, a line per loss, a point per data set."""
    lines = times(evidence)
    backbones = [backbone for backbone, found in lines.items() if any(len(line) > 1 for line in found.values())]
    if not backbones:
        return None
    looks = style.looks(evidence)
    cells = {(cell.backbone, cell.loss): cell for group in evidence.panels.values() for cell in group}
    figure, panels = style.grid(
        [(0, backbone) for backbone in backbones], height=style.panel_height(max(map(len, lines.values())))
    )
    for (_, backbone), axes in panels.items():
        for loss, line in lines[backbone].items():
            axes.plot(list(line), list(line.values()), gid=loss, **looks[loss]())
        style.log_ticks(axes.xaxis, [n for line in lines[backbone].values() for n in line])
        style.plain_log(axes.yaxis)
        axes.margins(0.06)
        axes.set_title(style.name(next(c for (b, _), c in cells.items() if b == backbone).backbone_title))
        axes.set_xlabel("items in the catalogue (log scale)")
        axes.set_ylabel("seconds per epoch (log scale)")
        ends = [
            (*list(line.items())[-1], cells[backbone, loss].loss_title, looks[loss])
            for loss, line in lines[backbone].items()
        ]
        style.name_ends(axes, ends)
    return figure


def times(evidence: Evidence) -> dict[str, dict[str, dict[int, float]]]:
    """By backbone, loss and number of items: seconds per epoch, the median over the confirmation trials."""
    found: dict[str, dict[str, dict[int, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for (_, backbone), group in evidence.panels.items():
        manifest = evidence.results.manifests.get(group[0].column_fingerprint)
        if manifest is None:
            continue
        for cell in group:
            if cell.backbone == backbone:
                seconds = [trial.epoch_seconds for trial in evidence.confirmed(cell)]
                found[backbone][cell.loss][manifest["sizes"]["items"]] += [s for s in seconds if s]
    return {
        backbone: {
            loss: {n: statistics.median(s) for n, s in sorted(by_items.items()) if s}
            for loss, by_items in losses.items()
            if any(by_items.values())
        }
        for backbone, losses in found.items()
    }
