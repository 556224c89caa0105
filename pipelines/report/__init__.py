"""Comparison tables of a sweep, from what the tracking store holds and nothing else."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import RenderableType

from pipelines.report.long import cost_csv, seeds_csv, table_csv
from pipelines.report.markdown import markdown
from pipelines.report.selected import Selected, selected_configurations
from pipelines.report.table import Table, build_table
from pipelines.report.terminal import terminal
from pipelines.tracking import Results
from recloss.errors import InputError, choices

__all__ = ["FORMATS", "Selected", "Table", "build_table", "selected_configurations", "show", "write_report"]

FORMATS: dict[str, dict[str, Callable[[Table, list[Selected]], str]]] = {
    "md": {"table.md": markdown},
    "csv": {
        "table.csv": lambda table, _: table_csv(table),
        "seeds.csv": lambda table, _: seeds_csv(table),
        "cost.csv": lambda _, selected: cost_csv(selected),
    },
}
"""Format to its files."""


def show(results: Results, metrics: Sequence[str] | None = None, mix_fingerprints: bool = False) -> RenderableType:
    """The tables for a rich console.

    Raises:
        InputError: see `build_table`.
    """
    table = build_table(results, metrics, mix_fingerprints)
    return terminal(table, selected_configurations(results, mix_fingerprints))


def write_report(
    results: Results,
    out: Path,
    formats: Sequence[str],
    metrics: Sequence[str] | None = None,
    mix_fingerprints: bool = False,
) -> list[Path]:
    """Write the tables into a folder, each file in one step.

    Args:
        results: what the tracking store holds.
        out: the folder; made where it is missing.
        formats: of `FORMATS`.
        metrics: see `build_table`.
        mix_fingerprints: see `build_table`.

    Raises:
        InputError: for an unknown format, a folder that cannot be written, and see `build_table`.
    """
    for name in formats:
        if name not in FORMATS:
            raise InputError(choices("format", name, FORMATS))
    table = build_table(results, metrics, mix_fingerprints)
    selected = selected_configurations(results, mix_fingerprints)
    files = {file: render(table, selected) for name in formats for file, render in FORMATS[name].items()}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            temporary = out / f".{file}.tmp"
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, out / file)
    except OSError as error:
        raise InputError(f"{out}: the report cannot be written ({error.strerror})") from None
    return [out / file for file in files]
