"""CE against its golden, its formula in plain Python, torch's, and what it is a case of."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from recloss.losses import CE, Batch
from recloss.losses.ce import ce
from recloss.losses.labelsmoothing import labelsmoothing


def random_case(rows: int = 5, n_items: int = 8):
    generator = torch.Generator().manual_seed(4)
    logits = 3 * torch.randn(rows, n_items, generator=generator, dtype=torch.float64)
    return logits, torch.randint(n_items, (rows,), generator=generator)


def test_golden(golden):
    case = golden("desorec_limit_softmax_ce")
    logits, item = torch.tensor(case["inputs"]["logits"], dtype=torch.float64), torch.tensor(case["inputs"]["target"])
    assert ce(logits, item).mean().item() == pytest.approx(case["softmax_ce"], rel=1e-12)
    value = CE()(Batch(torch.zeros(2), torch.zeros(2, 0), item=item, logits=logits))
    assert float(value) == pytest.approx(case["softmax_ce"], rel=1e-6)


def test_against_the_formula_in_plain_python():
    logits, item = random_case()
    expected = [
        math.log(sum(math.exp(x - z[y]) for x in z)) for z, y in zip(logits.tolist(), item.tolist(), strict=True)
    ]
    torch.testing.assert_close(ce(logits, item), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-14)


def test_it_is_torchs_in_values_and_gradients_and_label_smoothing_of_nothing():
    logits, item = random_case(40, 300)
    logits.requires_grad_()
    values = ce(logits, item).mean(), F.cross_entropy(logits, item), labelsmoothing(logits, item, 0).mean()
    gradients = [torch.autograd.grad(value, logits)[0] for value in values]
    for value, gradient in zip(values[1:], gradients[1:], strict=True):
        torch.testing.assert_close(values[0], value, rtol=1e-12, atol=0)
        torch.testing.assert_close(gradients[0], gradient, rtol=1e-10, atol=1e-14)


def test_a_confident_row_keeps_its_tiny_loss_and_a_hopeless_one_its_size():
    logits = torch.tensor([[40.0, 0.0], [0.0, 1e4]])
    found = ce(logits, torch.tensor([0, 0]))
    assert float(found[0]) == pytest.approx(math.exp(-40), rel=1e-5, abs=0)
    assert float(found[1]) == 1e4


def test_gradcheck():
    logits, item = random_case(3, 4)
    assert gradcheck(lambda z: ce(z, item), (logits.requires_grad_(),))
