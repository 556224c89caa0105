"""BPR against goldens, its formula in plain Python, and its identities."""

import math

import torch
from torch.autograd import gradcheck

from recloss.losses import BPR, Batch
from recloss.losses.bpr import bpr


def test_golden_with_one_negative(golden, agrees):
    case = golden("BPR")
    agrees(bpr, case["inputs"]["pos"], [[n] for n in case["inputs"]["neg"]], case)


def test_a_well_ranked_pair_keeps_its_tiny_loss():
    loss = bpr(torch.tensor([20.0]), torch.tensor([[-30.0]]))
    assert math.isclose(float(loss), 1.9287498479639178e-22, rel_tol=1e-5)


def test_golden_of_the_first_negative(golden, agrees):
    case = golden("bpr_first_negative")
    first = [row[:1] for row in case["inputs"]["neg"]]
    agrees(bpr, case["inputs"]["pos"], first, case | {"grad_neg": [row[:1] for row in case["grad_neg"]]})


def test_against_the_formula_in_plain_python():
    generator = torch.Generator().manual_seed(0)
    pos = torch.randn(5, generator=generator, dtype=torch.float64) * 3
    neg = torch.randn(5, 4, generator=generator, dtype=torch.float64) * 3
    expected = [
        sum(-math.log(1 / (1 + math.exp(-(p - n)))) for n in row) / len(row)
        for p, row in zip(pos.tolist(), neg.tolist(), strict=True)
    ]
    torch.testing.assert_close(bpr(pos, neg), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


def test_several_negatives_are_the_mean_of_single_ones():
    pos, neg = torch.tensor([0.3, -2.0]), torch.tensor([[1.0, 0.0, -4.0], [0.5, 0.5, 9.0]])
    single = torch.stack([bpr(pos, neg[:, j : j + 1]) for j in range(3)])
    torch.testing.assert_close(bpr(pos, neg), single.mean(0))


def test_shifting_a_row_changes_nothing():
    pos = torch.tensor([0.3, -2.0], dtype=torch.float64, requires_grad=True)
    neg = torch.tensor([[1.0, 0.0], [0.5, 9.0]], dtype=torch.float64, requires_grad=True)
    bpr(pos, neg).sum().backward()
    torch.testing.assert_close(pos.grad + neg.grad.sum(1), torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(bpr(pos + 7, neg + 7), bpr(pos, neg))


def test_gradcheck():
    pos = torch.tensor([0.3, -2.0], dtype=torch.float64, requires_grad=True)
    neg = torch.tensor([[1.0, 0.0], [0.5, 9.0]], dtype=torch.float64, requires_grad=True)
    assert gradcheck(bpr, (pos, neg))


def test_the_class_is_the_mean_on_dot_products():
    pos, neg = torch.tensor([0.3, -2.0]), torch.tensor([[1.0], [0.5]])
    assert float(BPR()(Batch(pos, neg))) == float(bpr(pos, neg).mean())
    assert BPR.similarity == "dot"
