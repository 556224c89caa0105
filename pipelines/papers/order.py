"""Does the measured order of losses agree with the reported one, and where it does not, is that more than chance?"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.papers.compare import Line, Pair, ordered_pairs
from pipelines.papers.measured import EPOCH_SECONDS, MeasuredExperiment
from pipelines.report.paired import ALPHA, holm, paired_test
from pipelines.report.statistics import over_seeds

_MIN_USERS = 2


@dataclass(frozen=True)
class Turned:
    """A pair that is measured in the other order, or equal."""

    pair: Pair
    p: float | None
    """Of the paired t-test over users, Holm-corrected for all pairs; none where scores per user are not there."""

    @property
    def significant(self) -> bool:
        """Whether the measured difference is more than chance."""
        return self.p is not None and self.p < ALPHA


@dataclass(frozen=True)
class Order:
    """The pairs of one data set, backbone and metric that are reported apart and measured."""

    data: str
    backbone: str
    metric: str
    pairs: tuple[Pair, ...]
    turned: tuple[Turned, ...]


def orders(experiment: MeasuredExperiment, lines: Sequence[Line]) -> list[Order]:
    """The orders of an experiment, those with at least one pair.

    Args:
        experiment: whose scores per user are tested.
        lines: its lines.
    """
    groups: dict[tuple[str, str, str], list[Line]] = {}
    for line in lines:
        groups.setdefault((line.data, line.backbone, line.metric), []).append(line)
    found = []
    for (data, backbone, metric), group in groups.items():
        pairs = ordered_pairs(group, lower_is_better=metric in (EPOCH_SECONDS, "threshold_error"))
        if pairs:
            found.append(Order(data, backbone, metric, tuple(pairs), tuple(_turned(experiment, pairs))))
    return found


def _turned(experiment: MeasuredExperiment, pairs: Sequence[Pair]) -> list[Turned]:
    if all(pair.agrees for pair in pairs):
        return []
    found = {pair: _p(experiment, pair) for pair in pairs}
    known = {pair: p for pair, p in found.items() if p is not None}
    corrected = dict(zip(known, holm(list(known.values())), strict=True))
    return [Turned(pair, corrected.get(pair)) for pair in pairs if not pair.agrees]


def _p(experiment: MeasuredExperiment, pair: Pair) -> float | None:
    """Of the users that both rows were scored on, on every seed."""
    import numpy as np

    metric, scores = pair.better.metric, []
    for line in (pair.better, pair.worse):
        cell = next(
            cell
            for cell in experiment.cells
            if (cell.sweep.data, cell.sweep.backbone, cell.variant.label) == (line.data, line.backbone, line.row)
        )
        tables = [experiment.users.get(trial.hash) for trial in cell.confirmed]
        known = [table for table in tables if table is not None and metric in table.column_names]
        if not known or len(known) < len(tables):
            return None
        scores.append(over_seeds(known, metric))
    (one_users, one), (other_users, other) = scores
    _, i, j = np.intersect1d(one_users, other_users, assume_unique=True, return_indices=True)
    return paired_test(one[i], other[j]).p if len(i) >= _MIN_USERS else None
