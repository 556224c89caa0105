"""Hyper-parameters of every registered loss: passed on by name, refused by name."""

import inspect
import math

import pytest

from recloss.losses import LOSSES, Loss, build

SIZES = {"n_users": 5, "n_items": 1000, "n_pairs": 20, "n_negatives": 4}
POSITIVE = [0, -0.1, math.nan, math.inf, "0.1"]
SHARE = [0, -0.1, 1.1, math.nan, "0.1"]
VALUES: dict[str, tuple[object, list[object]]] = {
    "activation": ("relu", ["sigmoid"]),
    "adv_epochs": (7, [-1, 2.5]),
    "adv_every": (3, [0, 2.5]),
    "adv_lr": (0.02, POSITIVE),
    "alpha": (0.35, SHARE),
    "ascend": (False, ["yes"]),
    "beta": (0.35, SHARE),
    "beta_init": (-0.4, [math.nan, math.inf, "0.1"]),
    "beta_lr": (0.02, POSITIVE),
    "conf_softness": (0.5, [-0.1, 1.1, math.nan, "0.1"]),
    "conf_weight": (0.4, [-0.1, 1.1, math.nan, "0.1"]),
    "c": (1.5, [1, 0.5, math.nan, math.inf, "2"]),
    "ema": (0.3, [0, -0.1, 1.1, math.nan, "0.1"]),
    "eps": (0.1, [-0.1, math.nan, math.inf, "0.1"]),
    "eta": (0.2, POSITIVE),
    "gamma": (1.5, [1, 0.5, math.nan, math.inf, "2"]),
    "gamma_star": (1.5, [0.9, math.nan, math.inf, "2"]),
    "idcg": (False, ["yes"]),
    "include_positive": (True, ["yes"]),
    "k": (7, [0, SIZES["n_items"] + 1, 2.5]),
    "log_q": (True, ["yes"]),
    "margin": (0.4, [-1.1, 1, math.nan, "0.1"]),
    "neg_weight": (2.0, POSITIVE),
    "nontarget_weight": (1.5, [-0.1, math.nan, math.inf, "0.1"]),
    "over": ("all", ["some"]),
    "rank_rescale": ("proportional", ["linear"]),
    "rank_scale": (True, ["yes"]),
    "ranks": ("sampled", ["exact"]),
    "refresh": (3, [0]),
    "samples": (11, [0]),
    "scope": ("row", ["item"]),
    "sharpness": (1.5, POSITIVE),
    "smoothing": (0.3, [-0.1, 1, math.nan, "0.1"]),
    "solver": ("bisect", ["newton"]),
    "t": (0.3, [-0.1, 1.1, math.nan, "0.1"]),
    "tau": (0.07, POSITIVE),
    "tau_neg": (0.3, POSITIVE),
    "tau_pos": (0.3, POSITIVE),
    "tau_rank": (0.2, POSITIVE),
    "tau_step": (2.0, POSITIVE),
    "tau_weight": (1.5, POSITIVE),
    "threshold": ("exact", ["median"]),
    "threshold_lr": (0.02, POSITIVE),
}
"""Per hyper-parameter, a value that is no default, and values that are refused."""
OF_A_LOSS: dict[tuple[str, str], tuple[object, list[object]]] = {
    ("bsl", "variant"): ("per_sample", ["pooled"]),
    ("lambdaloss", "variant"): ("ir_benchmark", ["code"]),
    ("lambdalossatk", "variant"): ("ir_benchmark", ["code"]),
    ("sl", "reduce"): ("mean", ["max"]),
    ("smoothiatk", "delta"): (0.3, [-0.1, 1, math.nan, "0.1"]),
    ("smoothiatk", "k"): (7, [0, 2.5]),
    ("smoothiatk", "variant"): ("scalar", ["vector"]),
    ("song", "margin"): (0.4, POSITIVE),
    ("songatk", "margin"): (0.4, POSITIVE),
    ("talos", "variant"): ("no_quantile", ["none"]),
}
"""The same for a name that means something else in one loss."""


