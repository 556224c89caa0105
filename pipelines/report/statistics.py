"""Is one loss better than another, or was it chance? Paired comparisons over the users of one data set.

The unit is the user: the scores of the confirmation seeds are averaged per user first, so that a user counts once. A
loss takes part where the table ranks it; what cannot be compared is left out and `left_out` says why.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.report.cells import baselines
from pipelines.report.paired import ALPHA, RESAMPLES, Floats, bootstrap_intervals, holm, paired_test
from pipelines.report.table import Column, Row, Score, build_table
from pipelines.tracking import Results

if TYPE_CHECKING:
    import pyarrow as pa

_MIN_USERS = 2

Question = Literal["baseline", "best"]
"""Which family of hypotheses a comparison belongs to, within a data set, backbone and metric:

``baseline``: is a loss different from the best baseline? Any loss could have been compared with any baseline, so p is
corrected for losses x baselines hypotheses. ``best``: is the best loss different from another? Which one is best was
decided by the scores that are tested, so p is corrected for all pairs.
"""


@dataclass(frozen=True)
class Comparison:
    """One loss against another on the same users; a positive difference says that the first scores higher."""

    data: str
    backbone: str
    backbone_title: str
    metric: str
    """Such as ``ndcg_20``."""
    metric_title: str
    question: Question
    hypotheses: int
    """Size of the family that p was corrected for."""
    one: str
    one_title: str
    other: str
    other_title: str
    n_users: int
    """Users with a score of both."""
    n_seeds: int
    """Confirmation seeds that each user's scores are averaged over."""
    difference: float
    """Mean over users of the first's score minus the second's."""
    ci_low: float
    """95 % bootstrap interval of the difference; not corrected."""
    ci_high: float
    t: float
    p: float
    p_holm: float
    effect: float
    """Cohen's d_z: the mean difference in units of the standard deviation (n - 1) of the users' differences."""
    significant: bool
    """Whether the losses differ: ``p_holm`` < 0.05."""

    @property
    def better(self) -> bool:
        """Whether the first is significantly better."""
        return self.significant and self.difference > 0


def compare(
    results: Results,
    users: "Mapping[str, pa.Table]",
    metric: str,
    mix_fingerprints: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Comparison]:
    """Every loss against the best baseline, and the best loss against every other; references take part as losses do.

    Args:
        results: what the tracking store holds.
        users: by trial hash: column ``user`` and one per metric (see `pipelines.tracking.read_test_users`).
        metric: such as ``ndcg_20``; one that is not known per user has no comparison.
        mix_fingerprints: see `build_table`.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        InputError: see `build_table`.
    """
    declared = baselines(results)
    found: list[Comparison] = []
    for column, rows, _ in _columns(results, users, metric, mix_fingerprints):
        values = _matrix([over_seeds([users[v.trial] for v in score.values], metric) for _, score in rows])
        found += compare_column(column, rows, values, declared, resamples, seed)
    return found


def starred(comparisons: Iterable[Comparison]) -> set[tuple[str, str, str, str]]:
    """Data set, backbone, metric and loss of every score that is significantly better than the best baseline."""
    return {(c.data, c.backbone, c.metric, c.one) for c in comparisons if c.question == "baseline" and c.better}


def left_out(
    results: Results, users: "Mapping[str, pa.Table]", metric: str, mix_fingerprints: bool = False
) -> list[str]:
    """What `compare` does not compare, and why, a line each.

    Raises:
        InputError: see `build_table`.
    """
    columns = _columns(results, users, metric, mix_fingerprints)
    if users and not any(metric in table.column_names for table in users.values()):
        title = columns[0][0].metric_title
        return [f"{title} is one number per trial, not one per user, so it is not tested"]
    declared = baselines(results)
    lines = []
    for column, rows, missing in columns:
        where = f"{column.data}, {column.backbone_title}, {column.metric_title}"
        lines += [f"{where}: {row.title} is not compared: {why}" for row, why in missing]
        names = {row.loss for row, _ in rows}
        if missing and declared and not names.issuperset(declared):
            lines.append(f"{where}: no loss is compared with the best baseline before every baseline is")
    return lines


Taking = list[tuple[Row, Score]]


def _columns(
    results: Results, users: "Mapping[str, pa.Table]", metric: str, mix: bool
) -> list[tuple[Column, Taking, list[tuple[Row, str]]]]:
    """Columns of the table, with the rows that can be compared, and why others cannot."""
    table = build_table(results, [metric], mix)
    columns = []
    for index, column in enumerate(table.columns):
        taking: Taking = []
        missing = []
        for row in table.rows:
            score = row.scores[index]
            unknown = [v for v in score.values if v.trial not in users or metric not in users[v.trial].column_names]
            if not score.complete:
                missing.append((row, "; ".join(table.notes[number - 1] for number in score.notes)))
            elif unknown:
                seeds = ", ".join(str(v.seed) for v in unknown)
                missing.append((row, f"no readable scores per user in the artifact store, of seed {seeds}"))
            else:
                taking.append((row, score))
        columns.append((column, taking, missing))
    return columns


