"""SL against goldens, its formula in plain Python, and its identities."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from recloss.losses import SL, Batch
from recloss.losses.sl import sl


def random_scores(rows: int = 5, negatives: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    pos, neg = torch.rand(rows, generator=generator), torch.rand(rows, negatives, generator=generator)
    return (2 * pos - 1).double(), (2 * neg - 1).double()


@pytest.mark.parametrize("name", ["SL_tau0.2_A", "SL_tau0.1_B"])
def test_golden_of_the_talos_page(name, golden, agrees):
    case = golden(name)
    agrees(lambda p, n: sl(p, n, case["params"]["tau"]), case["inputs"]["pos"], case["inputs"]["neg"], case)


def test_golden_of_the_slatk_page(golden, agrees):
    case = golden("sl_sum_neg_only")
    agrees(lambda p, n: sl(p, n, case["inputs"]["tau"]), case["inputs"]["pos"], case["inputs"]["neg"], case)


def test_goldens_of_the_other_denominators_follow_from_it(golden):
    """softplus(SL) has the positive in the denominator; SL - log N is the log of the mean."""
    inputs = golden("sl_sum_incl_positive")["inputs"]
    pos, neg = (torch.tensor(inputs[key], dtype=torch.float64) for key in ("pos", "neg"))
    loss = sl(pos, neg, inputs["tau"])
    for name, found in (("sl_sum_incl_positive", loss.exp().log1p()), ("sl_mean_neg_only", loss - math.log(4))):
        expected = torch.tensor(golden(name)["per_sample"], dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_golden_at_tau_001_in_float32(golden):
    case = golden("stability_float32_tau0.01")
    loss = sl(torch.tensor(case["pos"]), torch.tensor(case["neg"]), case["tau"])
    torch.testing.assert_close(loss, torch.tensor(case["SL"]), rtol=case["rtol"], atol=0)


@pytest.mark.parametrize("tau", [0.05, 0.2, 1.0, 3.0])
def test_against_the_formula_in_plain_python(tau):
    pos, neg = random_scores()
    expected = [
        math.log(sum(math.exp((n - p) / tau) for n in row)) for p, row in zip(pos.tolist(), neg.tolist(), strict=True)
    ]
    torch.testing.assert_close(sl(pos, neg, tau), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_gradients_are_the_closed_form():
    pos, neg = (x.requires_grad_() for x in random_scores())
    sl(pos, neg, 0.2).sum().backward()
    torch.testing.assert_close(pos.grad, torch.full_like(pos, -5.0))
    torch.testing.assert_close(neg.grad, (neg / 0.2).softmax(1) / 0.2)
    torch.testing.assert_close(pos.grad + neg.grad.sum(1), torch.zeros_like(pos), rtol=0, atol=1e-12)


def test_gradcheck():
    pos, neg = (x.requires_grad_() for x in random_scores(3, 4))
    assert gradcheck(lambda p, n: sl(p, n, 0.2), (pos, neg))


def test_limits_of_the_temperature():
    pos, neg = random_scores()
    torch.testing.assert_close(1e-5 * sl(pos, neg, 1e-5), neg.max(1).values - pos, rtol=0, atol=1e-4)
    hot = math.log(7) + (neg.mean(1) - pos) / 1e6
    torch.testing.assert_close(sl(pos, neg, 1e6), hot, rtol=0, atol=1e-11)


def test_one_negative_is_the_scaled_difference_and_may_be_negative():
    loss = sl(torch.tensor([0.9]), torch.tensor([[0.4]]), 0.1)
    torch.testing.assert_close(loss, torch.tensor([-5.0]))


def test_the_class_is_the_mean_with_its_tau():
    pos, neg = random_scores()
    assert float(SL(tau=0.3)(Batch(pos, neg))) == pytest.approx(float(sl(pos, neg, 0.3).mean()), rel=1e-12)
    assert SL.similarity == "cosine"
