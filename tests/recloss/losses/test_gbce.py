"""gBCE against values by hand, its formula in plain Python, BCE, and the probabilities it is made to recover."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from recloss.losses import GBCE, Batch
from recloss.losses.bce import bce
from recloss.losses.gbce import gbce

N_ITEMS = 11


def random_scores(negatives: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pos, neg = torch.randn(5, generator=generator), torch.randn(5, negatives, generator=generator)
    return 3 * pos.double(), 3 * neg.double()


def test_golden(agrees):
    """By hand: sigmoid(log 3) = 3/4, and of 10 other items 2 are drawn, so beta = 1 - 0.75 (1 - 0.2) = 0.4."""
    half, quarter = math.log(2), math.log(4)
    case = {
        "per_sample": [(0.4 * (quarter - math.log(3)) + half + quarter) / 3, (0.4 * half + 2 * half) / 3],
        "grad_pos": [-0.4 / 4 / 6, -0.4 / 2 / 6],
        "grad_neg": [[0.5 / 6, 0.75 / 6], [0.5 / 6, 0.5 / 6]],
    }
    agrees(lambda p, n: gbce(p, n, N_ITEMS, 0.75), [math.log(3), 0.0], [[0.0, math.log(3)], [0.0, 0.0]], case)


@pytest.mark.parametrize("negatives", [1, 4, 10])
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_against_the_formula_in_plain_python(negatives, t):
    """As the paper writes it, with alpha."""
    pos, neg = random_scores(negatives)
    alpha = negatives / (N_ITEMS - 1)
    beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
    expected = []
    for p, row in zip(pos.tolist(), neg.tolist(), strict=True):
        total = math.log((1 / (1 + math.exp(-p))) ** beta)
        total += sum(math.log(1 - 1 / (1 + math.exp(-n))) for n in row)
        expected.append(-total / (negatives + 1))
    torch.testing.assert_close(
        gbce(pos, neg, N_ITEMS, t), torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0
    )


def test_without_calibration_or_with_all_items_drawn_it_is_the_cross_entropy_of_all_logits():
    pos, neg = random_scores(10)
    logits = torch.cat([pos[:, None], neg], 1)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, torch.eye(1, 11).double().expand(5, -1), reduction="none"
    ).mean(1)
    torch.testing.assert_close(gbce(pos, neg, 1000, 0.0), expected)
    torch.testing.assert_close(gbce(pos, neg, N_ITEMS, 1.0), expected)
    torch.testing.assert_close(gbce(pos, neg[:, :1], 1000, 0.0), bce(pos, neg[:, :1]))


def test_more_negatives_than_items_correct_nothing():
    pos, neg = random_scores(30)
    torch.testing.assert_close(gbce(pos, neg, N_ITEMS, 1.0), gbce(pos, neg, N_ITEMS, 0.0))


@pytest.mark.parametrize(("t", "calibrated"), [(1.0, True), (0.5, False), (0.0, False)])
def test_full_calibration_recovers_the_probabilities_that_sampling_distorts(t, calibrated):
    """The expected loss of one context, whose next item has known probabilities, minimised by Newton's method."""
    p, negatives = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64), 1
    alpha = negatives / (len(p) - 1)
    scores = torch.zeros(4, dtype=torch.float64)
    others = 1 - torch.eye(4, dtype=torch.float64)

    def expected_loss(s):
        rows = gbce(s[:, None].expand(4, 4).flatten(), s[None].expand(4, 4).flatten()[:, None], 4, t).view(4, 4)
        return (p[:, None] * others / (len(p) - 1) * rows).sum()

    for _ in range(50):
        gradient = torch.func.grad(expected_loss)(scores)
        scores = scores - torch.linalg.solve(torch.func.hessian(expected_loss)(scores), gradient)
    learned = scores.sigmoid()
    odds = (1 - t * (1 - alpha)) / alpha * p / (1 - p)
    torch.testing.assert_close(learned, odds / (1 + odds))
    assert torch.allclose(learned, p) is calibrated
    assert calibrated or bool((learned > p).all()), "overconfident"


def test_a_well_placed_pair_keeps_its_tiny_loss_and_a_misplaced_one_its_size():
    right = gbce(torch.tensor([50.0]), torch.tensor([[-50.0]]), 3, 1.0)
    assert float(right) == pytest.approx(0.75 * math.exp(-50), rel=1e-5, abs=0)
    assert float(gbce(torch.tensor([-1e4]), torch.tensor([[3e4]]), 3, 1.0)) == 1.75e4


def test_gradcheck():
    assert gradcheck(lambda p, n: gbce(p, n, N_ITEMS, 0.75), [x.requires_grad_() for x in random_scores()])


def test_the_class_is_the_mean_on_dot_products():
    pos, neg = random_scores()
    assert float(GBCE(N_ITEMS, t=0.4)(Batch(pos, neg))) == float(gbce(pos, neg, N_ITEMS, 0.4).mean())
    assert GBCE.similarity == "dot"


def test_a_catalogue_of_one_item_has_no_negatives():
    with pytest.raises(ValueError, match="^n_items must be at least 2, got 1"):
        GBCE(1)
