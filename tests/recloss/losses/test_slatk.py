"""SL@K against goldens, its formula in plain Python, its limits, and the bound on DCG@K it is built for."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from recloss.interactions import Interactions
from recloss.losses import Batch, SLatK
from recloss.losses.sl import sl
from recloss.losses.slatk import slatk

TALOS_PAGE = ["SLatK_t0.2_tw1.25_A", "SLatK_t0.1_tw0.5_A", "SLatK_t0.2_tw1.25_B", "SLatK_t0.1_tw0.5_B"]


def random_scores(rows: int = 5, negatives: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = [(rows,), (rows, negatives), (rows,)]
    return tuple((2 * torch.rand(s, generator=generator) - 1).double() for s in shapes)  # type: ignore[return-value]


@pytest.mark.parametrize("name", TALOS_PAGE)
def test_golden_of_the_talos_page(name, golden, agrees):
    case = golden(name)
    beta, params = case["inputs"]["beta"], case["params"]

    def per_sample(p, n):
        return slatk(p, n, torch.tensor(beta, dtype=p.dtype), params["tau"], params["tau_w"])

    agrees(per_sample, case["inputs"]["pos"], case["inputs"]["neg"], case)


def test_golden_through_the_class_with_its_threshold_per_user(golden, agrees):
    case = golden("slatk")
    inputs = case["inputs"]
    users = torch.tensor(inputs["users"])

    def per_sample(p, n):
        loss = SLatK(2, 50, tau=inputs["tau_d"], tau_weight=inputs["tau_w"]).to(p.dtype)
        loss.threshold.value[:] = torch.tensor(inputs["beta_per_user"], dtype=p.dtype)
        rows = [loss(Batch(p[b : b + 1], n[b : b + 1], user=users[b : b + 1])) for b in range(3)]
        torch.testing.assert_close(loss(Batch(p, n, user=users)), torch.stack(rows).mean())
        return torch.stack(rows)

    agrees(per_sample, inputs["pos"], inputs["neg"], case | {"grad_pos": case["grad_pos_full"]})


def test_the_weight_is_not_detached(golden):
    """The golden gives the gradient of the positive without the weight's share; ours must be the other one."""
    case = golden("slatk")
    inputs = case["inputs"]
    pos, neg = (torch.tensor(inputs[key], dtype=torch.float64) for key in ("pos", "neg"))
    beta = torch.tensor(inputs["beta_per_user"], dtype=torch.float64)[inputs["users"]]
    pos.requires_grad_()
    slatk(pos, neg, beta, inputs["tau_d"], inputs["tau_w"]).mean().backward()
    detached = torch.tensor(case["grad_pos_weight_detached"], dtype=torch.float64)
    w = torch.tensor(case["weights"], dtype=torch.float64)
    share = w * (1 - w) / inputs["tau_w"] * sl(pos, neg, inputs["tau_d"]).detach() / len(pos)
    torch.testing.assert_close(pos.grad, detached + share, rtol=1e-9, atol=1e-12)
    assert bool((pos.grad > detached + 0.01).all())


@pytest.mark.parametrize("name", ["slatk_limit_tau_w_inf", "slatk_limit_beta_minus_inf", "slatk_limit_tau_w_zero"])
def test_golden_of_a_limit(name, golden, agrees):
    case = golden(name)
    inputs = case["inputs"]
    beta = [inputs["beta_per_user"][u] for u in inputs["users"]] if "users" in inputs else [inputs["beta"]] * 3

    def per_sample(p, n):
        return slatk(p, n, torch.tensor(beta, dtype=p.dtype), inputs["tau_d"], inputs["tau_w"])

    agrees(per_sample, inputs["pos"], inputs["neg"], case)


