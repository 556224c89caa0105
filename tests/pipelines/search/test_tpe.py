"""TPE finds what it is told is good, and proposes the same when it is told the same."""

import warnings

import pytest

from pipelines.search.space import Space
from pipelines.search.tpe import Proposals, suggest

SPACE = {
    "x": {"low": 0.001, "high": 1.0, "log": True},
    "n": [1, 2, 4, 8],
    "kind": ["a", "b"],
    "k": {"choices": [1, 2, 3], "when": {"kind": "b"}},
    "m": {"low": 1, "high": 9},
    "fixed": 7,
}


def value(point):
    return -abs(point["n"] - 4) - abs(point["m"] - 5) - (point["kind"] == "a") - 10 * abs(point["x"] - 0.1)


def search(batches, size=4, seed=0, cell="c"):
    proposals, found = Proposals(Space.of(SPACE, "here"), cell, seed), []
    for _ in range(batches):
        batch = [proposals.ask() for _ in range(size)]
        found += batch
        proposals.tell([value(point) for point in batch])
    return found


@pytest.fixture(scope="module")
def found():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return search(15)


def test_points_are_of_the_space(found):
    whole = Space.of(SPACE, "here")
    for point in found:
        assert list(point) == [key for key, axis in whole.axes.items() if axis.exists(point)]
        assert point["n"] in (1, 2, 4, 8)
        assert point["m"] in range(1, 10)
        assert 0.001 <= point["x"] <= 1
        assert point["x"] == float(f"{point['x']:.4g}")
        assert point["fixed"] == 7
        assert ("k" in point) == (point["kind"] == "b")


def test_the_first_proposals_are_drawn_apart(found):
    assert len({point["x"] for point in found[:10]}) == 10


class Highest:
    """Stands for an Optuna trial that proposes the last of everything."""

    def suggest_int(self, name, low, high, log=False):
        return high

    def suggest_float(self, name, low, high, log=False):
        return high

    def suggest_categorical(self, name, choices):
        return choices[-1]


@pytest.mark.parametrize(
    ("axis", "highest"),
    [
        ([8, 1, 4], 8),
        ([1, "1e1", 3], "1e1"),
        (["b", "c", "a"], "a"),
        ([True, False], False),
        ({"low": 1, "high": 9}, 9),
        ({"low": 0.5, "high": 1.0}, 1.0),
    ],
)
def test_a_list_of_numbers_is_ordered_by_size_and_any_other_as_it_is(axis, highest):
    assert suggest(Highest(), "x", Space.of({"x": axis}, "here").axes["x"]) == highest


def test_later_proposals_are_better(found):
    first, last = found[:20], found[-20:]
    assert sum(map(value, last)) / 20 > sum(map(value, first)) / 20 + 1


def test_a_replay_proposes_the_same_and_a_shorter_one_its_beginning(found):
    assert search(15) == found
    assert search(5) == found[:20]
    assert search(3, seed=1) != found[:12]
    assert search(3, cell="other") != found[:12]


def test_what_is_told_matters_and_failures_are_no_values(found):
    proposals, others = Proposals(Space.of(SPACE, "here"), "c", 0), []
    for _ in range(6):
        batch = [proposals.ask() for _ in range(4)]
        others += batch
        proposals.tell([None if point["kind"] == "b" else value(point) for point in batch])
    assert others[:8] == found[:8], "the first ones are drawn"
    assert others != found[:24]
