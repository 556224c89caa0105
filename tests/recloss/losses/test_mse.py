"""MSE against its golden, its formula in plain Python, and torch's own squared error."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from recloss.losses import MSE, Batch
from recloss.losses.mse import mse


def random_scores(negatives: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pos, neg = torch.randn(5, generator=generator), torch.randn(5, negatives, generator=generator)
    return 3 * pos.double(), 3 * neg.double()


def test_golden_of_the_first_negative(golden, agrees):
    case = golden("mse_sigmoid_first_negative")
    inputs = case["inputs"]
    first = [row[:1] for row in inputs["neg"]]
    rows = [
        ((1 / (1 + math.exp(-p)) - 1) ** 2 + (1 / (1 + math.exp(-n))) ** 2) / 2
        for p, (n,) in zip(inputs["pos"], first, strict=True)
    ]
    case |= {"grad_neg": [row[:1] for row in case["grad_neg"]], "per_sample": rows}
    agrees(mse, inputs["pos"], first, case)


@pytest.mark.parametrize("negatives", [1, 4])
def test_against_the_formula_in_plain_python(negatives):
    pos, neg = random_scores(negatives)
    expected = []
    for p, row in zip(pos.tolist(), neg.tolist(), strict=True):
        of_negatives = sum((1 / (1 + math.exp(-n))) ** 2 for n in row) / len(row)
        expected.append(((1 / (1 + math.exp(-p)) - 1) ** 2 + of_negatives) / 2)
    torch.testing.assert_close(mse(pos, neg), torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=0)


def test_one_negative_is_the_squared_error_of_all_probabilities():
    pos, neg = random_scores(1)
    predicted, labels = torch.cat([pos, neg[:, 0]]).sigmoid(), torch.cat([torch.ones(5), torch.zeros(5)]).double()
    torch.testing.assert_close(mse(pos, neg).mean(), F.mse_loss(predicted, labels))


def test_several_negatives_are_the_mean_of_single_ones():
    pos, neg = random_scores()
    single = torch.stack([mse(pos, neg[:, j : j + 1]) for j in range(4)])
    torch.testing.assert_close(mse(pos, neg), single.mean(0))


def test_a_positive_as_sure_as_float32_cannot_say_keeps_its_tiny_loss():
    pos = torch.tensor([20.0], requires_grad=True)
    loss = mse(pos, torch.tensor([[-20.0]]))
    loss.sum().backward()
    assert loss.item() == pytest.approx(math.exp(-40), rel=1e-5, abs=0)
    assert pos.grad.item() == pytest.approx(-math.exp(-40), rel=1e-5, abs=0)


def test_gradcheck():
    assert gradcheck(mse, [x.requires_grad_() for x in random_scores()])


def test_the_class_is_the_mean_on_dot_products():
    pos, neg = random_scores()
    assert float(MSE()(Batch(pos, neg))) == float(mse(pos, neg).mean())
    assert MSE.similarity == "dot"
