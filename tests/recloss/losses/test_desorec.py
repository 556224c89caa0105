"""DeSoRec against goldens, its formula in plain Python, and its identities."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from recloss.interactions import Segments
from recloss.losses import Batch, DeSoRec
from recloss.losses.desorec import desorec
from recloss.losses.softlabels import softlabels
from recloss.soft_labels import SoftLabels


def sparse(dense: torch.Tensor) -> SoftLabels:
    counts = (dense > 0).sum(1)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return SoftLabels(Segments((dense > 0).nonzero()[:, 1], offsets), dense[dense > 0])


def random_case(rows: int = 6, n_items: int = 9, dtype=torch.float64):
    """Row 0 has its target alone, row 1 a label without its target."""
    generator = torch.Generator().manual_seed(4)
    logits = 2 * torch.randn(rows, n_items, generator=generator, dtype=torch.float64)
    item = torch.randint(n_items, (rows,), generator=generator)
    dense = torch.rand(rows, n_items, generator=generator, dtype=torch.float64).sub(0.4).relu()
    dense[torch.arange(rows), item] = 0.5
    dense[0] = F.one_hot(item[0], n_items)
    dense[1, item[1]] = 0
    return logits.to(dtype), item, (dense / dense.sum(1, keepdim=True)).to(dtype)


def golden_case(golden, dtype):
    inputs = golden("desorec_loss")["inputs"]
    logits = torch.tensor(inputs["logits"], dtype=dtype, requires_grad=True)
    soft = sparse(torch.tensor(inputs["soft_labels"], dtype=dtype))
    return logits, torch.tensor(inputs["target"]), soft, inputs["ld1"], inputs["ld2"]


def test_golden(golden, dtype):
    case = golden("desorec_loss")
    logits, item, soft, ld1, ld2 = golden_case(golden, dtype)
    near = {"rtol": 1e-9, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 2e-5, "atol": 1e-6}
    value = DeSoRec(conf_softness=ld1, conf_weight=ld2)(
        Batch(logits.gather(1, item[:, None])[:, 0], torch.zeros(2, 0), item=item, logits=logits, soft_targets=soft)
    )
    (gradient,) = torch.autograd.grad(value, logits)
    for found, name in ((value, "total"), (gradient, "grad_logits")):
        torch.testing.assert_close(found.detach(), torch.tensor(case[name], dtype=dtype), **near)
    for weights, name in (((1, 0), "L_conf"), ((0, 1), "L_nontarget_kl")):
        found = desorec(logits, item, soft, ld1, *weights).mean()
        torch.testing.assert_close(found.detach(), torch.tensor(case[name], dtype=dtype), **near)


def test_golden_of_the_limit_that_is_softmax(golden):
    case = golden("desorec_limit_softmax_ce")
    logits, item, soft, _, _ = golden_case(golden, torch.float64)
    found = desorec(logits, item, soft, case["inputs"]["ld1"], case["inputs"]["ld2"], 0).mean()
    assert found.item() == pytest.approx(case["total"], rel=1e-12)
    torch.testing.assert_close(found, F.cross_entropy(logits, item), rtol=1e-12, atol=0)


def in_plain_python(logits, item, dense, softness, conf_weight, nontarget_weight):
    losses = []
    for z, y, q in zip(logits.tolist(), item.tolist(), dense.tolist(), strict=True):
        total = sum(math.exp(x) for x in z)
        p = [math.exp(x) / total for x in z]
        t = softness * q[y] + (1 - softness)
        confidence = -(t * math.log(p[y]) + (1 - t) * math.log(1 - p[y]))
        q_left, p_left = sum(q) - q[y], sum(p) - p[y]
        divergence = 0.0
        for j in range(len(z)):
            if j != y and q[j] > 0:
                divergence += q[j] / q_left * math.log((q[j] / q_left) / (p[j] / p_left))
        losses.append(conf_weight * confidence + nontarget_weight * divergence)
    return torch.tensor(losses, dtype=torch.float64)


@pytest.mark.parametrize("weights", [(0.3, 0.7, 0.3), (0, 1, 0), (1, 0, 1), (0.5, 2.0, 0.1)])
def test_against_the_formula_in_plain_python(weights):
    logits, item, dense = random_case()
    found = desorec(logits, item, sparse(dense), *weights)
    torch.testing.assert_close(found, in_plain_python(logits, item, dense, *weights), rtol=1e-12, atol=1e-12)


def test_decoupling_identity():
    """H(q, p) = BCE(q_y, p_y) + (1 - q_y) (KL(q', p') + H(q')), in values and gradients."""
    logits, item, dense = random_case()
    logits.requires_grad_()
    own = dense.gather(1, item[:, None])
    others = dense.scatter(1, item[:, None], 0) / (1 - own).clamp(min=1e-300)
    entropy = -torch.xlogy(others, others).sum(1)
    left = 1 - own[:, 0]
    decoupled = desorec(logits, item, sparse(dense), 1, 1, 0) + left * (
        desorec(logits, item, sparse(dense), 1, 0, 1) + entropy
    )
    plain = -(dense * logits.log_softmax(1)).sum(1)
    coupled = softlabels(logits, item, sparse(dense))
    gradients = [torch.autograd.grad(x.sum(), logits)[0] for x in (decoupled, plain, coupled)]
    for found in (decoupled, coupled):
        torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-12)
    for found in (gradients[0], gradients[2]):
        torch.testing.assert_close(found, gradients[1], rtol=1e-12, atol=1e-12)


def test_a_row_whose_labels_are_its_target_alone_is_softmax():
    logits, item, dense = random_case()
    for softness in (0.0, 0.3, 1.0):
        alone = desorec(logits, item, sparse(dense), softness, 0.7, 0.3)[0]
        torch.testing.assert_close(alone, 0.7 * F.cross_entropy(logits[0], item[0]), rtol=1e-12, atol=0)


def test_the_second_weight_is_what_the_first_leaves_unless_it_is_given():
    assert DeSoRec(conf_weight=0.25).nontarget_weight == 0.75
    assert DeSoRec(conf_weight=2.0, nontarget_weight=0.5).nontarget_weight == 0.5
    with pytest.raises(ValueError, match="^conf_weight must be at most 1 where nontarget_weight is None, got 2"):
        DeSoRec(conf_weight=2.0)


def test_gradcheck():
    logits, item, dense = random_case(3, 5)
    assert gradcheck(lambda z: desorec(z, item, sparse(dense), 0.3, 0.7, 0.3), (logits.requires_grad_(),))


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_scores_of_ten_thousand_in_float32(scale):
    logits, item, dense = random_case()
    logits, dense = (scale * logits / logits.abs().max()).float(), dense.float()
    logits.requires_grad_()
    exact = logits.detach().double().requires_grad_()
    found = desorec(logits, item, sparse(dense), 0.3, 0.7, 0.3)
    wanted = desorec(exact, item, replace(sparse(dense), weights=sparse(dense).weights.double()), 0.3, 0.7, 0.3)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=1e-3)
    found.sum().backward()
    wanted.sum().backward()
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=1e-4, atol=1e-6)
    own = logits.detach().gather(1, item[:, None])[:, 0]
    largest = logits.detach().amax(1)
    plain = DeSoRec(conf_softness=0, conf_weight=1)(
        Batch(own, torch.zeros(6, 0), item=item, logits=logits, soft_targets=sparse(dense))
    )
    torch.testing.assert_close(plain.detach(), (largest - own).mean(), rtol=1e-5, atol=1)
