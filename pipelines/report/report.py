"""A sweep's report before any markup: what every renderer takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipelines.report.ranks import Ranking, rank
from pipelines.report.selected import Selected, selected_configurations
from pipelines.report.statistics import Comparison, compare, left_out, starred
from pipelines.report.table import Table, build_table, with_stars
from pipelines.tracking import Results, read_results
from pipelines.tracking.artifacts import read_test_users

if TYPE_CHECKING:
    import pyarrow as pa

    from pipelines.report.figures import Evidence


@dataclass(frozen=True)
class Report:
    """Everything that is told of a sweep."""

    results: Results
    table: Table
    selected: list[Selected]
    """A line per cell, in the sweep's order."""
    comparisons: tuple[Comparison, ...] = ()
    """Of the table's metrics that are known per user."""
    uncompared: tuple[str, ...] = ()
    """What is not compared, and why, a line each."""
    rankings: tuple[Ranking, ...] = ()
    """Of each backbone and metric across data sets; none where the sweep has one data set."""
    evidence: "Evidence | None" = None
    """What figures are drawn from; none where no figures were asked for."""
    figures: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)
    """By name: title, caption and SVG text; empty where none were asked for."""
    server: str = ""
    """Address of the MLflow server without credentials; empty where the store is a database."""

    def link(self, run_id: str) -> str:
        """Address of a run's page on the MLflow server; empty where there is no server."""
        if not self.server or not run_id:
            return ""
        return f"{self.server}/#/experiments/{self.results.experiment_id}/runs/{run_id}"


def build_report(
    results: Results,
    metrics: Sequence[str] | None = None,
    mix_fingerprints: bool = False,
    users: Mapping[str, "pa.Table"] | None = None,
) -> Report:
    """The report of what was read, without figures.

    Args:
        results: what the tracking store holds.
        metrics: see `build_table`.
        mix_fingerprints: see `build_table`.
        users: per-user test metrics by trial hash; without them nothing is compared.

    Raises:
        InputError: see `build_table`.
    """
    table = build_table(results, metrics, mix_fingerprints)
    measured = {c.metric for row in table.rows for c, s in zip(table.columns, row.scores, strict=True) if s.values}
    names = [name for name in dict.fromkeys(column.metric for column in table.columns) if name in measured]
    comparisons = [c for name in names for c in compare(results, users, name, mix_fingerprints)] if users else []
    asked = [] if users is None else names
    uncompared = [line for name in asked for line in left_out(results, users or {}, name, mix_fingerprints)]
    several = len({column.data for column in table.columns}) > 1
    rankings = [r for name in names for r in rank(results, name, mix_fingerprints)] if several else []
    return Report(
        results,
        with_stars(table, starred(comparisons)),
        selected_configurations(results, mix_fingerprints),
        tuple(comparisons),
        tuple(uncompared),
        tuple(rankings),
    )


def make_report(
    uri: str,
    experiment: str,
    metrics: Sequence[str] | None = None,
    mix_fingerprints: bool = False,
    figures: bool = False,
) -> Report:
    """Read a sweep from the tracking and artifact stores, and make its report.

    Args:
        uri: of the tracking store.
        experiment: name of the sweep.
        metrics: see `build_table`.
        mix_fingerprints: see `build_table`.
        figures: read what figures are drawn from too, which takes a while.

    Raises:
        InputError: see `read_results`, `build_table` and `read_test_users`.
    """
    results = read_results(uri, experiment)
    table = build_table(results, metrics, mix_fingerprints)
    scored = {value.trial for row in table.rows for score in row.scores for value in score.values}
    users = read_test_users(uri, results, scored, {column.metric for column in table.columns})
    report = build_report(results, metrics, mix_fingerprints, users)
    report = replace(report, server=_server(uri))
    if not figures:
        return report
    from pipelines.report.figures import read_evidence

    return replace(report, evidence=read_evidence(uri, results, mix_fingerprints))


def _server(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
