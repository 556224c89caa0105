"""PSL against goldens, its formula in plain Python, and its identities with SL and Talos."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from recloss.losses import PSL, Batch
from recloss.losses.bpr import bpr
from recloss.losses.psl import log_activation, psl
from recloss.losses.sl import sl
from recloss.losses.talos import talos

ACTIVATIONS = {
    "tanh": lambda x: 1 + math.tanh(x),
    "arctan": lambda x: 1 + math.atan(x),
    "relu": lambda x: max(0, 1 + x),
}


def random_scores(rows: int = 5, negatives: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    pos, neg = torch.rand(rows, generator=generator), torch.rand(rows, negatives, generator=generator)
    return (2 * pos - 1).double(), (2 * neg - 1).double()


@pytest.mark.parametrize("batch", ["A", "B"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_golden_of_the_talos_page(activation, batch, golden, agrees):
    case = golden(f"PSL_{activation}_tau0.1_{batch}")
    agrees(lambda p, n: psl(p, n, 0.1, activation), case["inputs"]["pos"], case["inputs"]["neg"], case)


@pytest.mark.parametrize(("name", "activation"), [("tanh", "tanh"), ("atan", "arctan"), ("relu", "relu")])
def test_golden_of_the_slatk_page(name, activation, golden, agrees):
    """The goldens' ``tau_star`` is the PSL paper's temperature on half-cosines; it is ``tau`` itself."""
    case = golden(f"psl1_{name}")
    tau = case["inputs"]["tau_star"]
    agrees(lambda p, n: psl(p, n, tau, activation), case["inputs"]["pos"], case["inputs"]["neg"], case)


@pytest.mark.parametrize("name", ["psl1_exp", "PSL_exp_tau0.1_A", "PSL_exp_tau0.1_B"])
def test_golden_of_the_exponential_form_is_sl_at_twice_the_temperature(name, golden, agrees):
    case = golden(name)
    agrees(lambda p, n: sl(p, n, 2 * 0.1), case["inputs"]["pos"], case["inputs"]["neg"], case)


def test_golden_of_a_dead_negative(golden, agrees):
    case = golden("psl1_relu_dead_negative")
    agrees(lambda p, n: psl(p, n, 0.1, "relu"), case["inputs"]["pos"], case["inputs"]["neg"], case)


@pytest.mark.parametrize("name", ["tanh", "atan", "relu"])
def test_golden_of_the_pooled_form_from_the_activations(name, golden):
    """Method 2 is the log of the mean of a^(1/tau) over the whole block."""
    case = golden(f"psl2_{name}")
    pos, neg = (torch.tensor(case["inputs"][key], dtype=torch.float64) for key in ("pos", "neg"))
    logs = log_activation(neg - pos[:, None], "arctan" if name == "atan" else name) / case["inputs"]["tau_star"]
    assert float(logs.logsumexp((0, 1))) - math.log(neg.numel()) == pytest.approx(case["scalar"], rel=1e-9)


def test_golden_at_tau_001_in_float32(golden):
    case = golden("stability_float32_tau0.01")
    loss = psl(torch.tensor(case["pos"]), torch.tensor(case["neg"]), case["tau"], "tanh")
    torch.testing.assert_close(loss, torch.tensor(case["PSL_tanh"]), rtol=case["rtol"], atol=1e-6)


@pytest.mark.parametrize("tau", [0.05, 0.1, 1.0])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_against_the_formula_in_plain_python(activation, tau):
    pos, neg = random_scores()
    a = ACTIVATIONS[activation]
    expected = [
        math.log(sum(a((n - p) / 2) ** (1 / tau) for n in row))
        for p, row in zip(pos.tolist(), neg.tolist(), strict=True)
    ]
    found = psl(pos, neg, tau, activation)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradcheck_and_shift_invariance(activation):
    pos, neg = (x.requires_grad_() for x in random_scores(3, 4))
    assert gradcheck(lambda p, n: psl(p, n, 0.2, activation), (pos, neg))
    psl(pos, neg, 0.1, activation).sum().backward()
    torch.testing.assert_close(pos.grad + neg.grad.sum(1), torch.zeros_like(pos), rtol=0, atol=1e-12)


def test_gradient_weights_are_the_closed_form():
    """a'(d) a(d)^(1/tau - 1) / tau, normalised over the row; half of it reaches each score."""
    pos, neg = (x.requires_grad_() for x in random_scores())
    psl(pos, neg, 0.1, "tanh").sum().backward()
    d = ((neg - pos[:, None]) / 2).detach()
    weight = (1 - d.tanh() ** 2) * (1 + d.tanh()) ** 9 / 0.1
    torch.testing.assert_close(neg.grad, weight / 2 / ((1 + d.tanh()) ** 10).sum(1, keepdim=True))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_lie_between_the_step_and_the_exponential(activation):
    """The paper's condition 1[d >= 0] <= a(d) <= exp(d) on [-1, 1]."""
    d = torch.linspace(-1, 1, 401, dtype=torch.float64)
    a = log_activation(2 * d, activation).exp()
    assert bool((a[d >= 0] >= 1).all())
    assert bool((a <= d.exp() + 1e-12).all())


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_bounds_against_sl_at_twice_the_temperature(activation):
    pos, neg = random_scores()
    assert bool((psl(pos, neg, 0.1, activation) <= sl(pos, neg, 0.2)).all())
    near = psl(pos / 1000, neg / 1000, 0.1, activation)
    torch.testing.assert_close(near, sl(pos / 1000, neg / 1000, 0.2), rtol=0, atol=1e-5)


def test_tanh_is_talos_with_the_positive_as_threshold():
    pos, neg = random_scores()
    torch.testing.assert_close(psl(pos, neg, 0.1, "tanh"), talos(pos, neg, pos, 0.1), rtol=1e-12, atol=1e-12)


def test_tanh_with_one_negative_is_bpr_up_to_the_temperature():
    """log 2 + log sigmoid(n - p) = log 2 - softplus(p - n)."""
    pos, neg = random_scores(negatives=1)
    swapped = bpr(neg[:, 0], pos[:, None])
    torch.testing.assert_close(psl(pos, neg, 0.1, "tanh"), (math.log(2) - swapped) / 0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("pos", "neg"), [(1.0, [-1.0, -1.0, -1.0]), (1.0, [-1.0, 1.0, -1.0]), (1.2, [-1.3, -1.2, -5.0])]
)
def test_dead_negatives_are_finite_and_get_no_gradient(pos, neg, dtype):
    pos = torch.tensor([pos], dtype=dtype, requires_grad=True)
    neg = torch.tensor([neg], dtype=dtype, requires_grad=True)
    loss = psl(pos, neg, 0.05, "relu")
    loss.sum().backward()
    alive = (neg > pos[:, None] - 2).detach()
    assert bool(torch.isfinite(loss).all())
    assert bool(torch.isfinite(neg.grad).all())
    assert bool((neg.grad[~alive] == 0).all())
    assert bool((neg.grad[alive] > 0).all())
    expected = (math.log(1e-12) / 0.05 + math.log(3)) if not alive.any() else 0.0
    assert loss.item() == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_the_class_is_the_mean_with_its_tau_and_activation():
    pos, neg = random_scores()
    loss = PSL(tau=0.3, activation="relu")(Batch(pos, neg))
    assert float(loss) == pytest.approx(float(psl(pos, neg, 0.3, "relu").mean()), rel=1e-12)
    assert PSL.similarity == "cosine"
