"""Reported against measured: differences, tolerance, order. Plain arithmetic; nothing is read or printed here."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

APART = 0.01
"""Rows that a paper reports closer together than this, relative to the lower, have no order here."""
_ROUNDING = 1e-9
"""So that a difference of exactly the tolerance is within it, whatever its last bits."""


@dataclass(frozen=True)
class Measured:
    """A metric of a row, by seed."""

    values: tuple[float, ...]
    """One per confirmation seed."""
    seeds: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        """Standard deviation over the seeds (n - 1); none for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Line:
    """A metric of a row beside what the paper reports."""

    data: str
    backbone: str
    row: str
    metric: str
    reported: float | None
    measured: Measured | None
    missing: str = ""
    """Why nothing is measured: ``not run``, ``data missing``, ..."""
    tolerance: float | None = None
    """Largest relative difference that is a match; none where there is no target."""
    other: bool = False
    """Measured with other settings than the preset's: shown, but neither judged nor ordered."""

    @property
    def difference(self) -> float | None:
        """Relative difference of the mean from the reported value: 0.02 is 2 % above it."""
        if self.reported is None or self.measured is None or self.reported == 0:
            return None
        return self.measured.mean / self.reported - 1

    @property
    def within(self) -> bool | None:
        """Whether the difference is at most the tolerance; none without a target, a difference or its settings."""
        if self.tolerance is None or self.difference is None or self.other:
            return None
        return abs(self.difference) <= self.tolerance + _ROUNDING


@dataclass(frozen=True)
class Pair:
    """Two rows that the paper reports in an order."""

    better: Line
    """The one that the paper reports as better."""
    worse: Line
    lower_is_better: bool = False

    @property
    def gap(self) -> float:
        """Measured: how far the reported order is kept, relative to the worse; negative where it is turned round."""
        assert self.better.measured is not None
        assert self.worse.measured is not None
        one, other = self.better.measured.mean, self.worse.measured.mean
        return (other - one if self.lower_is_better else one - other) / other if other else float(one > other)

    @property
    def agrees(self) -> bool:
        """Whether the measured means are in the reported order; equal ones are not."""
        return self.gap > 0


def ordered_pairs(lines: Sequence[Line], apart: float = APART, lower_is_better: bool = False) -> list[Pair]:
    """All pairs of lines of one data set, backbone and metric that are reported more than ``apart`` apart and measured.

    Args:
        lines: of one data set, backbone and metric; those without a reported or a measured value, or measured with
            other settings, are left out.
        apart: relative to the lower of the two reported values.
        lower_is_better: such as seconds.
    """
    known = [line for line in lines if line.reported is not None and line.measured is not None and not line.other]
    pairs = []
    for one, other in combinations(known, 2):
        assert one.reported is not None
        assert other.reported is not None
        low, high = sorted((one, other), key=lambda line: line.reported or 0.0)
        assert low.reported is not None
        assert high.reported is not None
        if high.reported - low.reported > apart * low.reported + _ROUNDING:
            pairs.append(Pair(low, high, True) if lower_is_better else Pair(high, low))
    return pairs


def relative(values: Mapping[str, float], to: str) -> dict[str, float]:
    """Each value as a multiple of one of them; empty where that one is not there or 0."""
    unit = values.get(to)
    return {name: value / unit for name, value in values.items()} if unit else {}
