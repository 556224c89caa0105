"""Talos against goldens, its formula in plain Python, its limits, and what is detached from what."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from recloss.interactions import Segments
from recloss.losses import Batch, Talos
from recloss.losses.psl import psl
from recloss.losses.sl import sl
from recloss.losses.talos import inner_temperature, no_denominator, talos

CASES = ["Talos_tau0.1_A", "Talos_tau0.05_A", "Talos_tau0.1_B", "Talos_tau0.05_B"]


def random_scores(rows: int = 5, negatives: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    shapes = [(rows,), (rows, negatives), (rows,)]
    return tuple((2 * torch.rand(s, generator=generator) - 1).double() for s in shapes)  # type: ignore[return-value]


def batch_of_three(dtype=torch.float64) -> Batch:
    """Users 1, 0, 1, with one and three positives; scores that want gradients."""
    pos = torch.tensor([0.6, -0.2, 0.3], dtype=dtype, requires_grad=True)
    neg = torch.tensor([[0.1, 0.5, -0.4], [0.3, -0.1, 0.0], [0.9, 0.2, -0.6]], dtype=dtype, requires_grad=True)
    ones = torch.tensor([0.6, 0.3, 0.7, -0.2, 0.6, 0.3, 0.7], dtype=dtype, requires_grad=True)
    return Batch(pos, neg, user=torch.tensor([1, 0, 1]), positives=Segments(ones, torch.tensor([0, 3, 4, 7])))


def loss_at(beta: list[float], dtype=torch.float64, n_items: int = 10, **params) -> Talos:
    loss = Talos(len(beta), n_items, **{"k": 3} | params).to(dtype)
    loss.threshold.value.data[:] = torch.tensor(beta, dtype=dtype)
    return loss


@pytest.mark.parametrize("name", CASES)
def test_golden(name, golden, agrees):
    case = golden(name)

    def per_sample(p, n):
        return talos(p, n, torch.tensor(case["inputs"]["beta"], dtype=p.dtype), case["params"]["tau"])

    agrees(per_sample, case["inputs"]["pos"], case["inputs"]["neg"], case)


@pytest.mark.parametrize("name", CASES)
def test_golden_gradient_of_an_undetached_threshold(name, golden):
    case = golden(name)
    pos, neg, beta = (torch.tensor(case["inputs"][x], dtype=torch.float64) for x in ("pos", "neg", "beta"))
    beta.requires_grad_()
    talos(pos, neg, beta, case["params"]["tau"]).mean().backward()
    expected = torch.tensor(case["grad_beta_if_not_detached"], dtype=torch.float64)
    torch.testing.assert_close(beta.grad, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("batch", ["A", "B"])
@pytest.mark.parametrize(
    ("variant", "name"),
    [
        ("no_quantile", "Talos_wo_quantile_tau0.1"),
        ("inner_temperature", "Talos_wo_outside_tau0.1"),
        ("no_denominator", "Talos_wo_denominator_tau0.1_K20"),
    ],
)
def test_golden_of_an_ablation_through_the_class(variant, name, batch, golden, agrees):
    """One user per row, so that every row has its own threshold; an estimator that adds no loss of its own."""
    case = golden(f"{name}_{batch}")
    inputs, params = case["inputs"], case["params"]
    beta = inputs.get("beta", [0.3] * len(inputs["pos"]))

    def per_sample(p, n):
        loss = loss_at(beta, p.dtype, n_items=50, tau=params["tau"], k=20, variant=variant, threshold="exact")
        users = torch.arange(len(p))
        rows = [loss(Batch(p[b : b + 1], n[b : b + 1], user=users[b : b + 1])) for b in range(len(p))]
        torch.testing.assert_close(loss(Batch(p, n, user=users)), torch.stack(rows).mean())
        return torch.stack(rows)

    if not any(map(any, case["grad_neg"])):
        del case["grad_neg"]  # negatives that are not read have no gradient, see below
    agrees(per_sample, inputs["pos"], inputs["neg"], case)


def test_golden_at_tau_001_in_float32(golden):
    case = golden("stability_float32_tau0.01")
    loss = talos(*(torch.tensor(case[x]) for x in ("pos", "neg", "beta")), case["tau"])
    torch.testing.assert_close(loss, torch.tensor(case["Talos"]), rtol=case["rtol"], atol=1e-6)


@pytest.mark.parametrize("tau", [0.05, 0.1, 1.0])
def test_against_the_formula_in_plain_python(tau):
    def power(x):
        return (1 / (1 + math.exp(-x))) ** (1 / tau)

    pos, neg, beta = random_scores()
    expected = [
        math.log(sum(power(n - b) for n in row)) - math.log(power(p - b))
        for p, row, b in zip(pos.tolist(), neg.tolist(), beta.tolist(), strict=True)
    ]
    found = talos(pos, neg, beta, tau)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("tau", "k"), [(0.05, 5), (0.3, 20), (1.0, 1)])
def test_against_the_formula_in_plain_python_of_the_ablations(tau, k):
    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    pos, neg, beta = random_scores()
    rows = list(zip(pos.tolist(), neg.tolist(), beta.tolist(), strict=True))
    inner = [math.log(sum(sigmoid((n - b) / tau) for n in row) / sigmoid((p - b) / tau)) for p, row, b in rows]
    constant = [math.log(k / sigmoid(p - b) ** (1 / tau)) for p, _, b in rows]
    for found, expected in (
        (inner_temperature(pos, neg, beta, tau), inner),
        (no_denominator(pos, beta, tau, k), constant),
    ):
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10)


def test_gradients_are_the_closed_form():
    pos, neg, beta = (x.requires_grad_() for x in random_scores())
    talos(pos, neg, beta, 0.1).sum().backward()
    with torch.no_grad():
        share = (torch.nn.functional.logsigmoid(neg - beta[:, None]) / 0.1).softmax(1)
        pull = torch.sigmoid(beta - pos)
        push = (share * torch.sigmoid(beta[:, None] - neg)).sum(1)
    torch.testing.assert_close(pos.grad, -pull / 0.1)
    torch.testing.assert_close(neg.grad, share * torch.sigmoid(beta[:, None] - neg).detach() / 0.1)
    torch.testing.assert_close(beta.grad, (pull - push) / 0.1)
    torch.testing.assert_close(pos.grad + neg.grad.sum(1), -beta.grad)
    assert bool((beta.grad.abs() <= 1 / 0.1).all())


def test_gradcheck():
    inputs = [x.requires_grad_() for x in random_scores(3, 4)]
    assert gradcheck(lambda p, n, b: talos(p, n, b, 0.2), inputs)


def test_limits_of_the_threshold():
    pos, neg, _ = (x.requires_grad_() for x in random_scores())
    torch.testing.assert_close(talos(pos, neg, pos.detach(), 0.1), psl(pos, neg, 0.1, "tanh"), rtol=1e-12, atol=1e-12)
    high = torch.full_like(pos, 40.0)
    torch.testing.assert_close(talos(pos, neg, high, 0.1), sl(pos, neg, 0.1), rtol=1e-12, atol=1e-12)
    low = talos(pos, neg, torch.full_like(pos, -60.0), 0.1)
    torch.testing.assert_close(low, torch.full_like(pos, math.log(7)), rtol=1e-12, atol=0)
    low.sum().backward()
    assert float(pos.grad.abs().max() + neg.grad.abs().max()) < 1e-20


def test_golden_identities(golden):
    case, inputs = golden("Talos_identities"), golden("Talos_tau0.1_B")["inputs"]
    pos, neg = (torch.tensor(inputs[key], dtype=torch.float64) for key in ("pos", "neg"))
    for beta, expected in ((pos, case["value_B"]), (torch.full_like(pos, 40.0), case["SL_value_B_tau0.1"])):
        found = talos(pos, neg, beta, 0.1)
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)


def test_the_class_is_the_mean_plus_the_regression():
    loss, batch = loss_at([0.05, 0.25], tau=0.1), batch_of_three()
    beta = torch.tensor([0.25, 0.05, 0.25], dtype=torch.float64)
    fit = loss.threshold.loss(batch.user, batch.neg, batch.positives)
    expected = talos(batch.pos, batch.neg, beta, 0.1).mean() + fit
    torch.testing.assert_close(loss(batch), expected, rtol=1e-12, atol=0)
    assert fit.item() > 0.01


def test_scores_learn_from_talos_alone_and_thresholds_from_the_regression_alone():
    loss, batch = loss_at([0.05, 0.25], tau=0.1), batch_of_three()
    loss(batch).backward()
    found = batch.pos.grad.clone(), batch.neg.grad.clone(), loss.threshold.value.grad.clone()
    assert batch.positives.values.grad is None

    alone, same = loss_at([0.05, 0.25], tau=0.1), batch_of_three()
    talos(same.pos, same.neg, torch.tensor([0.25, 0.05, 0.25], dtype=torch.float64), 0.1).mean().backward()
    alone.threshold.loss(same.user, same.neg, same.positives).backward()
    for name, left, right in zip(
        ("pos", "neg", "threshold"), found, (same.pos.grad, same.neg.grad, alone.threshold.value.grad), strict=True
    ):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-15, msg=name)
    assert bool((found[2] != 0).all())


def test_scores_that_need_no_gradient_still_move_the_threshold():
    loss, batch = loss_at([0.0, 0.0]), batch_of_three()
    fixed = Batch(batch.pos.detach(), batch.neg.detach(), user=batch.user, positives=batch.positives)
    loss(fixed).backward()
    assert bool((loss.threshold.value.grad != 0).all())


def test_the_threshold_has_a_group_of_its_own_without_decay():
    loss = Talos(3, 10, k=2, threshold_lr=0.004)
    (group,) = loss.parameter_groups(0.1)
    assert (group["name"], group["lr"], group["weight_decay"]) == ("threshold", 0.004, 0.0)
    assert [id(p) for p in group["params"]] == [id(p) for p in loss.parameters()]
    assert torch.equal(loss.threshold.value, torch.zeros(3))


def test_the_first_adam_step_moves_each_threshold_of_the_batch_by_its_rate():
    loss, batch = loss_at([0.0, 0.0, 0.0], threshold_lr=0.01), batch_of_three()
    optimizer = torch.optim.Adam(loss.parameter_groups(0.1), lr=0.1, weight_decay=0.5)
    loss(batch).backward()
    signs = loss.threshold.value.grad.sign()
    optimizer.step()
    expected = -0.01 * signs
    torch.testing.assert_close(loss.threshold.value.detach(), expected, rtol=1e-5, atol=0)
    assert signs.tolist()[2] == 0


def test_a_row_of_a_user_with_one_positive_and_one_negative():
    batch = Batch(
        torch.tensor([0.5]), torch.tensor([[0.2]]), user=torch.tensor([0]),
        positives=Segments(torch.tensor([0.5]), torch.tensor([0, 1])),
    )  # fmt: skip
    loss = Talos(1, 4, tau=0.1, k=2)
    rho = (0.5 * 0.5 + 3 * 0.5 * 0.2) / 4
    expected = (math.log(1 / (1 + math.exp(-0.2))) - math.log(1 / (1 + math.exp(-0.5)))) / 0.1 + rho
    assert loss(batch).item() == pytest.approx(expected, rel=1e-5)


def test_without_quantile_no_threshold_is_read_or_learned():
    loss, batch = loss_at([0.4, -0.3], tau=0.1, variant="no_quantile"), batch_of_three()
    assert loss.needs == frozenset()
    value = loss(Batch(batch.pos, batch.neg))
    torch.testing.assert_close(value, talos(batch.pos, batch.neg, torch.zeros(3).double(), 0.1).mean())
    value.backward()
    assert loss.threshold.value.grad is None
    assert Talos(2, 10, k=3).needs == {"user", "positives"}


def test_with_the_temperature_inside_the_threshold_is_learned_as_ever():
    loss, batch = loss_at([0.05, 0.25], tau=0.1, variant="inner_temperature"), batch_of_three()
    beta = torch.tensor([0.25, 0.05, 0.25], dtype=torch.float64)
    fit = loss.threshold.loss(batch.user, batch.neg, batch.positives)
    expected = inner_temperature(batch.pos, batch.neg, beta, 0.1).mean() + fit
    torch.testing.assert_close(loss(batch), expected, rtol=1e-12, atol=0)


def test_with_the_temperature_inside_a_score_far_from_the_threshold_has_no_gradient():
    """The reason for the temperature outside: there sigmoid's tail does not depend on it."""
    beta, pos = torch.zeros(1).double(), torch.tensor([0.9], dtype=torch.float64, requires_grad=True)
    neg = torch.tensor([[0.5]], dtype=torch.float64)
    (outside,) = torch.autograd.grad(talos(pos, neg, beta, 0.05).sum(), pos)
    (inside,) = torch.autograd.grad(inner_temperature(pos, neg, beta, 0.05).sum(), pos)
    assert outside.item() == pytest.approx(-1 / (1 + math.exp(0.9)) / 0.05)
    assert inside.item() == pytest.approx(-1 / (1 + math.exp(0.9 / 0.05)) / 0.05)
    assert abs(inside.item()) < 1e-6


def test_without_denominator_negatives_move_the_threshold_alone():
    loss, batch = loss_at([0.05, 0.25], tau=0.1, variant="no_denominator"), batch_of_three()
    beta = torch.tensor([0.25, 0.05, 0.25], dtype=torch.float64)
    value = loss(batch)
    fit = loss.threshold.loss(batch.user, batch.neg, batch.positives)
    torch.testing.assert_close(value, no_denominator(batch.pos, beta, 0.1, 3).mean() + fit, rtol=1e-12, atol=0)
    value.backward()
    assert batch.neg.grad is None
    assert bool((batch.pos.grad < 0).all())
    assert bool((loss.threshold.value.grad != 0).all())
