"""The report of an experiment as Markdown, from the tracking and artifact stores alone."""

import os
import shlex
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipelines.papers import sources
from pipelines.papers.catalogue import Preset, load
from pipelines.papers.compare import APART, Line
from pipelines.papers.deviations import deviations
from pipelines.papers.inconsistency import simulated
from pipelines.papers.measured import EPOCH_SECONDS, MeasuredExperiment, read_experiment
from pipelines.papers.order import Order, Turned, orders
from pipelines.papers.shown import Grid, metric_title, percent, settings_text
from pipelines.papers.sweeps import Hyper, loss_settings
from pipelines.report.environment import environments
from pipelines.report.markdown import escape
from pipelines.report.paired import shown_p
from pipelines.settings import TASKS
from pipelines.tracking import TrialRun
from recloss.errors import InputError

MARK = "<!-- recloss paper report"
"""How a file starts that may be written over."""


def write(text: str, out: Path) -> None:
    """Write a report, over another report only, in one step.

    Raises:
        InputError: if the file is something else, or cannot be written.
    """
    try:
        if out.exists() and not out.read_text(encoding="utf-8", errors="replace").startswith(MARK):
            raise InputError(f"{out}: is there and is no report of 'recloss paper report', so it is not written over")
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = out.with_name(f".{out.name}.tmp")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, out)
    except OSError as error:
        raise InputError(f"{out}: the report cannot be written ({error.strerror})") from None


def experiment_report(uri: str, name: str, hyper: Hyper, raw: Mapping[str, Path], spaces: Path | None) -> str:
    """The report of one experiment.

    Raises:
        InputError: an unknown experiment, or a store that does not answer.
    """
    preset = load(name, spaces)
    sources.check_given(preset, raw)
    head = [
        [f"{MARK} {preset.id} -->", f"# {escape(f'{preset.paper.title}, {preset.own.title}')}"],
        [f"What the paper shows: {escape(preset.own.shows)}."],
    ]
    if preset.own.simulation:
        return _joined([*head, simulated(preset)])
    experiment = read_experiment(uri, preset, hyper, raw, spaces)
    lines = experiment.lines
    found = orders(experiment, lines)
    parts = [
        *head,
        _outcome(preset, lines, found),
        [f"- {escape(finding)}" for finding in preset.own.findings],
        _commands(experiment),
        *(_table(experiment, data, backbone, lines, found) for data, backbone in measured_places(lines)),
        _over_epochs(experiment),
        _not_measured(preset, lines),
        _how(experiment),
        _deviations(experiment, spaces),
    ]
    return _joined(parts)


def _joined(parts: list[list[str]]) -> str:
    """Blocks of lines with an empty line between them."""
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def measured_places(lines: list[Line]) -> list[tuple[str, str]]:
    """Data sets and backbones of which something is measured."""
    return list(dict.fromkeys((line.data, line.backbone) for line in lines if line.measured))


def _outcome(preset: Preset, lines: list[Line], found: list[Order]) -> list[str]:
    """What reproduces, in two sentences."""
    judged = [line for line in lines if line.within is not None]
    pairs, turned = sum(len(order.pairs) for order in found), [t for order in found for t in order.turned]
    if not any(line.measured for line in lines):
        return ["**Nothing is measured yet.**"]
    said = []
    if judged:
        within = sum(line.within is True for line in judged)
        target = f"{preset.own.tolerance:.0%} of the reported ones"
        said.append(f"**{within} of {len(judged)} measured numbers with a target are within {target}.**")
    if pairs:
        significant = sum(t.significant for t in turned)
        kept = f"{pairs - len(turned)} of {pairs} pairs that are reported more than {APART:.0%} apart"
        others = f" Of the {len(turned)} others {significant} differ significantly." if turned else ""
        said.append(f"**The order of {kept} is the same.**{others}")
    return [" ".join(said)] if said else ["There is no target and no order to compare."]


def _commands(experiment: MeasuredExperiment) -> list[str]:
    """What was run, data sets of which the same was run together."""
    preset = experiment.preset
    ran = [cell for cell in experiment.cells if cell.trials]
    data_of: dict[str, list[str]] = {}
    for data in dict.fromkeys(cell.sweep.data for cell in ran):
        mine = [cell for cell in ran if cell.sweep.data == data]
        backbones = ",".join(dict.fromkeys(cell.sweep.backbone for cell in mine))
        seeds = max((cell.seeds for cell in mine), default=0)
        rows = [row for row in (*preset.run.rows, *preset.run.extra) if any(c.variant.row == row for c in mine)]
        reported = {cell.variant.row for cell in experiment.cells if cell.sweep.data == data} - set(preset.run.extra)
        losses = [] if set(rows) == reported else ["--losses", shlex.quote(",".join(rows))]
        options = [f"--backbones {backbones}", *losses, f"--hyper {experiment.hyper} --seeds {max(seeds, 1)}"]
        data_of.setdefault(" ".join(options), []).append(data)
    run = f"recloss paper run {preset.paper_name}/{preset.run_name}"
    lines = [f"{run} --data {','.join(data)} {options}" for options, data in data_of.items()]
    search = " --hyper search" if experiment.hyper == "search" else ""
    return ["```bash", *lines, f"recloss paper report {preset.id}{search}", "```"]