def test_limits_towards_sl():
    pos, neg, beta = random_scores()
    torch.testing.assert_close(slatk(pos, neg, beta, 0.2, 1e12), sl(pos, neg, 0.2) / 2, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(slatk(pos, neg, beta - 1e4, 0.2, 2.25), sl(pos, neg, 0.2), rtol=1e-12, atol=0)
    hard = torch.where(pos > beta, sl(pos, neg, 0.2), 0.0)
    torch.testing.assert_close(slatk(pos, neg, beta, 0.2, 1e-9), hard, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("tau", "tau_weight"), [(0.05, 2.25), (0.2, 0.5), (1.0, 1.0)])
def test_against_the_formula_in_plain_python(tau, tau_weight):
    pos, neg, beta = random_scores()
    expected = [
        1 / (1 + math.exp(-(p - b) / tau_weight)) * math.log(sum(math.exp((n - p) / tau) for n in row))
        for p, row, b in zip(pos.tolist(), neg.tolist(), beta.tolist(), strict=True)
    ]
    found = slatk(pos, neg, beta, tau, tau_weight)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_gradcheck_in_all_scores_and_the_threshold():
    inputs = [x.requires_grad_() for x in random_scores(3, 4)]
    assert gradcheck(lambda p, n, b: slatk(p, n, b, 0.2, 1.5), inputs)


@pytest.mark.parametrize(("margin", "upward"), [(1.001, True), (0.999, False)])
def test_the_pull_on_the_positive_turns_where_the_spec_says(margin, upward):
    """Upward iff tau_weight > tau (1 - w) SL; here with w = 1/2, at beta = p."""
    pos = torch.tensor([0.1], dtype=torch.float64, requires_grad=True)
    neg = torch.tensor([[0.4, -0.2, 0.3]], dtype=torch.float64)
    turning = 0.2 * 0.5 * sl(pos, neg, 0.2).item()
    slatk(pos, neg, pos.detach(), 0.2, margin * turning).sum().backward()
    assert (pos.grad.item() < 0) == upward


def test_bounds_minus_log_dcg():
    """Theorem 3.2: over all items, with the exact threshold and two hits or more, -log DCG@K <= the user's sum."""
    generator = torch.Generator().manual_seed(0)
    tried = 0
    for _ in range(100):
        scores = 2 * torch.rand(30, generator=generator).double() - 1
        positives = torch.randperm(30, generator=generator)[: int(torch.randint(2, 9, (), generator=generator))]
        k = int(torch.randint(2, 15, (), generator=generator))
        ranks = (scores > scores[positives, None]).sum(1) + 1
        hits = ranks[ranks <= k]
        if len(hits) < 2:
            continue
        tried += 1
        dcg = sum(1 / math.log2(1 + rank) for rank in hits.tolist())
        beta = scores.sort(descending=True).values[k - 1].expand(len(positives))
        for tau in (0.02, 0.2, 1.0):
            bound = slatk(scores[positives], scores.expand(len(positives), 30), beta, tau, 1.0).sum()
            assert -math.log(dcg) <= float(bound)
    assert tried > 30


def test_thresholds_are_state_without_gradient_and_without_optimiser_group():
    loss = SLatK(4, 50)
    assert list(loss.parameters()) == []
    assert loss.parameter_groups(0.1) == []
    assert set(loss.state_dict()) == {"threshold.value"}
    assert torch.equal(loss.threshold.value, torch.zeros(4))


def test_the_hook_refreshes_the_thresholds_it_uses():
    class Ones:
        epoch = 5
        train = Interactions(torch.tensor([0, 1]), torch.tensor([0, 1]), 2, 4)

        def scores(self, users):
            return torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]])[users]

        def negatives(self, users, n, purpose):
            return torch.full((len(users), n), 3)

    loss = SLatK(2, 4, tau=0.2, tau_weight=2.0, k=2, samples=3)
    pos, neg, user = torch.tensor([0.3, 0.1]), torch.tensor([[0.2], [0.5]]), torch.tensor([1, 0])
    before = loss(Batch(pos, neg, user=user))
    torch.testing.assert_close(before, slatk(pos, neg, torch.zeros(2), 0.2, 2.0).mean())
    loss.on_epoch_start(Ones())
    torch.testing.assert_close(
        loss(Batch(pos, neg, user=user)), slatk(pos, neg, torch.tensor([0.8, 0.4]), 0.2, 2.0).mean()
    )
