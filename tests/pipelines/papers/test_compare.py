"""Differences, tolerance and order, against cases worked out by hand."""

import pytest

from pipelines.papers.compare import Line, Measured, ordered_pairs, relative


def line(row="SL", reported=None, *measured, tolerance=0.03, metric="ndcg_20", other=False):
    values = Measured(measured, tuple(range(len(measured)))) if measured else None
    return Line("health", "mf", row, metric, reported, values, "" if measured else "not run", tolerance, other)


def test_mean_and_deviation_over_the_seeds():
    measured = Measured((0.10, 0.12, 0.17), (0, 1, 2))
    assert measured.mean == pytest.approx(0.13)
    assert measured.std == pytest.approx(((0.03**2 + 0.01**2 + 0.04**2) / 2) ** 0.5)
    assert Measured((0.1,), (0,)).std is None


@pytest.mark.parametrize(
    ("reported", "measured", "difference", "within"),
    [
        (0.2, (0.2,), 0.0, True),
        (0.2, (0.206,), 0.03, True),  # the edge itself, whatever its last bits
        (0.2, (0.194,), -0.03, True),
        (0.2, (0.20601,), 0.03005, False),
        (0.2, (0.19399,), -0.03005, False),
        (0.1, (0.10, 0.11, 0.12), 0.1, False),  # the mean is compared, not a seed
        (0.1, (0.05, 0.15), 0.0, True),
    ],
)
def test_the_difference_is_relative_to_what_is_reported(reported, measured, difference, within):
    found = line("SL", reported, *measured)
    assert found.difference == pytest.approx(difference, abs=1e-12)
    assert found.within is within


@pytest.mark.parametrize(
    "found",
    [
        line("SL", None, 0.1),
        line("SL", 0.1),
        line("SL", 0.0, 0.1),
        line("SL", 0.1, 0.5, tolerance=None),
        line("SL", 0.1, 0.1, other=True),
    ],
    ids=["not reported", "not run", "reported as 0", "no target", "other settings"],
)
def test_without_a_value_a_target_or_the_settings_nothing_is_judged(found):
    assert found.within is None


def pairs(*lines, **options):
    return [(pair.better.row, pair.worse.row, pair.agrees) for pair in ordered_pairs(lines, **options)]


def test_pairs_are_those_reported_more_than_a_hundredth_apart():
    a, b, c = line("A", 0.2000, 0.1), line("B", 0.2020, 0.2), line("C", 0.20201, 0.15)
    # 0.2020 is exactly 1 % above 0.2000; 0.20201 more, but less than 1 % of itself; B and C are too close
    assert pairs(a, b, c) == [("C", "A", True)]


def test_an_order_that_is_turned_or_equal_does_not_agree():
    a, b, c = line("A", 0.1, 0.3), line("B", 0.2, 0.3), line("C", 0.3, 0.2)
    assert pairs(a, b, c) == [("B", "A", False), ("C", "A", False), ("C", "B", False)]


def test_the_mean_over_the_seeds_is_ordered():
    assert pairs(line("A", 0.1, 0.0, 0.3), line("B", 0.2, 0.14, 0.15)) == [("B", "A", False)]
    assert pairs(line("A", 0.1, 0.0, 0.3), line("B", 0.2, 0.15, 0.16)) == [("B", "A", True)]


def test_lines_without_a_value_or_with_other_settings_are_in_no_pair():
    known = line("A", 0.1, 0.1)
    assert pairs(known, line("B", None, 0.2), line("C", 0.3), line("D", 0.3, 0.3, other=True)) == []


def test_of_seconds_the_lower_is_the_better():
    fast, slow = line("SL@20", 1.0, 1.0, metric="epoch_seconds"), line("LambdaLoss", 13.0, 4.0, metric="epoch_seconds")
    assert pairs(fast, slow, lower_is_better=True) == [("SL@20", "LambdaLoss", True)]
    assert pairs(fast, line("LambdaLoss", 13.0, 0.5), lower_is_better=True) == [("SL@20", "LambdaLoss", False)]


def test_multiples_of_a_row():
    assert relative({"SL": 2.0, "Talos": 3.0}, "SL") == {"SL": 1.0, "Talos": 1.5}
    assert relative({"Talos": 3.0}, "SL") == {}
    assert relative({"SL": 0.0, "Talos": 3.0}, "SL") == {}