def _table(
    experiment: MeasuredExperiment, data: str, backbone: str, lines: list[Line], found: list[Order]
) -> list[str]:
    preset = experiment.preset
    cells = {c.variant.label: c for c in experiment.cells if (c.sweep.data, c.sweep.backbone) == (data, backbone)}
    target = f"Within {preset.own.tolerance:.0%}" if preset.own.tolerance else "Within"
    grid = Grid(["Loss", "Metric", "Reported", "Measured", "Seeds", "Difference", target], "ll-----")
    for line in lines:
        if (line.data, line.backbone) != (data, backbone):
            continue
        digits = 2 if line.metric == EPOCH_SECONDS else 4
        reported = "--" if line.reported is None else f"{line.reported:.{digits}f}"
        if line.measured is None:
            grid.add(line.row, metric_title(line.metric), reported, line.missing, "", "", "")
            continue
        spread = "" if line.measured.std is None else f" ±{line.measured.std:.{digits}f}"
        done, wanted = len(line.measured.values), cells[line.row].seeds
        grid.add(
            line.row, metric_title(line.metric), reported, f"{line.measured.mean:.{digits}f}{spread}",
            str(done) if done == wanted else f"{done} of {wanted}", percent(line.difference), _judged(line),
        )  # fmt: skip
    told = [
        f"- {escape(label)} was run with other settings than the preset's and is not compared: "
        + "; ".join(f"`{key}` is `{found}`, not `{wanted}`" for key, (found, wanted) in sorted(cell.other.items()))
        for label, cell in cells.items()
        if cell.other
    ]
    heading = f"## {escape(preset.source(data).title)}, {backbone_title(preset, backbone)}"
    ordered = _order_lines([o for o in found if (o.data, o.backbone) == (data, backbone)])
    return [heading, "", *grid.lines, *(["", *told] if told else []), *ordered]


def _judged(line: Line) -> str:
    if line.other:
        return "other settings"
    if line.within is None:
        return "" if line.reported is None else "no target"
    return "yes" if line.within else "**no**"


def _order_lines(found: list[Order]) -> list[str]:
    if not found:
        return []
    lines = ["", f"Order of pairs that are reported more than {APART:.0%} apart:", ""]
    for order in found:
        kept = len(order.pairs) - len(order.turned)
        lines.append(f"- {metric_title(order.metric)}: {kept} of {len(order.pairs)} agree{':' if order.turned else ''}")
        lines += [f"  - {turned_text(turned)}" for turned in order.turned]
    return lines


def turned_text(turned: Turned) -> str:
    """A pair that is measured in the other order, in words."""
    pair = turned.pair
    better, worse = pair.better, pair.worse
    assert better.reported is not None
    assert worse.reported is not None
    assert better.measured is not None
    assert worse.measured is not None
    chance = "scores per user are not there" if turned.p is None else shown_p(turned.p)
    judged = "" if turned.p is None else (", significant" if turned.significant else ", not significant")
    return (
        f"{escape(better.row)} before {escape(worse.row)} ({better.reported:.4f}, {worse.reported:.4f}); measured "
        f"{better.measured.mean:.4f}, {worse.measured.mean:.4f} ({chance}{judged})"
    )


def _over_epochs(experiment: MeasuredExperiment) -> list[str]:
    """A metric of the training after 1, 2, 5, 10, ... epochs, and after the last that all seeds of any row reached."""
    preset, curves = experiment.preset, {}
    metric = preset.own.over_epochs
    for cell in experiment.cells:
        found = [h for t in cell.confirmed if (h := experiment.histories.get(t.hash, {}).get(metric or ""))]
        shared = sorted(set.intersection(*map(set, found))) if found else []
        if shared:
            title = preset.source(cell.sweep.data).title
            place = (title, backbone_title(preset, cell.sweep.backbone), cell.variant.label)
            curves[place] = {epoch: statistics.fmean(history[epoch] for history in found) for epoch in shared}
    if not curves:
        return []
    reached = sorted(set().union(*curves.values()))
    epochs = [epoch for epoch in reached if str(epoch).rstrip("0") in ("1", "2", "5") or epoch == reached[-1]]
    grid = Grid(["Data", "Backbone", "Loss", *map(str, epochs)], "lll" + "-" * len(epochs))
    for place, curve in curves.items():
        grid.add(*place, *(f"{curve[epoch]:.4f}" if epoch in curve else "--" for epoch in epochs))
    return ["## Over the epochs", "", f"`{metric}` after so many epochs, mean over the seeds:", "", *grid.lines]


