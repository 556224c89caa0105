"""Label smoothing against a golden, its formula in plain Python, and torch's."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from recloss.losses import Batch, LabelSmoothing
from recloss.losses.labelsmoothing import labelsmoothing


def random_case(rows: int = 5, n_items: int = 8):
    generator = torch.Generator().manual_seed(8)
    logits = 3 * torch.randn(rows, n_items, generator=generator, dtype=torch.float64)
    return logits, torch.randint(n_items, (rows,), generator=generator)


def test_golden_without_smoothing(golden):
    case = golden("desorec_limit_softmax_ce")
    logits, item = torch.tensor(case["inputs"]["logits"], dtype=torch.float64), torch.tensor(case["inputs"]["target"])
    assert labelsmoothing(logits, item, 0).mean().item() == pytest.approx(case["softmax_ce"], rel=1e-12)
    value = LabelSmoothing(smoothing=0)(Batch(torch.zeros(2), torch.zeros(2, 0), item=item, logits=logits))
    assert float(value) == pytest.approx(case["softmax_ce"], rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_against_the_formula_in_plain_python(smoothing):
    logits, item = random_case()
    expected = []
    for z, y in zip(logits.tolist(), item.tolist(), strict=True):
        total = math.log(sum(math.exp(x) for x in z))
        q = [smoothing / len(z) + (1 - smoothing) * (j == y) for j in range(len(z))]
        expected.append(sum(weight * (total - x) for x, weight in zip(z, q, strict=True)))
    found = labelsmoothing(logits, item, smoothing)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_it_is_torchs_in_values_and_gradients(smoothing):
    logits, item = random_case(40, 300)
    logits.requires_grad_()
    found = labelsmoothing(logits, item, smoothing).mean()
    expected = F.cross_entropy(logits, item, label_smoothing=smoothing)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(value, logits)[0] for value in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)


def test_gradcheck():
    logits, item = random_case(3, 4)
    assert gradcheck(lambda z: labelsmoothing(z, item, 0.2), (logits.requires_grad_(),))
