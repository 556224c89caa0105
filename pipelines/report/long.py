"""The comparison table as CSV, one number a line."""

import csv
import io
from collections.abc import Iterable
from typing import Any

from pipelines.report.selected import Selected
from pipelines.report.table import Table


def table_csv(table: Table) -> str:
    """One line per data set, backbone, loss and metric; missing numbers are empty."""
    lines = [
        (c.data, s.fingerprint, c.backbone, row.loss, c.metric, s.mean, s.std, len(s.values), s.mark, note)
        for row in table.rows
        for c, s in zip(table.columns, row.scores, strict=True)
        for note in ["; ".join(table.notes[number - 1] for number in s.notes)]
    ]
    head = ("data", "fingerprint", "backbone", "loss", "metric", "mean", "std", "n", "mark", "note")
    return _csv(head, lines)


def seeds_csv(table: Table) -> str:
    """One line per data set, backbone, loss, metric and confirmation seed."""
    lines = [
        (c.data, s.fingerprint, c.backbone, row.loss, c.metric, v.seed, v.value, v.trial)
        for row in table.rows
        for c, s in zip(table.columns, row.scores, strict=True)
        for v in s.values
    ]
    return _csv(("data", "fingerprint", "backbone", "loss", "metric", "seed", "value", "trial"), lines)


def cost_csv(selected: list[Selected]) -> str:
    """One line per cell: what search and confirmation cost; empty where it is not known."""
    names = ("trials", "hours", "cpu_hours", "gpu_hours", "peak_gb")
    lines = [(*s.names, *(getattr(s.cost, name, None) for name in names)) for s in selected]
    return _csv(("data", "backbone", "loss", *names), lines)


def _csv(head: tuple[str, ...], lines: Iterable[tuple[Any, ...]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(lines)
    return text.getvalue()
