"""The tables as Markdown: best bold, second underlined."""

import re
from collections.abc import Iterable

from pipelines.report.in_words import by_question, ranking_lines
from pipelines.report.report import Report
from pipelines.report.selected import Selected
from pipelines.report.table import Score, Table

_MARKS = {"best": "**{}**", "second": "<u>{}</u>", "": "{}"}
_UNITS = "{} are the paired unit: their scores are averaged over the confirmation seeds first."
_SPECIAL = re.compile(r"[\\`*_\[\]|~$]")


def markdown(report: Report) -> str:
    """The comparison table with its footnotes, the selected configurations, and what they cost."""
    selected = report.selected
    lines = [f"# {escape(report.table.sweep)}", "", summary(report).rstrip(), "", "## Selected configurations", ""]
    lines.append(_row(["Data", "Backbone", "Loss", "Selected", "Validation", "Points", "Failed", "s/trial"]))
    lines.append(_row([":--"] * 4 + ["--:"] * 4))
    lines += [_row(_selected(s)) for s in selected]
    told = [f"- {escape(f'{s.data}, {s.backbone}, {s.loss}: {note}')}" for s in selected for note in s.notes]
    lines += ["", "Of the search:", "", *told] if told else []
    lines += _statistics(report)
    known = [s for s in selected if s.cost]
    if known:
        lines += [
            "",
            "## Cost",
            "",
            "Of search and confirmation; failed and pruned trials count, test scoring does not.",
            "",
        ]
        lines.append(_row(["Data", "Backbone", "Loss", "Trials", "Hours", "CPU hours", "GPU hours", "Peak GB"]))
        lines.append(_row([":--"] * 3 + ["--:"] * 5))
        lines += [_row(_cost(s)) for s in known]
    return "\n".join(lines) + "\n"


def summary(report: Report) -> str:
    """The comparison table alone, between how its numbers came about and its footnotes."""
    table = report.table
    legend = [escape(line).format(best="**bold**", second="<u>underlined</u>") for line in table.legend]
    lines = [*(f"- {line}" for line in [*map(escape, table.header), *legend]), "", *_comparison(table), ""]
    lines += [f"<sup>{number}</sup> {escape(note)}<br>" for number, note in enumerate(table.notes, start=1)]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text that Markdown and HTML show as it is."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\g<0>", text)


def _comparison(table: Table) -> list[str]:
    columns = [(escape(c.data), escape(c.backbone_title), escape(c.metric_title)) for c in table.columns]
    lines = [_row(["Loss", *("<br>".join(column) for column in columns)]), _row([":--"] + ["--:"] * len(columns))]
    for family, rows in table.families:
        lines += [_row([f"*{escape(family)}*", *[""] * len(columns)])] if len(table.families) > 1 else []
        lines += [_row([escape(row.title), *(_score(score) for score in row.scores)]) for row in rows]
    if table.improvements:
        shown = [("--" if i.percent is None else f"{i.percent:+.2f}", i.notes) for i in table.improvements]
        lines.append(_row(["Imp.%", *(text + _notes(notes) for text, notes in shown)]))
    return lines


def _statistics(report: Report) -> list[str]:
    lines: list[str] = []
    for heading, sentences in by_question(report.comparisons, report.table.units):
        lines += ["", f"### {escape(heading)}", "", *(f"- {escape(sentence)}" for sentence in sentences)]
    for ranking in report.rankings:
        first, *others = ranking_lines(ranking)
        lines += ["", f"### {escape(first)}", "", *(f"- {escape(line)}" for line in others)]
    if report.uncompared:
        lines += ["", "Not compared:", "", *(f"- {escape(line)}" for line in report.uncompared)]
    return ["", "## Statistics", "", escape(_UNITS.format(report.table.units.capitalize())), *lines] if lines else []


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _score(score: Score) -> str:
    if score.mean is None:
        return "--" + _notes(score.notes)
    spread = "" if score.std is None else f" ±{score.std:.4f}"
    star = r"\*" if score.significant else ""
    return _MARKS[score.mark].format(f"{score.mean:.4f}") + star + spread + _notes(score.notes)


def _notes(notes: tuple[int, ...]) -> str:
    return "".join(f" <sup>{number}</sup>" for number in notes)


def _selected(s: Selected) -> list[str]:
    value = "--" if s.value is None else f"{s.value:.4f}"
    seconds = "--" if s.seconds is None else f"{s.seconds:.1f}"
    names = [escape(name) for name in (s.data, s.backbone, s.loss, s.params or "--")]
    return [*names, value, str(s.points), str(s.failed), seconds]


def _cost(s: Selected) -> list[str]:
    assert s.cost is not None
    hours = [f"{value:.3f}" for value in (s.cost.hours, s.cost.cpu_hours, s.cost.gpu_hours)]
    return [*map(escape, (s.data, s.backbone, s.loss)), str(s.cost.trials), *hours, f"{s.cost.peak_gb:.2f}"]
