"""Losses ranked across data sets: Friedman's test, and which of them it can tell apart (Nemenyi).

Source: J. Demšar, Statistical comparisons of classifiers over multiple data sets, JMLR 7 (2006), section 3.2.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.report.paired import ALPHA, Floats
from pipelines.report.table import Row, Table, build_table
from pipelines.tracking import Results

MIN_DATA = 3
MIN_LOSSES = 3


@dataclass(frozen=True)
class Friedman:
    """Friedman's test and Nemenyi's comparison of all pairs."""

    statistic: float
    """Chi-square with (losses - 1) degrees of freedom, corrected for ties."""
    p: float
    critical_difference: float
    """Mean ranks that differ by more belong to losses that differ (Nemenyi, 5 %)."""
    pairs: tuple[tuple[float, ...], ...]
    """Nemenyi's p of each pair, in the order of the losses."""


@dataclass(frozen=True)
class Ranking:
    """The losses of one backbone by their mean rank over data sets, the best first."""

    backbone: str
    backbone_title: str
    metric: str
    metric_title: str
    data: tuple[str, ...]
    """Data sets on which every loss was ranked."""
    losses: tuple[str, ...]
    titles: tuple[str, ...]
    ranks: tuple[float, ...]
    """Mean over the data sets; 1 is the highest score, ties share the mean of their ranks."""
    test: Friedman | None
    """None where ``notes`` say why."""
    notes: tuple[str, ...]
    """What was left out or not tested, and why."""

    @property
    def groups(self) -> list[tuple[int, int]]:
        """First and last index of every largest run of losses that cannot be told apart, of at least two.

        All losses are one such run where Friedman's test does not reject; none is told where there is no test.
        """
        if self.test is None:
            return []
        n = len(self.losses)
        if self.test.p >= ALPHA:
            return [(0, n - 1)]
        ends = [max(j for j in range(i, n) if self.test.pairs[i][j] >= ALPHA) for i in range(n)]
        return [(i, end) for i, end in enumerate(ends) if end > i and (i == 0 or end > ends[i - 1])]


def rank(results: Results, metric: str, mix_fingerprints: bool = False) -> list[Ranking]:
    """Rank the losses of each backbone across the sweep's data sets; references take part as losses do.

    Backbones are ranked apart: two backbones on one data set share its users and items, so that they are not two
    independent blocks.

    Args:
        results: what the tracking store holds.
        metric: such as ``ndcg_20``.
        mix_fingerprints: see `build_table`.

    Raises:
        InputError: see `build_table`.
    """
    table = build_table(results, [metric], mix_fingerprints)
    backbones = dict.fromkeys(column.backbone for column in table.columns)
    return [_ranking(table, backbone) for backbone in backbones]


def mean_ranks(scores: Floats) -> Floats:
    """(data, losses) scores to (losses,) mean ranks; the highest score has rank 1."""
    from scipy.stats import rankdata

    ranks: Floats = rankdata(-scores, axis=1).mean(axis=0)
    return ranks


def friedman(scores: Floats) -> Friedman:
    """Friedman's test of (data, losses) scores, at least 3 x 3. Scores that are equal throughout have p = 1."""
    from scikit_posthocs import posthoc_nemenyi_friedman
    from scipy.stats import friedmanchisquare, studentized_range

    n, k = scores.shape
    tied = bool((scores == scores[:, :1]).all())
    statistic, p = (0.0, 1.0) if tied else map(float, friedmanchisquare(*scores.T))
    quantile = float(studentized_range.ppf(1 - ALPHA, k, np.inf)) / math.sqrt(2)
    pairs = posthoc_nemenyi_friedman(scores).to_numpy()
    return Friedman(
        statistic, p, quantile * math.sqrt(k * (k + 1) / (6 * n)), tuple(tuple(map(float, line)) for line in pairs)
    )


def _ranking(table: Table, backbone: str) -> Ranking:
    columns = [index for index, column in enumerate(table.columns) if column.backbone == backbone]
    notes = []
    empty = [index for index in columns if not any(row.scores[index].complete for row in table.rows)]
    for index in empty:
        notes.append(f"{table.columns[index].data} is left out: no loss is ranked on it")
    columns = [index for index in columns if index not in empty]
    rows = []
    for row in table.rows:
        missing = [table.columns[index].data for index in columns if not row.scores[index].complete]
        if missing:
            notes.append(f"{row.title} is left out: it is not ranked on {', '.join(missing)}")
        elif columns:
            rows.append(row)
    first = next(column for column in table.columns if column.backbone == backbone)
    scores = np.array([[row.scores[index].mean for row in rows] for index in columns], dtype=np.float64)
    ranks = mean_ranks(scores) if rows else np.empty(0)
    order = [int(index) for index in np.argsort(ranks, kind="stable")]
    told = _too_few(columns, rows)
    return Ranking(
        backbone=backbone,
        backbone_title=first.backbone_title,
        metric=first.metric,
        metric_title=first.metric_title,
        data=tuple(table.columns[index].data for index in columns),
        losses=tuple(rows[index].loss for index in order),
        titles=tuple(rows[index].title for index in order),
        ranks=tuple(float(ranks[index]) for index in order),
        test=None if told else friedman(scores[:, order]),
        notes=(*notes, *told),
    )


def _too_few(columns: Sequence[int], rows: Sequence[Row]) -> list[str]:
    """Why there is no test; empty if there is one."""
    if len(columns) < MIN_DATA:
        return [f"no Friedman test: it needs at least {MIN_DATA} data sets, and there are {len(columns)}"]
    if len(rows) < MIN_LOSSES:
        found = f"{len(rows)} ranked on all of them"
        return [f"no Friedman test: it needs at least {MIN_LOSSES} losses, and there are {found}"]
    return []
