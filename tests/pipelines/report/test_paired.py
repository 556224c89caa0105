"""The arithmetic of paired comparisons, against hand computations, SciPy and simulated data."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipelines.report.paired import bootstrap_intervals, holm, paired_test, shown_p


def bounds(n, share, miss=1e-4):
    """Numbers of successes in n that a binomial variable leaves with probability ``miss``."""
    return stats.binom.ppf(miss / 2, n, share), stats.binom.ppf(1 - miss / 2, n, share)


def test_a_paired_test_by_hand():
    found = paired_test(np.array([1.0, 3.0, 4.0, 8.0]), np.array([0.0, 1.0, 1.0, 4.0]))
    deviation = math.sqrt((1.5**2 + 0.5**2 + 0.5**2 + 1.5**2) / 3)  # of the differences 1, 2, 3, 4
    assert found.difference == 2.5
    assert found.effect == pytest.approx(2.5 / deviation)
    assert found.t == pytest.approx(2.5 / (deviation / 2))
    assert found.p == pytest.approx(0.0304662, abs=1e-6)  # of Student's t with 3 degrees of freedom at 3.873


def test_the_other_way_round_only_the_signs_change():
    one, other = np.random.default_rng(0).random((2, 50))
    a, b = paired_test(one, other), paired_test(other, one)
    assert (a.difference, a.t, a.effect, a.p) == pytest.approx((-b.difference, -b.t, -b.effect, b.p))


def test_differences_that_do_not_vary_are_no_warning():
    scores = np.random.default_rng(0).random(6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = paired_test(scores, scores.copy())
        rounded = paired_test(scores, scores + np.array([1e-17, -1e-17, 0, 0, 3e-16, 0]))
        higher, lower = paired_test(scores + 0.25, scores), paired_test(scores, scores + 0.25)
    assert (same.difference, same.t, same.p, same.effect) == (0, 0, 1, 0)
    assert rounded == same
    assert (higher.t, higher.effect, higher.p) == (math.inf, math.inf, 2 / 64)
    assert (lower.t, lower.effect, lower.p) == (-math.inf, -math.inf, 2 / 64)
    assert higher.difference == pytest.approx(0.25)


def test_null_effects_are_found_as_often_as_promised():
    """Scores of users that differ much, two losses that do not: p < 0.05 in 5 % of 600 pairs, p < 0.5 in half."""
    rng = np.random.default_rng(1)
    users = rng.beta(1, 3, size=(600, 1, 120))
    one, other = np.moveaxis(users + rng.normal(0, 0.1, size=(600, 2, 120)), 1, 0)
    p = np.array([paired_test(a, b).p for a, b in zip(one, other, strict=True)])
    for share in (0.05, 0.5):
        low, high = bounds(600, share)
        assert low <= (p < share).sum() <= high


def test_holm_by_hand():
    # sorted 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1, and never below the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.6]) == pytest.approx([1, 1])
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_helps_and_never_does_more_than_bonferroni(p):
    corrected = np.array(holm(p))
    assert (corrected >= np.array(p) - 1e-12).all()
    assert (corrected <= np.minimum(1, len(p) * np.array(p)) + 1e-12).all()
    assert corrected.min() == pytest.approx(min(1, len(p) * min(p)))


def test_bootstrap_intervals_agree_with_scipy_and_with_the_normal_ones():
    rng = np.random.default_rng(2)
    differences = rng.gamma(0.5, 0.2, size=(2, 400)) - [[0.1], [0.0]]
    found = bootstrap_intervals(differences, 10_000)
    for line, ends in zip(differences, found, strict=True):
        standard_error = line.std(ddof=1) / 20
        reference = stats.bootstrap(
            (line,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(3)
        ).confidence_interval
        assert ends == pytest.approx([reference.low, reference.high], abs=0.1 * standard_error)
        normal = line.mean() + np.array([-1.96, 1.96]) * standard_error
        assert ends == pytest.approx(normal, abs=0.25 * standard_error)


def test_bootstrap_intervals_cover_the_mean():
    differences = np.random.default_rng(4).normal(0.3, 1, size=(600, 150))
    low, high = bootstrap_intervals(differences).T
    least, most = bounds(600, 0.945)  # the percentile interval of 150 users is a little short
    assert least <= ((low < 0.3) & (high > 0.3)).sum() <= most


def test_the_bootstrap_is_a_function_of_its_seed_alone(monkeypatch):
    differences = np.random.default_rng(5).normal(size=(3, 70))
    first = bootstrap_intervals(differences)
    np.random.default_rng().random()
    assert np.array_equal(first, bootstrap_intervals(differences))
    assert not np.array_equal(first, bootstrap_intervals(differences, seed=1))
    assert bootstrap_intervals(differences[1:2]) == pytest.approx(first[1:2])
    monkeypatch.setattr("pipelines.report.paired._COUNTS_AT_ONCE", 500)  # 7 resamples at once
    assert bootstrap_intervals(differences) == pytest.approx(first)


def test_the_bootstrap_of_a_constant():
    assert bootstrap_intervals(np.full((1, 9), 0.125)).tolist() == [[0.125, 0.125]]


def test_two_users_are_drawn_as_they_should():
    """Both, or one of them twice: the mean of 0 and 1 is 0, 1/2 or 1, with 1/4, 1/2, 1/4."""
    assert bootstrap_intervals(np.array([[0.0, 1.0]])).tolist() == [[0, 1]]
    thirds = bootstrap_intervals(np.array([[0.0, 0.0, 0.0, 1.0]]), 20_000)  # P(mean <= 1/2) = 0.949, P(<= 3/4) = 0.996
    assert thirds.tolist() == [[0, 0.75]]


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.0, "p < 0.001"),
        (0.00099, "p < 0.001"),
        (0.001, "p = 0.001"),
        (0.0123, "p = 0.012"),
        (0.04996, "p = 0.04996"),
        (0.05, "p = 0.050"),
        (0.0501, "p = 0.050"),
        (1.0, "p = 1.000"),
    ],
)
def test_p_is_shown_on_the_right_side_of_the_threshold(p, text):
    assert shown_p(p) == text


def test_the_largest_p_below_the_threshold_can_be_shown():
    assert float(shown_p(np.nextafter(0.05, 0)).removeprefix("p = ")) < 0.05
