"""The comparison table as CSV, one number a line."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from pipelines.report.report import Report


def table_csv(report: Report) -> str:
    """One line per data set, backbone, loss and metric; missing numbers are empty, a significant one has a star."""
    table = report.table
    lines = [
        (*(c.data, s.fingerprint, c.backbone, row.family, row.loss, c.metric, s.mean, s.std, len(s.values), s.mark),
         "*" if s.significant else "", "; ".join(table.notes[number - 1] for number in s.notes))
        for row in table.rows
        for c, s in zip(table.columns, row.scores, strict=True)
    ]  # fmt: skip
    head = ("data", "fingerprint", "backbone", "family", "loss", "metric", "mean", "std", "n", "mark")
    return csv_text((*head, "significant", "note"), lines)


def seeds_csv(report: Report) -> str:
    """One line per data set, backbone, loss, metric and confirmation seed."""
    table = report.table
    lines = [
        (c.data, s.fingerprint, c.backbone, row.loss, c.metric, v.seed, v.value, v.trial)
        for row in table.rows
        for c, s in zip(table.columns, row.scores, strict=True)
        for v in s.values
    ]
    return csv_text(("data", "fingerprint", "backbone", "loss", "metric", "seed", "value", "trial"), lines)


def cost_csv(report: Report) -> str:
    """One line per cell: what search and confirmation cost; empty where it is not known."""
    names = ("trials", "hours", "cpu_hours", "gpu_hours", "peak_gb")
    lines = [(*s.names, *(getattr(s.cost, name, None) for name in names)) for s in report.selected]
    return csv_text(("data", "backbone", "loss", *names), lines)


def csv_text(head: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """A CSV file with a line of names first."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(lines)
    return text.getvalue()
