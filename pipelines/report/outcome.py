"""A complete sweep's report in MLflow: the main table, the cells' test scores, and descriptions of runs."""

from pipelines.report.markdown import escape, summary
from pipelines.report.report import Report
from pipelines.report.selected import Selected
from pipelines.report.table import REFERENCES, Score, Table
from pipelines.settings import REFERENCE
from pipelines.tracking import record_outcome

_LONGEST = 7500
"""Characters of a description that MLflow surely takes."""


def log_outcome(uri: str, report: Report) -> None:
    """Log the main table to the sweep's run, and to those of its cells their mean test scores.

    Raises:
        InputError: if the tracking store does not answer.
    """
    descriptions: dict[tuple[str, ...], str] = {s.names: _of_cell(s) for s in report.selected}
    text = summary(report)
    if len(text) > _LONGEST:
        text = f"The main table is in the artifacts. As a page: `recloss report --experiment {report.table.sweep}`\n"
    descriptions[()] = text
    record_outcome(uri, report.results, _columns(report.table), _scores(report.table), descriptions)


def _columns(table: Table) -> dict[str, list[str]]:
    """The table as it is printed, without marks."""
    lines = [[row.family, row.title, *map(_score, row.scores)] for row in table.rows]
    if table.improvements:
        lines.append(["", "Imp.%", *("--" if i.percent is None else f"{i.percent:+.2f}" for i in table.improvements)])
    names = [f"{c.data} | {c.backbone_title} | {c.metric_title}" for c in table.columns]
    return {name: [line[index] for line in lines] for index, name in enumerate(["Family", "Loss", *names])}


def _score(score: Score) -> str:
    if score.mean is None:
        return "--"
    return f"{score.mean:.4f}{'*' * score.significant}" + ("" if score.std is None else f" ±{score.std:.4f}")


def _scores(table: Table) -> dict[tuple[str, ...], dict[str, float]]:
    """By cell; of what is not complete nothing."""
    found: dict[tuple[str, ...], dict[str, float]] = {}
    for row in table.rows:
        for c, score in zip(table.columns, row.scores, strict=True):
            if score.complete and score.mean is not None:
                backbone = REFERENCE if row.family == REFERENCES else c.backbone
                spread = {} if score.std is None else {f"test/{c.metric}_std": score.std}
                found.setdefault((c.data, backbone, row.loss), {}).update({f"test/{c.metric}": score.mean} | spread)
    return found


def _of_cell(s: Selected) -> str:
    chosen = (
        f"Selected of {s.points} configurations: {escape(s.params) or 'the only one'}." if s.value is not None else ""
    )
    lines = [f"{escape(s.loss)} on {escape(s.backbone)}, data set {escape(s.data)}.", chosen]
    lines += ["Metrics `test/...` are means over the confirmation seeds."] + [f"- {escape(note)}" for note in s.notes]
    return "\n".join(filter(None, lines))[:_LONGEST]
