"""Validation metric of the best configuration at each temperature."""

from typing import TYPE_CHECKING

from pipelines.report.figures import style
from pipelines.report.figures.evidence import Evidence

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Metric over the temperature τ"
CAPTION = (
    "Validation {metric} of the best configuration that the search found at each temperature, mean over the search's "
    "seeds {seeds}; the dotted line is SL's best.{others} Temperatures of different losses are not on one scale, each "
    "point is the best of as many configurations as were tried there, and validation values are no test results."
)


def draw(evidence: Evidence) -> "Figure | None":
    """A line per loss that tried several temperatures, and SL's best value across the panel."""
    lines = {
        place: {
            cell.loss: (cell, {tau: value for tau, (value, _) in evidence.best_of_each(cell, "loss.tau").items()})
            for cell in group
            if evidence.selected_on_it(cell)
        }
        for place, group in evidence.panels.items()
    }
    places = [place for place, found in lines.items() if any(len(line) > 1 for _, line in found.values())]
    if not places:
        return None
    looks = style.looks(evidence)
    height = style.panel_height(max(len(lines[place]) for place in places) + 1)
    figure, panels = style.grid(places, height=height)
    for place, axes in panels.items():
        shown = {loss: (cell, line) for loss, (cell, line) in lines[place].items() if line}
        for loss, (_, line) in shown.items():
            axes.plot(list(line), list(line.values()), gid=loss, **looks[loss]())
        style.log_ticks(axes.xaxis, [tau for _, line in shown.values() for tau in line])
        ends = [(*list(line.items())[-1], cell.loss_title, looks[loss]) for loss, (cell, line) in shown.items()]
        if "sl" in shown:
            best = max(shown["sl"][1].values())
            axes.axhline(best, gid="SL's best", **style.REFERENCE_LOOK())
            ends.append((axes.get_xlim()[1], best, "best of SL", style.REFERENCE_LOOK))
        axes.set_title(style.panel_title(evidence.panels[place][0]))
        axes.set_xlabel("temperature τ (log scale)")
        axes.set_ylabel(f"validation {evidence.metric_title}")
        style.name_ends(axes, ends)
    return figure
