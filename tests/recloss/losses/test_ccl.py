"""CCL against goldens, its formula in plain Python, and what its margin leaves out."""

import pytest
import torch
from torch.autograd import gradcheck

from recloss.losses import CCL, Batch
from recloss.losses.ccl import ccl, truncation_rate


def random_scores(rows: int = 5, negatives: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(8)
    pos, neg = (2 * torch.rand(shape, generator=generator).double() - 1 for shape in ((rows,), (rows, negatives)))
    return pos, neg


@pytest.mark.parametrize("name", ["ccl_mean", "ccl_sum"])
def test_golden(name, golden, agrees):
    case = golden(name)
    inputs = case["inputs"]
    agrees(lambda p, n: ccl(p, n, inputs["margin"], inputs["neg_weight"]), inputs["pos"], inputs["neg"], case)


@pytest.mark.parametrize("name", ["ccl_mean", "ccl_sum"])
def test_golden_through_the_class(name, golden):
    case = golden(name)
    inputs = case["inputs"]
    loss = CCL(margin=inputs["margin"], neg_weight=inputs["neg_weight"])
    found = loss(Batch(*(torch.tensor(inputs[key], dtype=torch.float64) for key in ("pos", "neg"))))
    assert found.item() == pytest.approx(case["loss"], rel=1e-9)


@pytest.mark.parametrize("margin", [-0.5, 0.0, 0.7])
@pytest.mark.parametrize("neg_weight", [None, 0.5, 150.0])
def test_against_the_formula_in_plain_python(margin, neg_weight):
    pos, neg = random_scores()
    expected = []
    for p, row in zip(pos.tolist(), neg.tolist(), strict=True):
        pushed = sum(max(0.0, n - margin) for n in row)
        weight = 1.0 if neg_weight is None else neg_weight / len(row)
        expected.append(max(0.0, 1 - p) + weight * pushed)
    found = ccl(pos, neg, margin, neg_weight)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_gradcheck():
    pos, neg = (x.requires_grad_() for x in random_scores(3, 4))
    assert gradcheck(lambda p, n: ccl(p, n, 0.2, 3.0), (pos, neg))


def test_scores_at_and_below_the_margin_and_positives_of_1_have_no_gradient():
    pos = torch.tensor([0.4, 1.0, 1.0 + 1e-7], requires_grad=True)
    neg = torch.tensor([[0.5, 0.25, -1.0], [0.2, 0.1, 0.0], [0.25, 1.0, 0.75]], requires_grad=True)
    losses = ccl(pos, neg, 0.25)
    losses.sum().backward()
    torch.testing.assert_close(losses, torch.tensor([0.85, 0.0, 1.25]))
    assert pos.grad.tolist() == [-1.0, 0.0, 0.0]
    assert neg.grad.tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0]]


def test_without_a_weight_negatives_add_up():
    pos, neg = random_scores()
    torch.testing.assert_close(ccl(pos, neg, 0.1), ccl(pos, neg, 0.1, 7.0), rtol=0, atol=0)
    twice = torch.cat([neg, neg], 1)
    pushed = ccl(pos, neg, 0.1) - (1 - pos)
    torch.testing.assert_close(ccl(pos, twice, 0.1) - (1 - pos), 2 * pushed)
    torch.testing.assert_close(ccl(pos, twice, 0.1, 4.0), ccl(pos, neg, 0.1, 4.0))


def test_truncation_rate_is_the_share_of_negatives_without_gradient():
    neg = torch.tensor([[0.5, 0.25, -1.0, 0.3], [0.2, 0.1, 0.0, -0.3]], requires_grad=True)
    assert truncation_rate(neg, 0.25).tolist() == [0.5, 1.0]
    assert truncation_rate(neg, torch.tensor([0.5, 0.05])).tolist() == [1.0, 0.5]
    ccl(torch.zeros(2), neg, 0.25).sum().backward()
    assert torch.equal((neg.grad == 0).float().mean(1), truncation_rate(neg, 0.25))
