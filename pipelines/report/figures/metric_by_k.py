"""Test metric against the cut-off K."""

from typing import TYPE_CHECKING

from pipelines.report.figures import style
from pipelines.report.figures.evidence import Evidence, title
from recloss.metrics import metric_name, parse_metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Metric against K"
CAPTION = (
    "Test metric of each selected configuration at every cut-off K, mean over the confirmation seeds "
    "{confirm_seeds}.{grey} Configurations were selected by validation {metric} alone, so other cut-offs do not "
    "show the best that a loss could do there. Standard deviations are in the table."
)


def draw(evidence: Evidence) -> "Figure | None":
    """A line per loss over the cut-offs that were measured."""
    kind, _ = parse_metric(evidence.metric)
    lines = {
        place: [
            (
                cell,
                {
                    k: v
                    for k in evidence.cutoffs(cell)
                    if (v := evidence.tested(cell, metric_name(kind, k))) is not None
                },
            )
            for cell in group
        ]
        for place, group in evidence.panels.items()
    }
    places = [place for place, found in lines.items() if any(len(line) > 1 for _, line in found)]
    if not places:
        return None
    looks = style.looks(evidence)
    figure, panels = style.grid(places, height=style.panel_height(max(len(lines[place]) for place in places)))
    for place, axes in panels.items():
        shown = [(cell, line, style.look_of(cell, looks)) for cell, line in lines[place] if line]
        for cell, line, look in shown:
            axes.plot(list(line), list(line.values()), gid=cell.loss, **look())
        style.log_ticks(axes.xaxis, [k for _, line, _ in shown for k in line])
        axes.set_title(style.panel_title(evidence.panels[place][0]))
        axes.set_xlabel("K (log scale)")
        axes.set_ylabel(f"test {title(metric_name(kind, 0)).split('@')[0]}@K")
        style.name_ends(axes, [(*list(line.items())[-1], cell.loss_title, look) for cell, line, look in shown])
    return figure
