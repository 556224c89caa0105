"""The tables as Markdown: best bold, second underlined."""

import re
from collections.abc import Iterable

from pipelines.report.selected import Selected
from pipelines.report.table import Score, Table

_MARKS = {"best": "**{}**", "second": "<u>{}</u>", "": "{}"}
_SPECIAL = re.compile(r"[\\`*_\[\]|~$]")


def markdown(table: Table, selected: list[Selected]) -> str:
    """The comparison table with its footnotes, and the selected configurations."""
    lines = [f"# {escape(table.sweep)}", "", *(f"- {escape(line)}" for line in table.header)]
    lines += ["- best **bold**, second <u>underlined</u>, by unrounded mean", ""]
    columns = [(escape(c.data), escape(c.backbone_title), escape(c.metric_title)) for c in table.columns]
    lines.append(_row(["Loss", *("<br>".join(column) for column in columns)]))
    lines.append(_row([":--"] + ["--:"] * len(columns)))
    lines += [_row([escape(row.title), *(_score(score) for score in row.scores)]) for row in table.rows]
    if table.improvements:
        shown = [("--" if i.percent is None else f"{i.percent:+.2f}", i.notes) for i in table.improvements]
        lines.append(_row(["Imp.%", *(text + _notes(notes) for text, notes in shown)]))
    lines.append("")
    lines += [f"<sup>{number}</sup> {escape(note)}<br>" for number, note in enumerate(table.notes, start=1)]
    lines += ["", "## Selected configurations", ""]
    lines.append(_row(["Data", "Backbone", "Loss", "Selected", "Validation", "Points", "Failed", "s/trial"]))
    lines.append(_row([":--"] * 4 + ["--:"] * 4))
    lines += [_row(_selected(s)) for s in selected]
    told = [f"- {escape(f'{s.data}, {s.backbone}, {s.loss}: {note}')}" for s in selected for note in s.notes]
    lines += ["", "Of the search:", "", *told] if told else []
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


def escape(text: str) -> str:
    """Text that Markdown and HTML show as it is."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\g<0>", text)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _score(score: Score) -> str:
    if score.mean is None:
        return "--" + _notes(score.notes)
    spread = "" if score.std is None else f" ±{score.std:.4f}"
    return _MARKS[score.mark].format(f"{score.mean:.4f}") + spread + _notes(score.notes)


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
