"""SmoothI@K against goldens, its recursion in plain Python, its limits, and the stopped gradient."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from recloss.losses import Batch, SmoothIatK
from recloss.losses.sl import sl
from recloss.losses.smoothiatk import smoothiatk

VARIANT = {"repo": "scalar", "paper": "per_item"}
CASES = [f"SmoothI_{v}_{params}_{b}" for v in VARIANT for params in ("t0.1_d0.05_K3", "t0.2_d0.3_K5") for b in "AB"]
both_variants = pytest.mark.parametrize("variant", ["per_item", "scalar"])


def random_scores(rows: int = 5, negatives: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(10)
    pos, neg = torch.rand(rows, generator=generator), torch.rand(rows, negatives, generator=generator)
    return (2 * pos - 1).double(), (2 * neg - 1).double()


def in_plain_python(p: float, row: list[float], k: int, tau: float, delta: float, variant: str):
    """The loss of one row, and the factors c of every rank."""
    low = min(p, *row)
    s = [x - low for x in (p, *row)]
    c, taken, factors = [1.0] * len(s), 0.0, []
    for _ in range(k):
        factors.append(list(c))
        powers = [math.exp(x * y / tau) for x, y in zip(c, s, strict=True)]
        share = [x / sum(powers) for x in powers]
        taken += share[0]
        c = [x * (1 - (share[0] if variant == "scalar" else y) - delta) for x, y in zip(c, share, strict=True)]
    return 1 - taken / k, factors


@pytest.mark.parametrize("name", CASES)
def test_golden(name, golden, agrees):
    case = golden(name)
    k, tau, delta = (case["params"][key] for key in ("K", "tau", "delta"))
    variant = VARIANT[name.split("_")[1]]

    def per_sample(p, n):
        found = smoothiatk(p, n, k, tau, delta, variant)
        loss = SmoothIatK(k=k, tau=tau, delta=delta, variant=variant)
        torch.testing.assert_close(loss(Batch(p, n)), found.mean())
        return found

    agrees(per_sample, case["inputs"]["pos"], case["inputs"]["neg"], case)


def test_golden_limit_of_a_positive_at_rank_2(golden):
    case = golden("SmoothI_limit")
    pos, neg = (torch.tensor(case[key], dtype=torch.float64) for key in ("pos", "neg"))
    for variant, key in (("per_item", "paper_variant_loss"), ("scalar", "repo_variant_loss")):
        found = smoothiatk(pos, neg, case["K"], 1 / case["alpha"], case["delta"], variant)
        assert found.item() == pytest.approx(case[key], abs=1e-9)
    assert case["paper_variant_loss"] == case["hard_1-P@2"]


@both_variants
@pytest.mark.parametrize(("k", "tau", "delta"), [(1, 0.1, 0.05), (4, 0.05, 0.3), (20, 0.3, 0.0)])
def test_against_the_formula_in_plain_python(variant, k, tau, delta):
    pos, neg = random_scores()
    expected = [
        in_plain_python(p, row, k, tau, delta, variant)[0] for p, row in zip(pos.tolist(), neg.tolist(), strict=True)
    ]
    found = smoothiatk(pos, neg, k, tau, delta, variant)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12)


@both_variants
@pytest.mark.parametrize("k", [2, 6])
def test_gradients_treat_the_factors_as_constants(variant, k):
    """Against the closed form: with constant c, dI_0/ds_j = I_0 (1[j = 0] - I_j) c_j / tau, s less its minimum."""
    pos, neg = (x.requires_grad_() for x in random_scores())
    smoothiatk(pos, neg, k, 0.2, 0.05, variant).sum().backward()
    for b in range(len(pos)):
        s = torch.cat([pos[b : b + 1], neg[b]]).detach()
        s, lowest = s - s.min(), int(s.argmin())
        expected = torch.zeros_like(s)
        for factors in in_plain_python(pos[b].item(), neg[b].tolist(), k, 0.2, 0.05, variant)[1]:
            c = torch.tensor(factors, dtype=torch.float64)
            share = (c * s / 0.2).softmax(0)
            slope = share[0] * (F.one_hot(torch.tensor(0), len(s)) - share) * c / 0.2
            slope[lowest] -= slope.sum()
            expected -= slope / k
        torch.testing.assert_close(torch.cat([pos.grad[b : b + 1], neg.grad[b]]), expected, rtol=1e-9, atol=1e-12)


@both_variants
def test_gradcheck_where_no_factor_has_moved(variant):
    pos, neg = (x.requires_grad_() for x in random_scores(3, 4))
    assert gradcheck(lambda p, n: smoothiatk(p, n, 1, 0.2, 0.1, variant), (pos, neg))
    assert not gradcheck(lambda p, n: smoothiatk(p, n, 3, 0.2, 0.1, variant), (pos, neg), raise_exception=False)


@both_variants
def test_one_rank_is_the_softmax_with_the_positive(variant):
    pos, neg = random_scores()
    found = smoothiatk(pos, neg, 1, 0.15, 0.2, variant)
    torch.testing.assert_close(found, 1 - torch.exp(-F.softplus(sl(pos, neg, 0.15))), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("k", [1, 2, 4, 7])
def test_the_limit_per_item_is_one_minus_precision(k):
    """The positive takes one of K ranks if it is among them; the scalar variant sees rank 1 alone."""
    pos, neg = random_scores(60)
    rank = 1 + (neg > pos[:, None]).sum(1)
    per_item, scalar = (smoothiatk(pos, neg, k, 1e-6, 0.01, v) for v in ("per_item", "scalar"))
    torch.testing.assert_close(per_item, 1 - (rank <= k).double() / k, rtol=0, atol=1e-9)
    torch.testing.assert_close(scalar, 1 - (rank == 1).double() / k, rtol=0, atol=1e-9)
    assert bool((rank == k).any() & (rank > k).any())


@both_variants
def test_a_shift_of_all_scores_changes_nothing(variant):
    pos, neg = (x.requires_grad_() for x in random_scores())
    found = smoothiatk(pos, neg, 4, 0.2, 0.1, variant)
    torch.testing.assert_close(smoothiatk(pos + 0.7, neg + 0.7, 4, 0.2, 0.1, variant), found, rtol=1e-10, atol=0)
    found.sum().backward()
    torch.testing.assert_close(pos.grad + neg.grad.sum(1), torch.zeros_like(pos), rtol=0, atol=1e-12)


def test_per_item_can_pull_a_negative_either_way_and_scalar_cannot_before_the_positive_leads():
    """A negative that takes rank 1 before the positive takes rank 2 lowers the loss by rising."""
    pos = torch.tensor([0.8], dtype=torch.float64)
    signs = {}
    for variant in ("per_item", "scalar"):
        neg = torch.tensor([[0.75, -0.6, 0.2, 0.9]], dtype=torch.float64, requires_grad=True)
        smoothiatk(pos, neg, 3, 0.1, 0.05, variant).sum().backward()
        signs[variant] = set(neg.grad.sign().flatten().tolist())
    assert signs == {"per_item": {-1.0, 1.0}, "scalar": {1.0}}


def test_it_has_no_state():
    loss = SmoothIatK(k=3)
    assert loss.state_dict() == {}
    assert loss.parameter_groups(0.1) == []
