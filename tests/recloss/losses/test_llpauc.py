"""LLPAUC against its goldens, its formula in plain Python, the directions and ranges of its scalars, one Adam step."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from recloss.losses import LLPAUC, Batch
from recloss.losses.llpauc import llpauc

CASES = ["LLPAUC_init_A", "LLPAUC_state2_B"]
START = {"a": 1.0, "b": 0.0, "gamma": 0.0, "s_pos": 0.5, "s_neg": 0.5, "theta_a": 0.5, "theta_b": 0.5}
OUTSIDE = {"a": 1.2, "b": -0.3, "gamma": 1.5, "s_pos": 4.5, "s_neg": -0.2, "theta_a": -0.1, "theta_b": 0.7}
WITHIN = {"a": 1.0, "b": 0.0, "gamma": 1.0, "s_pos": 4.0, "s_neg": 0.0, "theta_a": 0.0, "theta_b": 0.7}


def random_scores(rows: int = 5, negatives: int = 7, dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(10)
    pos, neg = (torch.rand(s, generator=generator) for s in ((rows,), (rows, negatives)))
    return (2 * pos - 1).to(dtype), (2 * neg - 1).to(dtype)


def loss_at(state: dict[str, float], dtype=torch.float64, **params) -> LLPAUC:
    loss = LLPAUC(**params).to(dtype)
    with torch.no_grad():
        for name, parameter in loss.named_parameters():
            parameter.fill_(state[name])
    return loss


def state_of(loss: LLPAUC) -> dict[str, float]:
    return {name: parameter.item() for name, parameter in loss.named_parameters()}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("through_the_class", [True, False])
def test_golden(name, through_the_class, golden, dtype):
    """Value and gradients of the scores and of all seven scalars."""
    case = golden(name)
    params, tolerance = case["params"], {"rtol": 1e-9, "atol": 1e-12}
    if dtype == torch.float32:
        tolerance = {"rtol": 2e-5, "atol": 2e-6}
    pos, neg = (torch.tensor(case["inputs"][x], dtype=dtype, requires_grad=True) for x in ("pos", "neg"))
    loss = loss_at(case["state"], dtype, alpha=params["alpha"], beta=params["beta"])
    scalars = dict(loss.named_parameters())
    assert params["kappa"] == 5
    value = loss(Batch(pos, neg)) if through_the_class else llpauc(pos, neg, params["alpha"], params["beta"], **scalars)
    value.backward()
    found = {"loss": value.detach(), "grad_pos": pos.grad, "grad_neg": neg.grad}
    found |= {name: scalar.grad for name, scalar in scalars.items()}
    expected = {key: case[key] for key in ("loss", "grad_pos", "grad_neg")} | case["grad_state"]
    assert found.keys() == expected.keys()
    for key, tensor in found.items():
        torch.testing.assert_close(
            tensor, torch.tensor(expected[key], dtype=dtype), **tolerance, msg=f"{key}: {tensor}"
        )


@pytest.mark.parametrize(("alpha", "beta"), [(0.7, 0.01), (0.1, 0.1), (1.0, 1.0)])
def test_against_the_formula_in_plain_python(alpha, beta):
    def sp(x):
        return math.log(1 + math.exp(5 * x)) / 5

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    pos, neg = random_scores()
    a, b, g, s_pos, s_neg, theta_a, theta_b = 0.7, 0.2, 0.3, 0.9, 1.4, 0.6, 0.8
    of_pos = [sp(-((sigmoid(p) - a) ** 2) + 2 * (1 + g) * sigmoid(p) - s_pos) for p in pos.tolist()]
    of_neg = [sp((sigmoid(n) - b) ** 2 + 2 * (1 + g) * sigmoid(n) - s_neg) for row in neg.tolist() for n in row]
    expected = -s_pos - sum(of_pos) / 5 / alpha + s_neg + sum(of_neg) / 35 / beta
    expected += -(g**2) - theta_b * (b - 1 - g) + theta_a * (a + g)
    state = {"a": a, "b": b, "gamma": g, "s_pos": s_pos, "s_neg": s_neg, "theta_a": theta_a, "theta_b": theta_b}
    found = loss_at(state, alpha=alpha, beta=beta)(Batch(pos, neg))
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_gradcheck_in_scores_and_scalars():
    scalars = [torch.tensor(x, dtype=torch.float64) for x in (0.7, 0.2, 0.3, 0.9, 1.4, 0.6, 0.8)]
    inputs = [x.requires_grad_() for x in (*random_scores(3, 4), *scalars)]

    def at(pos, neg, *values):
        return llpauc(pos, neg, 0.5, 0.1, **dict(zip(START, values, strict=True)))

    assert gradcheck(at, inputs)


@pytest.mark.parametrize(("share", "rises"), [(0.2, True), (0.5, False)])
def test_alpha_and_beta_are_shares_of_the_best_positives_and_hardest_negatives(share, rises):
    """The best s_pos and s_neg have such a share of the terms above them; here 3 in 10 are."""
    scores = torch.tensor([1.0] * 3 + [-1.0] * 7, dtype=torch.float64)
    state = START | {"a": 0.0, "s_pos": 0.65, "s_neg": 1.2}
    loss = loss_at(state, alpha=share, beta=share)
    loss(Batch(scores, scores.expand(10, 10))).backward()
    P = torch.sigmoid(scores)
    above_pos = torch.sigmoid(5 * (2 * P - P**2 - 0.65)).mean().item()
    above_neg = torch.sigmoid(5 * (2 * P + P**2 - 1.2)).mean().item()
    assert loss.s_pos.grad.item() == pytest.approx(above_pos / share - 1, rel=1e-12)
    assert loss.s_neg.grad.item() == pytest.approx(1 - above_neg / share, rel=1e-12)
    assert 0.2 < above_neg < 0.5
    assert (loss.s_neg.grad.item() < 0) == rises, "descending, s_neg rises"


def test_it_starts_where_the_spec_says():
    assert state_of(LLPAUC()) == START
    assert list(LLPAUC().state_dict()) == list(START)


def test_a_training_batch_first_brings_the_scalars_into_their_ranges():
    batch = Batch(*random_scores())
    loss, within = loss_at(OUTSIDE), loss_at(WITHIN)
    assert torch.equal(loss(batch), within(batch))
    assert state_of(loss) == WITHIN
    loss(batch)
    assert state_of(loss) == WITHIN
    above = loss_at({"a": 2, "b": 2, "gamma": -2, "s_pos": -2, "s_neg": 9, "theta_a": 2e9, "theta_b": 2e9})
    above(batch)
    assert state_of(above) == {"a": 1, "b": 1, "gamma": -1, "s_pos": -1, "s_neg": 5, "theta_a": 1e9, "theta_b": 1e9}


def test_a_scalar_at_the_end_of_its_range_can_come_back():
    """Its gradient is that of a scalar within: an in-place clamp, not one that stops the gradient."""
    batch = Batch(*random_scores())
    outside, within = loss_at(OUTSIDE), loss_at(WITHIN)
    outside(batch).backward()
    scalars = {name: torch.tensor(x, dtype=torch.float64, requires_grad=True) for name, x in WITHIN.items()}
    llpauc(batch.pos, batch.neg, within.alpha, within.beta, **scalars).backward()
    for name, parameter in outside.named_parameters():
        assert parameter.grad == scalars[name].grad, name
        assert parameter.grad != 0, name


def test_two_batches_may_be_added_before_their_backward():
    batch = Batch(*random_scores())
    loss, once = loss_at(OUTSIDE), loss_at(OUTSIDE)
    (loss(batch) + loss(batch)).backward()
    once(batch).backward()
    assert {name: p.grad.item() for name, p in loss.named_parameters()} == pytest.approx(
        {name: 2 * p.grad.item() for name, p in once.named_parameters()}, rel=1e-12
    )


def test_evaluation_gives_the_value_of_training_and_leaves_the_scalars():
    batch = Batch(*random_scores())
    loss = loss_at(OUTSIDE).eval()
    assert torch.equal(loss(batch), loss_at(WITHIN)(batch))
    assert state_of(loss) == OUTSIDE


@pytest.mark.parametrize(("ascend", "weight_decay"), [(True, 0.0), (True, 0.3), (False, 0.3)])
def test_one_adam_step_is_the_one_by_hand(ascend, weight_decay):
    """Adam's first steps with the gradients of gamma and s_pos flipped, the decay added to the flipped gradient."""
    lr, state = 0.01, {"a": 0.8, "b": 0.3, "gamma": -0.2, "s_pos": 1.1, "s_neg": 1.7, "theta_a": 0.2, "theta_b": 0.9}
    batch = Batch(*random_scores())
    loss = loss_at(state, alpha=0.5, beta=0.01, ascend=ascend)
    optimizer = torch.optim.Adam(loss.parameter_groups(lr), lr=lr, weight_decay=weight_decay)
    by_hand, moments = dict(state), dict.fromkeys(state, (0.0, 0.0))
    for step in (1, 2, 3):
        optimizer.zero_grad()
        loss(batch).backward()
        grads = {name: parameter.grad.item() for name, parameter in loss.named_parameters()}
        optimizer.step()
        for name, x in by_hand.items():
            sign = -1 if ascend and name in ("gamma", "s_pos") else 1
            rate = 2 * lr if name in ("gamma", "s_pos", "s_neg") else lr
            gradient = sign * grads[name] + weight_decay * x
            m, v = moments[name]
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            moments[name] = m, v
            by_hand[name] = x - rate * (m / (1 - 0.9**step)) / (math.sqrt(v / (1 - 0.999**step)) + 1e-8)
        assert state_of(loss) == pytest.approx(by_hand, rel=1e-9)
    raised = {name for name in ("gamma", "s_pos") if grads[name] * (by_hand[name] - state[name]) > 0}
    assert raised == ({"gamma", "s_pos"} if ascend else set())


def test_the_scores_alone_decide_no_other_row():
    """The value of a batch is the mean of its rows' values: shares of a batch add up over ranks."""
    pos, neg = random_scores(6)
    loss = loss_at(START)
    parts = [loss(Batch(pos[rows], neg[rows])) for rows in (slice(0, 2), slice(2, 6))]
    torch.testing.assert_close(parts[0] / 3 + parts[1] * 2 / 3, loss(Batch(pos, neg)), rtol=1e-12, atol=0)
