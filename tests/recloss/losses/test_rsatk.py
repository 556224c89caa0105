"""RS@K against goldens, its formula in plain Python, its limit, and the estimated rank in the catalogue."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from recloss.losses import Batch, RSatK
from recloss.losses.rsatk import rsatk

CASES = [f"RSatK_{params}_{batch}" for params in ("t1_0.05_t2_5.0_K20", "t1_0.1_t2_1.0_K2") for batch in "AB"]


def random_scores(rows: int = 5, negatives: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(9)
    pos, neg = torch.rand(rows, generator=generator), torch.rand(rows, negatives, generator=generator)
    return (2 * pos - 1).double(), (2 * neg - 1).double()


@pytest.mark.parametrize("name", CASES)
def test_golden(name, golden, agrees):
    case = golden(name)
    params = case["params"]

    def per_sample(p, n):
        found = rsatk(p, n, params["K"], params["tau1_inner"], params["tau2_outer"])
        loss = RSatK(50, k=params["K"], tau_rank=params["tau1_inner"], tau_step=params["tau2_outer"])
        torch.testing.assert_close(loss(Batch(p, n)), found.mean())
        return found

    agrees(per_sample, case["inputs"]["pos"], case["inputs"]["neg"], case)


def test_golden_hard_limit(golden):
    """Small temperatures count: 0 inside the top K, 1 outside, 1/2 at rank K exactly."""
    case = golden("RSatK_hard_limit")
    pos, neg = (torch.tensor(case[key], dtype=torch.float64) for key in ("pos", "neg"))
    found = rsatk(pos, neg, case["K"], 1e-6, 1e-6)
    assert found.tolist() == case["loss_tau1_1e-6_tau2_1e-6"] == case["hard_1_minus_hit"]
    at_rank_k = rsatk(torch.tensor([0.5]), torch.tensor([[0.9, 0.1]]), 2, 1e-6, 1e-6)
    assert at_rank_k.tolist() == [case["boundary_rank_equals_K(K=2,#above=1)"]]


@pytest.mark.parametrize("k", [1, 2, 5, 7])
def test_the_limit_is_the_step_at_rank_k(k):
    pos, neg = random_scores(40)
    above = (neg > pos[:, None]).sum(1)
    expected = torch.where(above == k - 1, 0.5, (above >= k).double())
    assert rsatk(pos, neg, k, 1e-7, 1e-7).tolist() == expected.tolist()
    assert {0.0, 0.5, 1.0} >= set(expected.tolist())
    assert 0.5 in expected.tolist()


@pytest.mark.parametrize(("k", "tau_rank", "tau_step", "weight"), [(3, 0.05, 1.0, 1.0), (20, 0.3, 5.0, 6.5)])
def test_against_the_formula_in_plain_python(k, tau_rank, tau_step, weight):
    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    pos, neg = random_scores()
    expected = [
        1 - sigmoid((k - 1 - weight * sum(sigmoid((n - p) / tau_rank) for n in row)) / tau_step)
        for p, row in zip(pos.tolist(), neg.tolist(), strict=True)
    ]
    found = rsatk(pos, neg, k, tau_rank, tau_step, weight)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12)


def test_gradcheck():
    pos, neg = (x.requires_grad_() for x in random_scores(3, 4))
    weight = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    assert gradcheck(lambda p, n: rsatk(p, n, 2, 0.2, 1.0), (pos, neg))
    assert gradcheck(lambda p, n: rsatk(p, n, 2, 0.2, 1.0, weight), (pos, neg))


def test_a_shift_of_all_scores_changes_nothing():
    pos, neg = (x.requires_grad_() for x in random_scores())
    found = rsatk(pos, neg, 3, 0.1, 1.0)
    torch.testing.assert_close(rsatk(pos + 0.7, neg + 0.7, 3, 0.1, 1.0), found, rtol=1e-10, atol=0)
    found.sum().backward()
    torch.testing.assert_close(pos.grad, -neg.grad.sum(1), rtol=1e-10, atol=0)


def test_a_positive_far_below_a_long_list_has_next_to_no_gradient():
    """The published weakness: with 1,024 negatives the step at K = 20 is out of reach at the start of training."""
    generator = torch.Generator().manual_seed(0)
    neg = torch.randn(1, 1024, generator=generator).double() / 8
    middle = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    high = torch.full((1,), 0.25, dtype=torch.float64, requires_grad=True)
    (rsatk(middle, neg, 20, 0.05, 5.0) + rsatk(high, neg, 20, 0.05, 5.0)).backward()
    assert abs(middle.grad.item()) < 1e-30
    assert -high.grad.item() > 0.01


def test_the_scaled_rank_is_the_rank_in_the_catalogue():
    """Of 100 items a user has 4; each of 24 sampled negatives stands for four, so R is four times as large."""
    pos, neg = random_scores(2, 24)
    counts = torch.tensor([4, 52])
    loss = RSatK(100, tau_rank=0.1, tau_step=2.0, k=5, rank_scale=True)
    assert loss.needs == {"n_positives"}
    four, two = (rsatk(pos, neg.repeat(1, times), 5, 0.1, 2.0) for times in (4, 2))
    found = loss(Batch(pos, neg, n_positives=counts))
    torch.testing.assert_close(found, (four[0] + two[1]) / 2, rtol=1e-12, atol=0)


def test_a_sample_of_all_negatives_needs_no_scale():
    pos, neg = random_scores(3, 30)
    scaled, plain = (RSatK(34, k=3, tau_rank=0.1, rank_scale=scale) for scale in (True, False))
    assert plain.needs == frozenset()
    batch = Batch(pos, neg, n_positives=torch.tensor([4, 4, 4]))
    assert torch.equal(scaled(batch), plain(batch))


def test_it_has_no_state():
    loss = RSatK(10, k=3)
    assert loss.state_dict() == {}
    assert loss.parameter_groups(0.1) == []
