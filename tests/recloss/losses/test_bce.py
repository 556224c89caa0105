"""BCE against its golden, its formula in plain Python, and torch's own cross-entropy."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from recloss.losses import BCE, Batch
from recloss.losses.bce import bce


def random_scores(negatives: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pos, neg = torch.randn(5, generator=generator), torch.randn(5, negatives, generator=generator)
    return 3 * pos.double(), 3 * neg.double()


def test_golden_of_the_first_negative(golden, agrees):
    case = golden("bce_logits_first_negative")
    inputs = case["inputs"]
    first = [row[:1] for row in inputs["neg"]]
    rows = [
        (math.log1p(math.exp(-p)) + math.log1p(math.exp(n))) / 2 for p, (n,) in zip(inputs["pos"], first, strict=True)
    ]
    case |= {"grad_neg": [row[:1] for row in case["grad_neg"]], "per_sample": rows}
    agrees(bce, inputs["pos"], first, case)


@pytest.mark.parametrize("negatives", [1, 4])
def test_against_the_formula_in_plain_python(negatives):
    pos, neg = random_scores(negatives)
    expected = []
    for p, row in zip(pos.tolist(), neg.tolist(), strict=True):
        of_negatives = sum(-math.log(1 - 1 / (1 + math.exp(-n))) for n in row) / len(row)
        expected.append((-math.log(1 / (1 + math.exp(-p))) + of_negatives) / 2)
    torch.testing.assert_close(bce(pos, neg), torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=0)


def test_one_negative_is_the_cross_entropy_of_all_logits():
    pos, neg = random_scores(1)
    logits, labels = torch.cat([pos, neg[:, 0]]), torch.cat([torch.ones(5), torch.zeros(5)]).double()
    torch.testing.assert_close(bce(pos, neg).mean(), F.binary_cross_entropy_with_logits(logits, labels))


def test_several_negatives_are_the_mean_of_single_ones():
    pos, neg = random_scores()
    single = torch.stack([bce(pos, neg[:, j : j + 1]) for j in range(4)])
    torch.testing.assert_close(bce(pos, neg), single.mean(0))


def test_a_well_placed_pair_keeps_its_tiny_loss_and_a_misplaced_one_its_size():
    assert float(bce(torch.tensor([50.0]), torch.tensor([[-50.0]]))) == pytest.approx(math.exp(-50), rel=1e-5, abs=0)
    assert float(bce(torch.tensor([-1e4]), torch.tensor([[3e4]]))) == 2e4


def test_gradcheck():
    assert gradcheck(bce, [x.requires_grad_() for x in random_scores()])


def test_the_class_is_the_mean_on_dot_products():
    pos, neg = random_scores()
    assert float(BCE()(Batch(pos, neg))) == float(bce(pos, neg).mean())
    assert BCE.similarity == "dot"
