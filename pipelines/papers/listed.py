"""What `recloss paper list` shows."""

from pathlib import Path

from pipelines.papers import sources
from pipelines.papers.catalogue import Preset, load_all


def listed(spaces: Path | None) -> list[str]:
    """A paragraph per experiment, and what the words for data mean."""
    lines: list[str] = []
    paper = ""
    for preset in load_all(spaces):
        if preset.paper.title != paper:
            paper = preset.paper.title
            lines += [*([""] if lines else []), paper]
        lines += [f"  {preset.id}", f"    {preset.own.title}"]
        lines += ["    a simulation: 'recloss paper report' makes it"] if preset.own.simulation else _runnable(preset)
    return [
        *lines,
        "",
        "ready: the raw files are here. fetch: a run downloads them. data missing: get them, put them into the folder",
        f"that {sources.FOLDER} names or give --raw NAME=PATH. To run one: recloss paper run PAPER/EXPERIMENT",
    ]


def _runnable(preset: Preset) -> list[str]:
    by_state: dict[str, list[str]] = {}
    for name in preset.run.data:
        by_state.setdefault(sources.state(preset, name, {}), []).append(name)
    data = "; ".join(f"{state}: {', '.join(found)}" for state, found in by_state.items())
    reported = {row for _, _, row, _ in preset.reported}
    shown = [
        v.row for v in preset.variants() if v.row not in preset.run.extra and (not reported or v.label in reported)
    ]
    rows = ", ".join(dict.fromkeys(shown))
    vary = preset.run.vary
    varied = f", each at {vary.name} = {', '.join(f'{v:g}' for v in vary.values)}" if vary else ""
    shared = f" (the runs of {preset.paper_name}/{preset.own.runs})" if preset.own.runs else ""
    return [f"    {data}", f"    {', '.join(preset.backbones)}: {rows}{varied}{shared}"]
