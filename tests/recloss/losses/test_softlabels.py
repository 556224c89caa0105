"""The coupled soft-label loss against goldens, its formula in plain Python, and the softmax."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from recloss.interactions import Segments
from recloss.losses import Batch, SoftLabelLoss
from recloss.losses.softlabels import softlabels
from recloss.soft_labels import SoftLabels


def sparse(dense: torch.Tensor) -> SoftLabels:
    counts = (dense > 0).sum(1)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return SoftLabels(Segments((dense > 0).nonzero()[:, 1], offsets), dense[dense > 0])


def random_case(rows: int = 5, n_items: int = 8):
    generator = torch.Generator().manual_seed(7)
    logits = torch.randn(rows, n_items, generator=generator, dtype=torch.float64)
    dense = torch.rand(rows, n_items, generator=generator, dtype=torch.float64).sub(0.2).relu()
    item = torch.randint(n_items, (rows,), generator=generator)
    return logits, item, dense / dense.sum(1, keepdim=True)


def test_golden(golden):
    case = golden("desorec_decoupling_identity")
    inputs = case["inputs"]
    logits, dense = (torch.tensor(inputs[name], dtype=torch.float64) for name in ("logits", "soft_labels"))
    item, soft = torch.tensor(inputs["target"]), sparse(dense)
    expected = torch.tensor(case["soft_cross_entropy"], dtype=torch.float64)
    torch.testing.assert_close(softlabels(logits, item, soft), expected, rtol=1e-9, atol=0)
    value = SoftLabelLoss()(Batch(torch.zeros(2), torch.zeros(2, 0), item=item, logits=logits, soft_targets=soft))
    assert float(value) == pytest.approx(float(expected.mean()), rel=1e-6)


def test_against_the_formula_in_plain_python():
    logits, item, dense = random_case()
    expected = []
    for z, q in zip(logits.tolist(), dense.tolist(), strict=True):
        total = math.log(sum(math.exp(x) for x in z))
        expected.append(sum(weight * (total - x) for x, weight in zip(z, q, strict=True)))
    found = softlabels(logits, item, sparse(dense))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_the_target_only_divides_the_work():
    logits, item, dense = random_case()
    found = softlabels(logits, (item + 3) % 8, sparse(dense))
    torch.testing.assert_close(found, softlabels(logits, item, sparse(dense)), rtol=1e-12, atol=1e-12)


def test_one_hot_labels_are_softmax():
    logits, item, _ = random_case()
    hard = sparse(F.one_hot(item, 8).double())
    expected = F.cross_entropy(logits, item, reduction="none")
    torch.testing.assert_close(softlabels(logits, item, hard), expected, rtol=1e-12, atol=1e-12)


def test_gradcheck():
    logits, item, dense = random_case(3, 4)
    assert gradcheck(lambda z: softlabels(z, item, sparse(dense)), (logits.requires_grad_(),))
