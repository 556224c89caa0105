"""The tables as a terminal shows them: best bold, second underlined."""

from itertools import groupby

from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from pipelines.report.report import Report
from pipelines.report.selected import Selected
from pipelines.report.table import Improvement, Score, Table

_COLUMNS_PER_GRID = 4
"""So that 100 characters hold a grid without breaking a number."""
_STYLES = {"best": "bold", "second": "underline", "": ""}


def terminal(report: Report) -> RenderableType:
    """Grids per data set, the footnotes, and the selected configurations. Text is never read as markup."""
    table, selected = report.table, report.selected
    parts: list[RenderableType] = [Text(f"sweep {table.sweep}", "bold")]
    legend = [line.format(best="bold", second="underlined") for line in table.legend]
    parts += [Text(line, "dim") for line in (*table.header, *_families(table), *legend)]
    for data, group in groupby(range(len(table.columns)), key=lambda index: table.columns[index].data):
        indices = list(group)
        for first in range(0, len(indices), _COLUMNS_PER_GRID):
            parts += [Text(""), _comparison(table, data, indices[first : first + _COLUMNS_PER_GRID])]
    parts += [Text(f"[{number}] {note}") for number, note in enumerate(table.notes, start=1)]
    for data, cells in groupby(selected, key=lambda cell: cell.data):
        parts += [Text(""), _selected(data, list(cells))]
    parts += [Text(f"{s.data}, {s.backbone}, {s.loss}: {note}") for s in selected for note in s.notes]
    return Group(*parts)


def _families(table: Table) -> list[str]:
    """The names of the sections, for which the grid has no place."""
    named = [f"{family} ({', '.join(row.title for row in rows)})" for family, rows in table.families]
    return [f"rows by family: {'; '.join(named)}"] if len(named) > 1 else []


def _comparison(table: Table, data: str, indices: list[int]) -> Grid:
    grid = Grid(title=Text(data, "bold"), title_justify="left")
    grid.add_column("Loss")
    for index in indices:
        column = table.columns[index]
        heading = Text(f"{column.backbone_title}\n{column.metric_title}")
        grid.add_column(heading, justify="right")
    for _, rows in table.families:
        grid.add_section()
        for row in rows:
            grid.add_row(Text(row.title), *(_score(row.scores[index]) for index in indices))
    if table.improvements:
        grid.add_section()
        grid.add_row("Imp.%", *(_improvement(table.improvements[index]) for index in indices))
    return grid


def _score(score: Score) -> Text:
    if score.mean is None:
        return _noted("--", score.notes)
    spread = "" if score.std is None else f" ±{score.std:.4f}"
    star = "*" if score.significant else ""
    return Text.assemble((f"{score.mean:.4f}", _STYLES[score.mark]), star, _noted(spread, score.notes))


def _improvement(improvement: Improvement) -> Text:
    percent = improvement.percent
    return _noted("--" if percent is None else f"{percent:+.2f}", improvement.notes)


def _noted(text: str, notes: tuple[int, ...]) -> Text:
    return Text(text + "".join(f" [{number}]" for number in notes))


def _selected(data: str, selected: list[Selected]) -> Grid:
    grid = Grid(title=Text(f"{data}: selected configurations", "bold"), title_justify="left")
    for heading in ("Backbone", "Loss", "Selected"):
        grid.add_column(heading, overflow="fold")
    for heading in ("Validation", "Points", "Failed", "s/trial"):
        grid.add_column(heading, justify="right")
    for s in selected:
        value = "--" if s.value is None else f"{s.value:.4f}"
        seconds = "--" if s.seconds is None else f"{s.seconds:.1f}"
        texts = (s.backbone, s.loss, s.params or "--", value, str(s.points), str(s.failed), seconds)
        grid.add_row(*(Text(text) for text in texts))
    return grid
