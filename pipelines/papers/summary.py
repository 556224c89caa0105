"""One table over all experiments that have results: what reproduces, what does not."""

from pathlib import Path

from pipelines.papers.catalogue import Preset, load_all
from pipelines.papers.measured import MeasuredExperiment, read_experiment
from pipelines.papers.order import orders
from pipelines.papers.report import MARK, backbone_title, measured_places, turned_text
from pipelines.papers.shown import Grid, metric_title, percent
from pipelines.papers.sweeps import HYPERS, Hyper, sweep_name
from pipelines.report.markdown import escape
from pipelines.tracking import experiments


def summary_report(uri: str, spaces: Path | None) -> str:
    """One table over all experiments that have results.

    Raises:
        InputError: if the store does not answer.
    """
    there = set(experiments(uri))
    grid = Grid(["Experiment", "Data", "Backbone", "Losses", "Within", "Order", "Largest difference"], "lll----")
    details: list[str] = []
    findings: list[str] = []
    for preset in load_all(spaces):
        for hyper in HYPERS:
            if preset.run.simulation or not _has_results(preset, hyper, there):
                continue
            experiment = read_experiment(uri, preset, hyper, {}, spaces)
            _summarise(experiment, grid, details)
            findings += [f"- {escape(f'{preset.id}: {finding}')}" for finding in preset.own.findings]
    if not grid.rows:
        details = ["No experiment of a paper has results in this store yet."]
    else:
        heading = "Not within the target, or measured in another order with significance:"
        details = [heading, "", *(details or ["- nothing"])]
        details += ["", "What was learned:", "", *dict.fromkeys(findings)] if findings else []
    return "\n".join([f"{MARK} --summary -->", "", "# What reproduces", "", *grid.lines, "", *details]) + "\n"


def _has_results(preset: Preset, hyper: Hyper, there: set[str]) -> bool:
    places = ((data, backbone) for data in preset.run.data for backbone in preset.backbones)
    parts = {variant.part for variant in preset.variants()}
    return any(sweep_name(preset, *place, part, hyper) in there for place in places for part in parts)


def _summarise(experiment: MeasuredExperiment, grid: Grid, details: list[str]) -> None:
    preset, lines = experiment.preset, experiment.lines
    found = orders(experiment, lines)
    for data, backbone in measured_places(lines):
        there = [line for line in lines if (line.data, line.backbone) == (data, backbone)]
        mine = [line for line in there if line.reported is not None] or there
        measured = [line for line in mine if line.measured and not line.other]
        judged = [line for line in measured if line.within is not None]
        here = [order for order in found if (order.data, order.backbone) == (data, backbone)]
        pairs, turned = sum(len(order.pairs) for order in here), [t for order in here for t in order.turned]
        compared = judged or [line for line in measured if line.difference is not None]
        far = max(compared, key=lambda line: abs(line.difference or 0.0), default=None)
        largest = "--" if far is None else f"{far.row}, {metric_title(far.metric)}: {percent(far.difference)}"
        search = " (searched)" if experiment.hyper == "search" else ""
        title, model = preset.source(data).title, backbone_title(preset, backbone)
        grid.add(
            f"{preset.id}{search}", title, model, f"{len({m.row for m in measured})} of {len({m.row for m in mine})}",
            f"{sum(line.within is True for line in judged)} of {len(judged)}" if judged else "no target",
            f"{pairs - len(turned)} of {pairs}" if pairs else "--", largest,
        )  # fmt: skip
        where = f"{preset.id}{search}, {title}, {model}"
        details += [
            f"- {escape(f'{where}: {line.row}, {metric_title(line.metric)}: {percent(line.difference)}')}"
            for line in judged
            if line.within is False
        ]
        details += [f"- {escape(where)}: {turned_text(t)}" for t in turned if t.significant]
