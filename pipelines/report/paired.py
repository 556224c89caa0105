"""Two scores of the same users, or many: t-test, bootstrap, correction for many tests. Pure functions of arrays."""

import gc
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ALPHA = 0.05
"""A smaller p is called significant."""
RESAMPLES = 2000
_LEVEL = 0.95
_ROUNDING = 1e-12
"""Smaller differences are those of adding up in another order."""
_COUNTS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class PairedTest:
    """A paired t-test."""

    difference: float
    t: float
    p: float
    effect: float


def paired_test(one: Floats, other: Floats) -> PairedTest:
    """Paired t-test of two scores of the same users, two-sided.

    Where all users have the same difference its deviation is 0 and t is not defined: p is 1 if the difference is 0,
    else that of the sign-flip test, 2^(1 - n), with t and effect infinite.

    Args:
        one: (n,) scores, n at least 2.
        other: (n,) scores of the same users.
    """
    from scipy.stats import ttest_rel

    differences = one - other
    mean = float(differences.mean())
    if float(np.ptp(differences)) > _ROUNDING:
        test = ttest_rel(one, other)
        return PairedTest(mean, float(test.statistic), float(test.pvalue), mean / float(differences.std(ddof=1)))
    if abs(mean) <= _ROUNDING:
        return PairedTest(0.0, 0.0, 1.0, 0.0)
    infinite = math.copysign(math.inf, mean)
    return PairedTest(mean, infinite, 2.0 ** (1 - len(differences)), infinite)


def bootstrap_intervals(differences: Floats, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """95 % percentile bootstrap intervals of mean differences; users are drawn with replacement.

    The draws are a function of the seed and the number of users, the same for all rows.

    Args:
        differences: (pairs, users).
        resamples: number of times that all users are drawn.
        seed: of the draws.

    Returns:
        (pairs, 2), the low and the high end.
    """
    n_users = differences.shape[1]
    rng = np.random.default_rng(seed)
    means = np.empty((resamples, len(differences)))
    counts = np.empty((min(resamples, max(1, _COUNTS_AT_ONCE // n_users)), n_users))
    for first in range(0, resamples, len(counts)):
        block = counts[: resamples - first]
        for line in block:
            line[:] = np.bincount(rng.integers(n_users, size=n_users, dtype=np.int32), minlength=n_users)
        means[first : first + len(block)] = block @ differences.T / n_users
    tail = (1 - _LEVEL) / 2
    ends: Floats = np.quantile(means, [tail, 1 - tail], axis=0).T
    return ends


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction of the p-values of a family."""
    from statsmodels.stats.multitest import multipletests

    gc.freeze()  # multipletests collects garbage each time, which takes a third of a second with MLflow's objects
    try:
        return [float(value) for value in multipletests(p, method="holm")[1]] if p else []
    finally:
        gc.unfreeze()


def shown_p(p: float) -> str:
    """``p = 0.012``, with enough digits to see on which side of 0.05 it is."""
    if p < 0.001:
        return "p < 0.001"
    texts = [f"{p:.{digits}f}" for digits in range(3, 20)]
    return "p = " + next(text for text in texts if (float(text) < ALPHA) == (p < ALPHA))
