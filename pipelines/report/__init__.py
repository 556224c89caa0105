"""Reports of a sweep, from what the tracking and artifact stores hold and nothing else."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.report.figures import Evidence, svg_figures, write_figures
from pipelines.report.html import html
from pipelines.report.in_words import significance_csv
from pipelines.report.latex import latex
from pipelines.report.long import cost_csv, seeds_csv, table_csv
from pipelines.report.markdown import markdown
from pipelines.report.outcome import log_outcome
from pipelines.report.report import Report, build_report, make_report
from pipelines.report.selected import Selected, selected_configurations
from pipelines.report.table import Table, build_table
from pipelines.report.terminal import terminal as show
from pipelines.report.wide import wide_csv
from recloss.errors import InputError, choices

__all__ = [
    "AT_THE_END", "FORMATS", "Report", "Selected", "Table", "build_report", "build_table", "check_formats",
    "log_outcome", "make_report", "selected_configurations", "show", "write_report",
]  # fmt: skip


@dataclass(frozen=True)
class Format:
    """A form of the report."""

    about: str
    """What it is good for, in a few words."""
    files: dict[str, Callable[[Report], str]]
    """Those of fixed names; of figures, which there are depends on the sweep."""


FORMATS = {
    "md": Format("the tables", {"table.md": markdown}),
    "csv": Format(
        "unrounded numbers",
        {
            "table.csv": table_csv,
            "table_wide.csv": wide_csv,
            "seeds.csv": seeds_csv,
            "cost.csv": cost_csv,
            "significance.csv": lambda report: significance_csv(report.comparisons),
        },
    ),
    "tex": Format("LaTeX, for a paper", {"table.tex": latex}),
    "html": Format("one page for a browser, which sorts and filters", {"report.html": html}),
    "figures": Format("PNG and SVG", {}),
}
"""Forms of the report, by the name that a user gives."""

AT_THE_END = ("md", "csv", "html")
"""Forms that a sweep writes when it is complete: those that take no time; the page has no figures then."""


def check_formats(formats: Sequence[str]) -> None:
    """Refuse a format that there is not.

    Raises:
        InputError: naming the nearest and all there are.
    """
    for name in formats:
        if name not in FORMATS:
            raise InputError(choices("format", name, FORMATS))


def write_report(report: Report, out: Path, formats: Sequence[str]) -> list[Path]:
    """Write the report into a folder, each file in one step.

    Args:
        report: from `make_report`.
        out: the folder; made where it is missing.
        formats: of `FORMATS`.

    Raises:
        InputError: for an unknown format, or a folder that cannot be written.
    """
    check_formats(formats)
    if "html" in formats and report.evidence is not None:
        report = replace(report, figures=svg_figures(report.evidence))
    files = {file: render(report) for name in formats for file, render in FORMATS[name].files.items()}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            temporary = out / f".{file}.tmp"
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, out / file)
    except OSError as error:
        raise InputError(f"{out}: the report cannot be written ({error.strerror})") from None
    drawn = write_figures(report.evidence or Evidence(report.results), out) if "figures" in formats else []
    return [*(out / file for file in files), *drawn]
