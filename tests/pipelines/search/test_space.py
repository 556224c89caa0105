"""Axes, conditions and the points of a space."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.search.space import Space
from recloss.errors import InputError


def space(dotted):
    return Space.of(dotted, "here")


def test_the_last_axis_runs_fastest_and_cutoffs_are_no_axis():
    points = space({"a": [1, 2], "protocol.cutoffs": [5, 20], "b": [3, 4], "c": 5}).grid("here")
    assert [(p["a"], p["b"]) for p in points] == [(1, 3), (1, 4), (2, 3), (2, 4)]
    assert all(p["protocol.cutoffs"] == [5, 20] and p["c"] == 5 for p in points)


CONDITIONAL = {
    "loss.k": {"choices": [5, 10], "when": {"loss.variant": "full"}},
    "loss.variant": ["full", "plain"],
    "loss.depth": {"choices": [1, 2], "when": {"loss.k": [10], "loss.variant": "full"}},
    "lr": [0.1, 0.01],
}


def test_a_conditional_axis_exists_only_where_its_conditions_hold():
    grid = space(CONDITIONAL).grid("here")
    found = {(p["loss.variant"], p.get("loss.k"), p.get("loss.depth"), p["lr"]) for p in grid}
    settings = {("full", 5, None), ("full", 10, 1), ("full", 10, 2), ("plain", None, None)}
    assert found == {(*s, lr) for s, lr in itertools.product(settings, (0.1, 0.01))}
    assert len(grid) == len(found)


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=4, max_size=4))
def test_every_draw_is_a_point_of_the_grid(shares):
    whole = space(CONDITIONAL)
    drawn = whole.draw(dict(zip(whole.axes, shares, strict=True)).__getitem__)
    assert drawn in whole.grid("here")


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 50), st.integers(1, 50), st.booleans())
def test_whole_numbers_stay_whole_and_inside(share, low, width, log):
    axis = {"n": {"low": low, "high": low + width, "log": log}}
    value = space(axis).draw(lambda key: share)["n"]
    assert isinstance(value, int)
    assert low <= value <= low + width
    assert space(axis).draw(lambda key: 0.0)["n"] == low
    assert space(axis).draw(lambda key: 1 - 2**-53)["n"] == low + width


@given(st.floats(0, 1, exclude_max=True), st.floats(1e-6, 10), st.floats(1e-3, 100), st.booleans())
def test_numbers_of_a_range_have_four_digits_and_lie_inside(share, low, width, log):
    high = low + width
    value = space({"x": {"low": low, "high": high, "log": log}}).draw(lambda key: share)["x"]
    assert low <= value <= high
    assert value in (low, high) or value == float(f"{value:.4g}")


def test_ranges_are_drawn_evenly_or_evenly_in_the_logarithm():
    def at(share, **axis):
        return space({"x": axis}).draw(lambda key: share)["x"]

    assert at(0.5, low=1.0, high=9) == 5.0
    assert at(0.5, low=0.01, high=1, log=True) == 0.1
    assert at(1 / 3, low=0.001, high=1.0, log=True) == 0.01
    assert [at(share / 10, low=1, high=5) for share in range(10)] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert at(0.5, low="1e-2", high=1, log=True) == 0.1, "YAML reads 1e-2 as text"


@pytest.mark.parametrize(
    ("dotted", "message"),
    [
        ({"x": []}, "here: x: choices: List should have at least 1 item"),
        ({"x": {"low": 1, "high": 1}}, "here: x: low must be below high, got 1 and 1"),
        ({"x": {"low": 0, "high": 1, "log": True}}, "here: x: a logarithmic range starts above 0, got low: 0"),
        ({"x": {"low": 0}}, "here: x: high: Field required"),
        ({"x": {"low": 0, "high": 1, "lag": True}}, "here: x: unknown setting 'lag'; did you mean 'log'?"),
        ({"x": {"values": [1]}}, "here: x: expected {choices: [...]} or {low: ..., high: ...}, got ['values']"),
        ({"x": {"choices": [1], "when": {"y": 1}}}, "here: x: when: 'y' is not a setting of this space"),
        ({"x": {"choices": [1], "when": {"y": 3}}, "y": [1, 2]}, "here: x: when: y never is 3 (it is 1, 2)"),
        ({"x": {"choices": [1], "when": {"y": 1}}, "y": {"low": 0, "high": 1}}, "'y' is a range; a condition needs a"),
        (
            {"x": {"choices": [1], "when": {"y": 1}}, "y": {"choices": [1], "when": {"x": 1}}},
            "here: the conditions of x, y wait for each other",
        ),
    ],
)
def test_a_wrong_axis_is_one_line_that_names_it(dotted, message):
    with pytest.raises(InputError) as caught:
        space(dotted)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_condition_on_a_setting_that_is_fixed_otherwise_leaves_the_axis_out():
    assert space({"v": "plain", "k": {"choices": [1, 2], "when": {"v": "full"}}}).grid("here") == [{"v": "plain"}]


def test_a_grid_refuses_a_range():
    with pytest.raises(InputError, match="here: x is a range, of which a grid is not made; give a list of choices, or"):
        space({"x": {"low": 0, "high": 1}}).grid("here")


def test_corners_are_all_combinations_of_choices_and_ends_or_about_as_many_as_asked():
    whole = space({"a": [1, 2, 3], "x": {"low": 0.5, "high": 2}, "b": [4, 5]})
    assert [tuple(p.values()) for p in whole.corners(100)] == list(itertools.product([1, 2, 3], [0.5, 2], [4, 5]))
    few = whole.corners(5)
    assert len(few) == 4
    assert {p["a"] for p in few} == {1, 2, 3}
