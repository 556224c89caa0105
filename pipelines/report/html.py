"""A report as one HTML page that needs nothing beside itself: no network, no other file.

Text of the results is text on the page, whatever it holds: the template escapes it, control characters and marks of
direction are removed, and the page's own policy lets no script run but the page's. Figures are images of data: an SVG
in one can neither run a script nor reach the page.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from pipelines.report.cells import FINGERPRINT_DIGITS
from pipelines.report.environment import environments
from pipelines.report.facts import CellFacts, cell_facts
from pipelines.report.failed import failures
from pipelines.report.in_words import by_question, ranking_lines
from pipelines.report.ranks import MIN_DATA
from pipelines.report.report import Report
from pipelines.report.table import Column
from pipelines.settings import REFERENCE
from recloss.errors import plain

UNKNOWN = "unknown"
"""Commit of code outside a checkout."""
_PAGE = Path(__file__).parent / "page"


@dataclass(frozen=True)
class Block:
    """The part of the comparison table that is of one data set."""

    data: str
    fingerprint: str
    columns: tuple[tuple[int, Column], ...]
    """With the index of each in the table."""

    @property
    def backbones(self) -> list[tuple[str, int]]:
        """Titles, with the number of columns of each."""
        return [(name, len(list(group))) for name, group in groupby(c.backbone_title for _, c in self.columns)]

    @property
    def starts(self) -> set[int]:
        """Indices of the first column of each backbone."""
        before = [None, *(c.backbone for _, c in self.columns)]
        return {index for (index, c), last in zip(self.columns, before, strict=False) if c.backbone != last}


def html(report: Report) -> str:
    """The page of a report; equal reports make equal pages."""
    import jinja2
    from markupsafe import Markup, escape

    style, script = ((_PAGE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    jinja = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_on_one_line,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters |= {
        "json": lambda content: Markup(escape(json.dumps(content, indent=2))),
        "image": _image,
        "fixed": lambda value, digits: "--" if value is None else f"{value:.{digits}f}",
    }
    cells = cell_facts(report)
    trials = report.results.trials
    marks = {"best": Markup("<b>bold</b>"), "second": Markup("<u>underlined</u>")}
    return jinja.get_template("page.html.j2").render(
        report=report,
        table=report.table,
        settings=report.results.settings,
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        latest=_latest(report),
        blocks=list(_blocks(report)),
        legend=[Markup(escape(line)).format(**marks) for line in report.table.legend],
        backbones=list(dict.fromkeys(c.backbone_title for c in report.table.columns)),
        metrics=list(dict.fromkeys((c.metric, c.metric_title) for c in report.table.columns)),
        cells=cells,
        cells_of=[(data, list(group)) for data, group in groupby(cells, key=lambda cell: cell.selected.data)],
        gpus=any(cell.selected.cost and cell.selected.cost.gpu_hours for cell in cells),
        anchors=_anchors(cells),
        failures=failures(trials),
        environments=environments(trials),
        commits=sorted({t.environment.get("git_commit", UNKNOWN) for t in trials} - {UNKNOWN}),
        data_names={t.fingerprint: t.data for t in trials},
        statistics=_statistics(report),
        rankings=_rankings(report),
        digits=FINGERPRINT_DIGITS,
    )


def _selecting(report: Report) -> str:
    """The metric that most of the sweep is about: that which selected, or the table's first."""
    shown = [column.metric for column in report.table.columns]
    selecting = [s.metric.removeprefix("valid/") for s in report.results.selections.values()]
    return next((metric for metric in selecting if metric in shown), shown[0])


def _statistics(report: Report) -> list[tuple[str, list[str], bool]]:
    """Comparisons in words: heading, sentences, and whether they are shown at once; the metric that selected first."""
    selecting = _selecting(report)
    compared = sorted(report.comparisons, key=lambda c: c.metric != selecting)
    shown = {(c.metric, c.question) for c in compared[:1]}
    return [
        (*question, kind in shown)
        for kind, group in groupby(compared, key=lambda c: (c.metric, c.question))
        for question in by_question(group, report.table.units)
    ]


def _rankings(report: Report) -> list[list[str]]:
    """Rankings across data sets in words, a list of lines per backbone; none of one data set."""
    if len({column.data for column in report.table.columns}) < MIN_DATA:
        return []
    return [ranking_lines(ranking) for ranking in report.rankings if ranking.metric == _selecting(report)]


def _on_one_line(value: Any) -> Any:
    """What is written into the page: text without control characters, numbers and markup as they are."""
    return plain(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _policy(style: str, script: str) -> str:
    """Content security policy: this style, this script, images of data, and nothing else."""
    style, script = (base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in (style, script))
    allowed = f"style-src 'sha256-{style}'; script-src 'sha256-{script}'; img-src data:"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _image(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _latest(report: Report) -> str:
    """Day on which the latest trial ended, or began where it has not ended."""
    times = [trial.end or trial.start for trial in report.results.trials]
    return datetime.fromtimestamp(max(times), UTC).date().isoformat() if times else ""


def _blocks(report: Report) -> Iterator[Block]:
    columns = enumerate(report.table.columns)
    for (data, fingerprint), group in groupby(columns, key=lambda column: (column[1].data, column[1].fingerprint)):
        yield Block(data, fingerprint, tuple(group))


def _anchors(cells: list[CellFacts]) -> dict[tuple[str, str, str], str]:
    """Where a score's cell is on the page, by data set, backbone and loss as a column and a row name them.

    A reference has one cell for all backbones of its data set.
    """
    anchors = {cell.names: cell.anchor for cell in cells}
    backbones = dict.fromkeys(backbone for _, backbone, _ in anchors)
    of_references = {
        (data, backbone, loss): anchor
        for (data, own, loss), anchor in anchors.items()
        if own == REFERENCE
        for backbone in backbones
    }
    return of_references | anchors
