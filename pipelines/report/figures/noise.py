"""Test metric over the ratio of noise in the training data."""

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.report.cells import Cell
from pipelines.report.figures import style
from pipelines.report.figures.evidence import Evidence
from pipelines.settings import PrepareSettings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Metric over the ratio of noise"
CAPTION = (
    "Test {metric} of data sets that differ in nothing but the ratio of noise put into the training split, mean over "
    "the confirmation seeds {confirm_seeds}.{grey} Hyper-parameters were selected anew at each ratio, on validation "
    "data without added noise; noise of this artificial kind need not be like that of real logs."
)

Series = dict[float, list[Cell]]
"""The cells of a backbone on data sets that differ in nothing but this ratio, ascending."""


def draw(evidence: Evidence) -> "Figure | None":
    """A panel per kind of noise in one log, and backbone; a line per loss."""
    found = [one for one in series(evidence) if len(one[1]) > 1]
    if not found:
        return None
    looks = style.looks(evidence)
    lines = [_lines(evidence, cells) for _, cells in found]
    figure, panels = style.grid(
        [(number, 0) for number in range(len(found))], height=style.panel_height(max(map(len, lines)))
    )
    for number, axes in enumerate(panels.values()):
        kind, cells = found[number]
        for cell, line in lines[number]:
            axes.plot(list(line), list(line.values()), gid=cell.loss, **style.look_of(cell, looks)())
        first = next(iter(cells.values()))[0]
        axes.set_title(style.panel_title(first))
        axes.set_xticks(list(cells), [f"{100 * ratio:g}" for ratio in cells])
        axes.set_xlabel(f"noise: {kind.replace('_', ' ')} (% of training pairs)")
        axes.set_ylabel(f"test {evidence.metric_title}")
        ends = [(*list(line.items())[-1], c.loss_title, style.look_of(c, looks)) for c, line in lines[number] if line]
        style.name_ends(axes, ends)
    return figure


def series(evidence: Evidence) -> list[tuple[str, Series]]:
    """By kind of noise, backbone and everything else in the manifest; the data without noise belongs to each kind."""
    clean: dict[tuple[str, str], list[Cell]] = {}
    noisy: dict[tuple[str, str, str], Series] = defaultdict(dict)
    for (_, backbone), group in evidence.panels.items():
        manifest = evidence.results.manifests.get(group[0].column_fingerprint)
        if manifest is None:
            continue
        settings = _content(manifest["settings"])
        noise = dict(settings.pop("noise") or {})
        ratio = noise.pop("ratio") if noise else 0.0
        same = json.dumps([settings, manifest["sources"]], sort_keys=True)
        if noise:
            noisy[same, json.dumps(noise, sort_keys=True), backbone][ratio] = group
        else:
            clean[same, backbone] = group
    found = []
    for (same, kind, backbone), cells in noisy.items():
        none = {0.0: clean[same, backbone]} if (same, backbone) in clean else {}
        found.append((json.loads(kind)["kind"], dict(sorted((none | cells).items()))))
    return found


def _content(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those that a manifest does not state are at their defaults."""
    return PrepareSettings().content() | dict(settings)


def _lines(evidence: Evidence, cells: Series) -> list[tuple[Cell, dict[float, float]]]:
    lines: dict[str, tuple[Cell, dict[float, float]]] = {}
    for ratio, group in cells.items():
        for cell in group:
            if (value := evidence.tested(cell, evidence.metric)) is not None:
                lines.setdefault(cell.loss, (cell, {}))[1][ratio] = value
    return list(lines.values())