def values(loss: str, parameter: str) -> tuple[object, list[object]]:
    found = OF_A_LOSS.get((loss, parameter), VALUES.get(parameter))
    assert found is not None, f"teach this test values of {loss}'s {parameter}"
    return found


def hyper_parameters(name: str) -> list[str]:
    return [p.name for p in inspect.signature(LOSSES[name]).parameters.values() if p.kind is p.KEYWORD_ONLY]


def stored(loss: Loss, parameter: str) -> object:
    """What the loss, or a module of its own, keeps of a hyper-parameter."""
    if parameter == "threshold":
        return loss.threshold.kind
    return next(getattr(module, parameter) for module in loss.modules() if hasattr(module, parameter))


EVERY = [(name, parameter) for name in LOSSES for parameter in hyper_parameters(name)]
NEEDS_KIND = {
    "threshold_lr": ("lr", "regression"),
    "refresh": ("refresh", "exact"),
    "samples": ("samples", "monte_carlo"),
}
BESIDE: dict[tuple[str, str], dict[str, object]] = {("drrl", "scope"): {"solver": "bisect"}}
"""What else has to be given for the value of ``VALUES`` to be accepted."""


@pytest.mark.parametrize(("name", "parameter"), EVERY)
def test_it_is_passed_on(name, parameter):
    given, _ = values(name, parameter)
    assert given != inspect.signature(LOSSES[name]).parameters[parameter].default
    key, kind = NEEDS_KIND.get(parameter, (parameter, None))
    params = {parameter: given} | ({"threshold": kind} if kind else {}) | BESIDE.get((name, parameter), {})
    assert stored(build(name, params, **SIZES, seed=0), key) == given


@pytest.mark.parametrize(("name", "parameter"), EVERY)
def test_a_value_out_of_range_is_named(name, parameter):
    _, refused = values(name, parameter)
    for value in refused:
        with pytest.raises(ValueError, match=rf"^{parameter} must .*{value}"):
            build(name, {parameter: value}, **SIZES, seed=0)


SPECIFIED = {
    "advinfonce": {"neg_weight": 64.0, "adv_lr": 5e-5},
    "aatp": {"k": 20, "threshold": "regression", "threshold_lr": 1e-3},
    "bsl": {"variant": "bilateral"},
    "ccl": {"margin": 0.7},
    "desorec": {"conf_softness": 0.3, "conf_weight": 0.7, "nontarget_weight": None},
    "drrl": {"beta_lr": 1e-3, "beta_init": 0.7, "eps": 0.0, "solver": "sgd", "scope": "user"},
    "gbce": {"t": 0.75},
    "lambdaloss": {"variant": "paper", "rank_rescale": "affine", "ranks": "all"},
    "lambdalossatk": {"k": 20, "variant": "paper", "rank_rescale": "affine", "ranks": "all"},
    "llpauc": {"ascend": True},
    "psl": {"activation": "tanh"},
    "rsatk": {"k": 20, "rank_scale": False},
    "sl": {"include_positive": False, "reduce": "sum", "over": "sampled", "log_q": False},
    "slatk": {"tau_weight": 2.25, "k": 20, "threshold": "monte_carlo", "samples": 1000},
    "smoothiatk": {"k": 20, "variant": "per_item"},
    "sogclr": {"ema": 0.9},
    "sogslatk": {"tau_weight": 2.25, "ema": 0.9, "k": 20},
    "song": {"margin": 1.0, "idcg": True},
    "songatk": {"margin": 1.0, "sharpness": 2.0, "k": 20, "threshold": "smoothed"},
    "talos": {"k": 20, "variant": "full", "threshold": "regression", "threshold_lr": 1e-3},
}
"""Defaults that a paper or its code fixes."""


@pytest.mark.parametrize("name", SPECIFIED)
def test_the_defaults_are_the_papers(name):
    parameters = inspect.signature(LOSSES[name]).parameters
    assert {key: parameters[key].default for key in SPECIFIED[name]} == SPECIFIED[name]
