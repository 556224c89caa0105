"""Selected values on an edge, and the change that extends it."""

import pytest

from pipelines.search.cell import Cell
from pipelines.search.edges import beyond_choices, beyond_range, edge_warnings
from pipelines.search.space import Space
from pipelines.settings import Choices, Range, make_trial


@pytest.mark.parametrize(
    ("choices", "value", "beyond"),
    [
        ([0.05, 0.1, 0.2], 0.2, 0.4),
        ([0.05, 0.1, 0.2], 0.05, 0.025),
        ([0.05, 0.1, 0.2], 0.1, None),
        ([0.1, 0.15, 0.2], 0.2, 0.25),
        ([0.1, 0.15, 0.2], 0.1, 0.05),
        ([0.5, 1, 1.5], 0.5, 0.25),
        ([0.1, 0.01, 0.001], 0.1, 1),
        ([0.1, "1e-2", 0.001], 0.001, 1e-4),
        ([0, 1e-4, 1e-6, 1e-8], 0, None),
        ([0, 1e-4, 1e-6, 1e-8], 1e-4, 1e-2),
        ([5, 10, 20], 20, 40),
        ([1, 2, 3], 3, 4),
        ([0.1, 0.2], 0.2, None),
        ([0.1, 0.2, 0.2], 0.2, None),
        (["tanh", "arctan", "relu"], "relu", None),
        ([True, False, True], True, None),
    ],
)
def test_the_number_beyond_a_list(choices, value, beyond):
    assert beyond_choices(Choices(choices=choices), value) == pytest.approx(beyond)


@pytest.mark.parametrize(
    ("axis", "value", "beyond"),
    [
        ({"low": 0.01, "high": 1.0, "log": True}, 0.97, 10),
        ({"low": 0.01, "high": 1.0, "log": True}, 0.011, 0.001),
        ({"low": 0.01, "high": 1.0, "log": True}, 0.7, None),
        ({"low": 0.0, "high": 1.0}, 0.01, None),
        ({"low": 0.0, "high": 1.0}, 0.96, 1.5),
        ({"low": 1.0, "high": 5.0}, 1.1, 0.5),
        ({"low": 2, "high": 10}, 10, 14),
    ],
)
def test_the_new_end_of_a_range(axis, value, beyond):
    assert beyond_range(Range(**axis), value) == pytest.approx(beyond)


def warnings(loss, dotted, **selected):
    cell = Cell("d", "mf", loss, "f", "here", Space.of(dotted, "here"), seeds=(0,))
    return edge_warnings(cell, make_trial("f", "mf", loss, {k.replace("__", "."): v for k, v in selected.items()}))


def test_a_line_names_the_axis_and_the_change():
    space = {"loss.tau": [0.05, 0.1, 0.2], "optim.lr": {"low": 0.001, "high": 0.1, "log": True}, "loss.over": "all"}
    assert warnings("sl", space, loss__tau=0.2, optim__lr=0.01, loss__over="all") == [
        "sl: loss.tau: [0.05, 0.1, 0.2]  ->  add 0.4"
    ]
    assert warnings("sl", space, loss__tau=0.1, optim__lr=0.098, loss__over="all") == [
        "sl: optim.lr: {low: 0.001, high: 0.1, log: true}  ->  high: 1"
    ]
    assert warnings("sl", space, loss__tau=0.1, optim__lr=0.01, loss__over="all") == []


def test_an_edge_beyond_which_a_value_would_be_refused_is_natural():
    refused = {"sampler": "false_negatives", "sampler.ratio": [0.5, 0.75, 1.0]}
    assert warnings("sl", refused, sampler="false_negatives", sampler__ratio=1.0) == []
    assert warnings("sl", refused, sampler="false_negatives", sampler__ratio=0.5) == [
        "sl: sampler.ratio: [0.5, 0.75, 1.0]  ->  add 0.25"
    ]


def test_an_axis_that_the_selected_configuration_does_not_have_is_not_told():
    space = {
        "sampler": ["popularity", "uniform"],
        "sampler.power": {"choices": [0.5, 1.0, 1.5], "when": {"sampler": "popularity"}},
    }
    assert warnings("sl", space, sampler="uniform") == []
    assert warnings("sl", space, sampler="popularity", sampler__power=1.5) == [
        "sl: sampler.power: {choices: [0.5, 1.0, 1.5], when: {sampler: popularity}}  ->  add 2"
    ]
