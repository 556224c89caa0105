"""The comparison table as CSV, one line a loss: as it is printed, but unrounded."""

from pipelines.report.long import csv_text
from pipelines.report.report import Report


def wide_csv(report: Report) -> str:
    """One line per loss; two columns, ``<data>|<backbone>|<metric>|mean`` and ``|std``, per column of the table.

    Missing numbers are empty; `table_csv` says why they are missing.
    """
    table = report.table
    names = ["|".join((c.data, c.backbone, c.metric)) for c in table.columns]
    head = ("family", "loss", *(f"{name}|{part}" for name in names for part in ("mean", "std")))
    lines = [
        (row.family, row.loss, *(number for score in row.scores for number in (score.mean, score.std)))
        for row in table.rows
    ]
    return csv_text(head, lines)