def _not_measured(preset: Preset, lines: list[Line]) -> list[str]:
    """What nothing is measured of: a line for those of the same data set and reason."""
    measured = set(measured_places(lines))
    why: dict[tuple[str, str], dict[str, None]] = {}
    for line in lines:
        if (line.data, line.backbone) not in measured:
            why.setdefault((line.data, line.missing), {})[backbone_title(preset, line.backbone)] = None
    told = [
        f"- {escape(preset.source(data).title)}, {', '.join(backbones)}: {escape(missing)}"
        + (f"; get {escape(sources.how_to_get(preset, data))}" if missing == "data missing" else "")
        for (data, missing), backbones in why.items()
    ]
    return ["## Not measured", "", *told] if told else []


def _how(experiment: MeasuredExperiment) -> list[str]:
    cells = [cell for cell in experiment.cells if cell.trials]
    if not cells:
        return []
    trials = {trial.hash: trial for cell in cells for trial in cell.trials}
    started, ended = min(t.start for t in trials.values()), max(t.end or t.start for t in trials.values())
    cpu, wall = (_hours(trials.values(), kind) for kind in ("cpu_seconds", "seconds"))
    lines = [
        "## How it was run",
        "",
        f"- {len(trials)} trials: {cpu} CPU hours; {wall} hours of wall time, summed over the trials; "
        f"{(ended - started) / 3600:.2f} hours from the first start to the last end",
    ]
    for data in dict.fromkeys(cell.sweep.data for cell in cells):
        prints = dict.fromkeys(t.fingerprint[:12] for c in cells if c.sweep.data == data for t in c.trials)
        lines.append(f"- {escape(experiment.preset.source(data).title)}: fingerprint {', '.join(prints)}")
    for setting in environments(trials.values()):
        values = ", ".join(f"{escape(v)} ({n})" if setting.differs else escape(v) for v, n in setting.values)
        lines.append(f"- `{setting.name}`: {values}")
    grid = Grid(["Data", "Backbone", "Loss", "Configurations", "CPU hours", "s/epoch", "Selected"], "lll---l")
    for cell in cells:
        searched = len({frozenset(t.configuration.items()) for t in cell.trials if "grid" in t.stages})
        seconds = cell.measured(EPOCH_SECONDS)
        costs = (str(searched), _hours(cell.trials, "cpu_seconds"), f"{seconds.mean:.2f}" if seconds else "--")
        given = loss_settings(experiment.preset, cell.sweep.data, cell.sweep.backbone, cell.variant, experiment.hyper)
        selected = settings_text(cell.selection.configuration, given) if cell.selection else cell.missing
        names = (cell.sweep.data, cell.sweep.backbone, cell.variant.label)
        grid.add(*names, *costs, selected)
    return [*lines, "", *grid.lines]


def _hours(trials: Iterable[TrialRun], kind: str) -> str:
    return f"{sum(trial.cost.get(kind, 0.0) for trial in trials) / 3600:.2f}"


def _deviations(experiment: MeasuredExperiment, spaces: Path | None) -> list[str]:
    """Of what was run; of all there is where nothing was."""
    preset = experiment.preset
    ran = [cell for cell in experiment.cells if cell.trials] or list(experiment.cells)
    rows = list(dict.fromkeys(cell.variant.row for cell in ran))
    data = dict.fromkeys(cell.sweep.data for cell in ran)
    places = {"all", *rows, *(cell.sweep.backbone for cell in ran)}
    grid = Grid(["Where", "Setting", "Here", "Default", "Why"], "lllll")
    for deviation in deviations(preset, spaces):
        if deviation.where in places:
            value, default = f"`{deviation.value}`", f"`{deviation.default}`"
            grid.add(deviation.where, f"`{deviation.setting}`", value, default, deviation.why)
    notes = [*preset.own.notes, *(preset.run.notes if preset.own.runs else ())]
    notes += [f"{preset.source(name).title}: {note}" for name in data for note in preset.source(name).notes]
    notes += [f"{row}: {note}" for row in rows for note in preset.row(row).notes]
    lines = ["## Where it differs from the library's defaults", "", *grid.lines] if grid.rows else []
    return lines + (["", "What else to know:", "", *(f"- {escape(note)}" for note in notes)] if notes else [])


def backbone_title(preset: Preset, backbone: str) -> str:
    """As the papers print it."""
    return escape(TASKS[preset.run.task].backbone(backbone).title)
