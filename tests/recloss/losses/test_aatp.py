"""AATP against goldens, its formula in plain Python, its hinges, and what is detached from what."""

import pytest
import torch
from torch.autograd import gradcheck

from recloss.interactions import Segments
from recloss.losses import AATP, Batch
from recloss.losses.aatp import aatp


def random_scores(rows: int = 5, negatives: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(8)
    shapes = [(rows,), (rows, negatives), (rows,)]
    return tuple((2 * torch.rand(s, generator=generator) - 1).double() for s in shapes)  # type: ignore[return-value]


def batch_of_three() -> Batch:
    """Users 1, 0, 1, with one and three positives; scores that want gradients."""
    pos = torch.tensor([0.6, -0.2, 0.3], dtype=torch.float64, requires_grad=True)
    neg = torch.tensor([[0.1, 0.5, -0.4], [0.3, -0.1, 0.0], [0.9, 0.2, -0.6]], dtype=torch.float64, requires_grad=True)
    ones = torch.tensor([0.6, 0.3, 0.7, -0.2, 0.6, 0.3, 0.7], dtype=torch.float64, requires_grad=True)
    return Batch(pos, neg, user=torch.tensor([1, 0, 1]), positives=Segments(ones, torch.tensor([0, 3, 4, 7])))


def loss_at(beta: list[float], **params) -> AATP:
    loss = AATP(len(beta), 10, k=3, **params).double()
    loss.threshold.value.data[:] = torch.tensor(beta, dtype=torch.float64)
    return loss


@pytest.mark.parametrize("name", ["AATP_A", "AATP_B"])
def test_golden(name, golden, agrees):
    case = golden(name)
    beta = case["inputs"]["beta"]
    agrees(
        lambda p, n: aatp(p, n, torch.tensor(beta, dtype=p.dtype)), case["inputs"]["pos"], case["inputs"]["neg"], case
    )


def test_against_the_formula_in_plain_python():
    pos, neg, beta = (3 * x for x in random_scores())
    expected = [
        max(0.0, 1 + b - p) + sum(max(0.0, 1 + n - b) for n in row) / len(row)
        for p, row, b in zip(pos.tolist(), neg.tolist(), beta.tolist(), strict=True)
    ]
    found = aatp(pos, neg, beta)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    assert bool((1 + beta - pos < 0).any() & (1 + neg - beta[:, None] < 0).any()), "some hinges are to be closed"


def test_gradcheck():
    inputs = [x.requires_grad_() for x in random_scores(3, 4)]
    assert gradcheck(aatp, inputs)


def test_open_hinges_pull_with_the_same_force_wherever_the_score_stands():
    pos, neg, beta = ((3 * x).requires_grad_() for x in random_scores())
    aatp(pos, neg, beta).sum().backward()
    hit, beaten = (pos >= 1 + beta).double(), (neg <= beta[:, None] - 1).double()
    torch.testing.assert_close(pos.grad, hit - 1)
    torch.testing.assert_close(neg.grad, (1 - beaten) / 7)
    torch.testing.assert_close(beta.grad, -pos.grad - neg.grad.sum(1))
    assert 0 < float(hit.sum()) < 5
    assert 0 < float(beaten.sum()) < 35


def test_a_user_whose_positives_and_negatives_keep_the_margin_has_no_loss():
    pos = torch.tensor([1.5], requires_grad=True)
    neg = torch.tensor([[-0.9, -1.0]], requires_grad=True)
    loss = aatp(pos, neg, torch.tensor([0.2])).sum()
    loss.backward()
    assert loss.item() == 0
    assert not pos.grad.any()
    assert not neg.grad.any()


def test_the_class_is_the_mean_plus_the_regression_and_neither_reaches_into_the_other():
    loss, batch = loss_at([0.05, 0.25]), batch_of_three()
    value = loss(batch)
    value.backward()
    alone, same = loss_at([0.05, 0.25]), batch_of_three()
    hinges = aatp(same.pos, same.neg, torch.tensor([0.25, 0.05, 0.25], dtype=torch.float64)).mean()
    hinges.backward()
    fit = alone.threshold.loss(same.user, same.neg, same.positives)
    fit.backward()
    torch.testing.assert_close(value, hinges + fit, rtol=1e-12, atol=0)
    torch.testing.assert_close(batch.pos.grad, same.pos.grad, rtol=1e-12, atol=0)
    torch.testing.assert_close(batch.neg.grad, same.neg.grad, rtol=1e-12, atol=0)
    torch.testing.assert_close(loss.threshold.value.grad, alone.threshold.value.grad, rtol=1e-12, atol=0)
    assert batch.positives.values.grad is None
    assert bool((loss.threshold.value.grad != 0).all())


def test_the_threshold_is_state_with_a_group_of_its_own():
    loss = AATP(3, 10, k=2, threshold_lr=0.1)
    (group,) = loss.parameter_groups(0.01)
    assert (group["name"], group["lr"], group["weight_decay"]) == ("threshold", 0.1, 0.0)
    assert set(loss.state_dict()) == {"threshold.value"}
    assert torch.equal(loss.threshold.value, torch.zeros(3))


def test_with_an_estimator_that_is_not_learned_the_value_is_the_hinges_alone():
    loss, batch = loss_at([0.05, 0.25], threshold="exact"), batch_of_three()
    assert loss.needs == {"user"}
    expected = aatp(batch.pos, batch.neg, torch.tensor([0.25, 0.05, 0.25], dtype=torch.float64)).mean()
    torch.testing.assert_close(loss(Batch(batch.pos, batch.neg, user=batch.user)), expected, rtol=1e-12, atol=0)
