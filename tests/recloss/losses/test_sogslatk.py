"""SogSL@K against its golden, its formula in plain Python, and its parts."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from recloss.interactions import Segments
from recloss.losses import Batch, SogCLR, SogSLatK
from recloss.losses.sogslatk import sogslatk

USER = torch.tensor([0, 1, 0, 2, 1])


def random_scores(rows: int = 5, negatives: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    pos, neg = torch.rand(rows, generator=generator), torch.rand(rows, negatives, generator=generator)
    return (2 * pos - 1).double(), (2 * neg - 1).double()


def started(**options) -> SogSLatK:
    """With thresholds and averages of its users."""
    loss = SogSLatK(3, 50, **options).double()
    loss.threshold.value[:] = torch.tensor([0.4, -0.1, 0.2])
    loss.average.value[:] = torch.tensor([0.5, -1.0, 2.0])
    return loss


def test_golden_of_the_first_step(golden, dtype):
    case = golden("sogslatk_first_step")
    inputs = case["inputs"]
    loss = SogSLatK(3, 50, tau=inputs["tau"], tau_weight=inputs["tau_w"], ema=inputs["gamma_g"]).to(dtype)
    loss.threshold.value[:] = torch.tensor(inputs["beta"], dtype=dtype)
    pos, neg = (torch.tensor(inputs[key], dtype=dtype, requires_grad=True) for key in ("pos", "neg"))
    value = loss(Batch(pos, neg, user=torch.tensor(inputs["users"])))
    value.backward()
    weights = -pos.grad * len(pos) * inputs["tau"]
    close = {"rtol": 1e-9, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 2e-5, "atol": 1e-6}
    for found, key in (
        (value.detach(), "loss"), (pos.grad, "grad_pos"), (neg.grad, "grad_neg"), (weights, "weights_normalised"),
    ):  # fmt: skip
        torch.testing.assert_close(found, torch.tensor(case[key], dtype=dtype), **close)


@pytest.mark.parametrize(("tau", "tau_weight", "ema"), [(0.05, 2.25, 0.9), (0.2, 0.5, 0.1), (1.0, 1.0, 0.5)])
def test_against_the_formula_in_plain_python(tau, tau_weight, ema):
    loss = started(tau=tau, tau_weight=tau_weight, ema=ema)
    pos, neg = random_scores()
    beta, state = loss.threshold.value.tolist(), loss.average.value.exp().tolist()
    weights = [1 / (1 + math.exp(-(float(p) - beta[u]) / tau_weight)) for p, u in zip(pos, USER, strict=True)]
    total = 0.0
    for b, user in enumerate(USER.tolist()):
        estimate = sum(math.exp(n / tau) for n in neg[b].tolist()) / 7
        average = (1 - ema) * state[user] + ema * estimate
        total += estimate / average - weights[b] / (sum(weights) / 5) * float(pos[b]) / tau
    assert float(loss(Batch(pos, neg, user=USER))) == pytest.approx(total / 5, rel=1e-11)


def test_gradcheck():
    pos, neg = (x.requires_grad_() for x in random_scores(3, 4))
    average, weight = torch.tensor([[0.3, -1.0, 2.0], [1.2, 0.5, 0.9]], dtype=torch.float64)
    assert gradcheck(lambda p, n: sogslatk(p, n, average, weight, 0.2), (pos, neg))


def test_the_weight_is_detached():
    """Its gradient would couple the rows; as it is, a row's is -weight / tau / B, and the mean weight is 1."""
    pos, neg = (x.requires_grad_() for x in random_scores())
    loss = started(tau=0.2, tau_weight=0.5)
    loss(Batch(pos, neg, user=USER)).backward()
    weight = torch.sigmoid((pos.detach() - loss.threshold.value[USER]) / 0.5)
    torch.testing.assert_close(pos.grad, -weight / weight.mean() / 0.2 / 5, rtol=1e-12, atol=0)
    assert float(weight.max() / weight.min()) > 2


@pytest.mark.parametrize("limit", ["hot weight", "low threshold"])
def test_with_equal_weights_it_is_sogclr(limit):
    loss = started(tau=0.2, ema=0.3, tau_weight=1e9 if limit == "hot weight" else 2.25)
    if limit == "low threshold":
        loss.threshold.value[:] = -1e4
    other = SogCLR(3, tau=0.2, ema=0.3).double()
    other.average.load_state_dict(loss.average.state_dict())
    pos, neg = random_scores()
    found, expected = (x(Batch(pos, neg, user=USER)) for x in (loss, other))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
    assert torch.equal(loss.average.value, other.average.value)


def test_the_parts_of_two_ranks_add_up_to_the_batch_and_leave_one_state():
    """A first run records the rows of the whole batch; each rank then sees them in place of its own."""
    pos, neg = random_scores()
    whole: list[torch.Tensor] = []
    alone = started(tau=0.2, tau_weight=0.5)

    def record(rows):
        whole.append(rows.detach().clone())
        return whole[-1]

    expected = alone(Batch(pos, neg, gather=record, user=USER))
    total = 0.0
    for rows in (slice(0, 2), slice(2, 5)):
        rank = started(tau=0.2, tau_weight=0.5)
        replay = iter(whole)

        def replayed(own, replay=replay, rows=rows):
            recorded = next(replay)
            torch.testing.assert_close(recorded[rows], own.detach(), rtol=1e-12, atol=0)
            return recorded

        part = rank(Batch(pos[rows], neg[rows], gather=replayed, user=USER[rows]))
        total += float(part) * len(pos[rows]) / 5
        assert torch.equal(rank.average.value, alone.average.value)
        assert next(replay, None) is None
    assert total == pytest.approx(float(expected), rel=1e-12)


def test_its_state_and_groups():
    loss = SogSLatK(3, 50)
    assert set(loss.state_dict()) == {"threshold.value", "average.value"}
    assert loss.parameter_groups(0.1) == []
    learned = SogSLatK(3, 50, threshold="regression", threshold_lr=0.02)
    assert [group["name"] for group in learned.parameter_groups(0.1)] == ["threshold"]
    assert learned.needs == {"user", "positives"}


def test_a_learned_threshold_adds_its_own_loss():
    loss = SogSLatK(3, 50, threshold="regression", k=5).double()
    with torch.no_grad():
        loss.threshold.value.copy_(torch.tensor([0.4, -0.1, 0.2]))
    fixed = SogSLatK(3, 50).double()
    fixed.threshold.value[:] = loss.threshold.value.detach()
    pos, neg = random_scores()
    positives = Segments(pos, torch.arange(6))
    value = loss(Batch(pos, neg, user=USER, positives=positives))
    own = loss.threshold.loss(USER, neg, positives)
    torch.testing.assert_close(value, fixed(Batch(pos, neg, user=USER)) + own, rtol=1e-12, atol=0)
    value.backward()
    assert bool((loss.threshold.value.grad != 0).all())