def over_seeds(tables: "Sequence[pa.Table]", metric: str) -> tuple[NDArray[Any], Floats]:
    """Users that have a score in every seed's table, ascending, and its mean over the seeds."""
    ids = np.concatenate([table["user"].to_numpy() for table in tables])
    values = np.concatenate([table[metric].to_numpy() for table in tables])
    known = np.isfinite(values)
    found, position, counts = np.unique(ids[known], return_inverse=True, return_counts=True)
    sums = np.bincount(position, weights=values[known], minlength=len(found))
    everywhere = counts == len(tables)
    return found[everywhere], sums[everywhere] / len(tables)


def _matrix(rows: list[tuple[NDArray[Any], Floats]]) -> Floats:
    """(rows, users), NaN where a row does not know a user."""
    if not rows:
        return np.empty((0, 0))
    everybody = np.unique(np.concatenate([users for users, _ in rows]))
    matrix = np.full((len(rows), len(everybody)), np.nan)
    for line, (users, values) in zip(matrix, rows, strict=True):
        line[np.searchsorted(everybody, users)] = values
    return matrix


Pair = tuple[int, int]


def _families(rows: Taking, declared: list[str]) -> Iterator[tuple[Question, list[Pair], list[Pair]]]:
    """The questions of a column: all pairs of rows that could have been compared, and those that are."""
    means = [score.mean or 0.0 for _, score in rows]
    given = [index for index, (row, _) in enumerate(rows) if row.loss in declared]
    others = [index for index in range(len(rows)) if index not in given]
    if declared and len(given) == len(declared):
        strongest = max(given, key=lambda index: means[index])
        yield "baseline", list(product(others, given)), [(index, strongest) for index in others]
    if len(rows) > 1:
        best = max(range(len(rows)), key=lambda index: means[index])
        rest = [index for index in range(len(rows)) if index != best]
        asked = [(best, index) for index in rest]
        yield "best", [*asked, *combinations(rest, 2)], asked


def compare_column(
    column: Column,
    rows: Taking,
    values: Floats,
    declared: list[str],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Iterator[Comparison]:
    """The comparisons of one column of a table.

    Args:
        column: data set, backbone and metric.
        rows: those that are compared, with their scores.
        values: (rows, users) scores, NaN where a row does not know a user.
        declared: names of the baselines; they are not asked for where one is not among the rows.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    families = list(_families(rows, declared))
    pairs = dict.fromkeys(pair for _, family, _ in families for pair in family)
    common = {(i, j): np.isfinite(values[i]) & np.isfinite(values[j]) for i, j in pairs}
    tests = {
        (i, j): paired_test(values[i, both], values[j, both])
        for (i, j), both in common.items()
        if both.sum() >= _MIN_USERS
    }
    met = dict.fromkeys(pair for _, _, asked in families for pair in asked if pair in tests)
    intervals = _intervals(values, list(met), resamples, seed)
    for question, family, asked in families:
        family = [pair for pair in family if pair in tests]
        corrected = dict(zip(family, holm([tests[pair].p for pair in family]), strict=True))
        for pair in (pair for pair in asked if pair in tests):
            (one, score), (other, _) = (rows[index] for index in pair)
            test, (low, high) = tests[pair], intervals[pair]
            yield Comparison(
                data=column.data,
                backbone=column.backbone,
                backbone_title=column.backbone_title,
                metric=column.metric,
                metric_title=column.metric_title,
                question=question,
                hypotheses=len(family),
                one=one.loss,
                one_title=one.title,
                other=other.loss,
                other_title=other.title,
                n_users=int(common[pair].sum()),
                n_seeds=len(score.values),
                difference=test.difference,
                ci_low=low,
                ci_high=high,
                t=test.t,
                p=test.p,
                p_holm=corrected[pair],
                effect=test.effect,
                significant=corrected[pair] < ALPHA,
            )


def _intervals(values: Floats, pairs: list[Pair], resamples: int, seed: int) -> dict[Pair, tuple[float, float]]:
    """Bootstrap intervals of pairs, those with the same users together, since drawing users is what takes time."""
    groups: dict[bytes, list[Pair]] = {}
    for i, j in pairs:
        groups.setdefault(np.isfinite(values[i] - values[j]).tobytes(), []).append((i, j))
    found: dict[Pair, tuple[float, float]] = {}
    for group in groups.values():
        differences = np.array([values[i] - values[j] for i, j in group])
        ends = bootstrap_intervals(differences[:, np.isfinite(differences[0])], resamples, seed)
        found |= {pair: (float(low), float(high)) for pair, (low, high) in zip(group, ends, strict=True)}
    return found
