"""Small pieces of text of the reports: metrics, percents, settings, tables whose columns stand under each other."""

from collections.abc import Iterable, Mapping

from pipelines.papers.inside import INSIDE
from pipelines.report.markdown import escape

_TITLES = {"ndcg": "NDCG", "mrr": "MRR", "hit_rate": "HitRate", "epoch_seconds": "Seconds per epoch, relative"}


def metric_title(metric: str) -> str:
    """``NDCG@20``."""
    if metric in INSIDE:
        return INSIDE[metric][0]
    if metric in _TITLES:
        return _TITLES[metric]
    name, _, k = metric.rpartition("_")
    return f"{_TITLES.get(name, name.capitalize())}@{k}"


def percent(share: float | None) -> str:
    """``+1.2 %``; ``--`` where there is none."""
    return "--" if share is None else f"{100 * share:+.1f} %"


def settings_text(configuration: Mapping[str, str], given: Iterable[str]) -> str:
    """Of a configuration the settings that the paper gives or that were searched."""
    text = ", ".join(f"{key}={configuration[key]}" for key in sorted(given) if key in configuration)
    return f"`{text}`" if text else ""


class Grid:
    """A Markdown table that is also read as plain text.

    Attributes:
        rows: its cells, escaped.
    """

    def __init__(self, headings: list[str], sides: str) -> None:
        """``sides`` has a letter per column: l for left, anything else for right."""
        self.headings, self.left = headings, [side == "l" for side in sides]
        self.rows: list[list[str]] = []

    def add(self, *cells: str) -> None:
        """A row; bold text and code stay so."""
        self.rows.append([cell if cell.startswith(("**", "`")) else escape(cell) for cell in cells])

    @property
    def lines(self) -> list[str]:
        """The table; nothing where it has no rows."""
        if not self.rows:
            return []
        widths = [max(len(row[i]) for row in (self.headings, *self.rows)) for i in range(len(self.headings))]
        rule = [":" + "-" * (w - 1) if left else "-" * (w - 1) + ":" for w, left in zip(widths, self.left, strict=True)]
        return [self._line(cells, widths) for cells in (self.headings, rule, *self.rows)]

    def _line(self, cells: list[str], widths: list[int]) -> str:
        padded = [
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(cells, widths, self.left, strict=True)
        ]
        return f"| {' | '.join(padded)} |"
