"""Hyper-parameters of every registered loss: passed on by name, refused by name."""

import inspect
import math

import pytest

from recloss.losses import LOSSES, Loss, build

SIZES = {"n_users": 5, "n_items": 1000, "n_pairs": 20, "n_negatives": 4}
POSITIVE = [0, -0.1, math.nan, math.inf, "0.1"]
VALUES: dict[str, tuple[object, list[object]]] = {
    "activation": ("relu", ["sigmoid"]),
    "k": (7, [0, SIZES["n_items"] + 1, 2.5]),
    "refresh": (3, [0]),
    "samples": (11, [0]),
    "tau": (0.07, POSITIVE),
    "tau_weight": (1.5, POSITIVE),
    "threshold": ("exact", ["median"]),
    "threshold_lr": (0.02, POSITIVE),
}
"""Per hyper-parameter, a value that is no default, and values that are refused."""
OF_A_LOSS: dict[tuple[str, str], tuple[object, list[object]]] = {}
"""The same for a name that means something else in one loss."""


def values(loss: str, parameter: str) -> tuple[object, list[object]]:
    found = OF_A_LOSS.get((loss, parameter), VALUES.get(parameter))
    assert found is not None, f"teach this test values of {loss}'s {parameter}"
    return found


def hyper_parameters(name: str) -> list[str]:
    return [p.name for p in inspect.signature(LOSSES[name]).parameters.values() if p.kind is p.KEYWORD_ONLY]


def stored(loss: Loss, parameter: str) -> object:
    """What the loss, or its threshold, keeps of a hyper-parameter."""
    if parameter == "threshold":
        return loss.threshold.kind
    return getattr(loss, parameter) if hasattr(loss, parameter) else getattr(loss.threshold, parameter)


EVERY = [(name, parameter) for name in LOSSES for parameter in hyper_parameters(name)]
NEEDS_KIND = {
    "threshold_lr": ("lr", "regression"),
    "refresh": ("refresh", "exact"),
    "samples": ("samples", "monte_carlo"),
}


@pytest.mark.parametrize(("name", "parameter"), EVERY)
def test_it_is_passed_on(name, parameter):
    given, _ = values(name, parameter)
    assert given != inspect.signature(LOSSES[name]).parameters[parameter].default
    key, kind = NEEDS_KIND.get(parameter, (parameter, None))
    params = {parameter: given} | ({"threshold": kind} if kind else {})
    assert stored(build(name, params, **SIZES, seed=0), key) == given


@pytest.mark.parametrize(("name", "parameter"), EVERY)
def test_a_value_out_of_range_is_named(name, parameter):
    _, refused = values(name, parameter)
    for value in refused:
        with pytest.raises(ValueError, match=rf"^{parameter} must .*{value}"):
            build(name, {parameter: value}, **SIZES, seed=0)
