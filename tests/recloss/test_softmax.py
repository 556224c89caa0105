"""The two parts of a softmax over all items: against the plain form, in any pieces, in bounded memory."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck
from torch.profiler import ProfilerActivity, profile

from recloss import softmax
from recloss.interactions import Segments
from recloss.softmax import softmax_parts


def plain(logits, item, weights):
    """From dense weights (B, I)."""
    own = F.one_hot(item, logits.shape[1]).bool()
    others = logits.masked_fill(own, -torch.inf)
    lse = others.logsumexp(1)
    cross = -(weights * (logits - lse[:, None])).masked_fill(own, 0).sum(1)
    return logits.gather(1, item[:, None])[:, 0] - lse, cross


def case(rows=7, n_items=11, dtype=torch.float64):
    generator = torch.Generator().manual_seed(2)
    logits = 3 * torch.randn(rows, n_items, generator=generator, dtype=torch.float64)
    item = torch.randint(n_items, (rows,), generator=generator)
    chosen = torch.rand(rows, n_items, generator=generator) < 0.4
    chosen[2] = False
    chosen[torch.arange(rows), item] = False
    dense = torch.rand(rows, n_items, generator=generator, dtype=torch.float64) * chosen
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), chosen.sum(1).cumsum(0)])
    sparse = Segments(chosen.nonzero()[:, 1], offsets), dense[chosen].to(dtype)
    return logits.to(dtype).requires_grad_(), item, dense.to(dtype), sparse


@pytest.mark.parametrize("size", [1, 25, 2**20])
@pytest.mark.parametrize("uniform", [False, True])
def test_values_and_gradients_are_those_of_the_plain_form(size, uniform, monkeypatch):
    monkeypatch.setattr(softmax, "_CHUNK", size)
    logits, item, dense, sparse = case()
    weights = torch.full_like(dense, 1 / 10) if uniform else dense
    found, expected = softmax_parts(logits, item, *(() if uniform else sparse)), plain(logits, item, weights)
    upstream = torch.linspace(-1, 2, 7, dtype=torch.float64), torch.linspace(0.5, -1, 7, dtype=torch.float64)
    gradients = [torch.autograd.grad(parts, logits, upstream)[0] for parts in (found, expected)]
    for left, right in zip([*found, gradients[0]], [*expected, gradients[1]], strict=True):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("uniform", [False, True])
def test_gradcheck(uniform):
    logits, item, _, sparse = case(rows=4, n_items=5)
    assert gradcheck(lambda z: softmax_parts(z, item, *(() if uniform else sparse)), (logits,))


@pytest.mark.parametrize("uniform", [False, True])
def test_scores_of_ten_thousand_in_float32(uniform):
    logits, item, _, sparse = case(dtype=torch.float32)
    far = (logits.detach() * 1e4 / logits.detach().abs().max()).requires_grad_()
    exact = far.detach().double().requires_grad_()
    values = softmax_parts(far, item, *(() if uniform else sparse))
    wanted = softmax_parts(exact, item, *(() if uniform else (sparse[0], sparse[1].double())))
    for left, right in zip(values, wanted, strict=True):
        torch.testing.assert_close(left.double(), right, rtol=1e-6, atol=1e-3)
    sum(values).sum().backward()
    sum(wanted).sum().backward()
    torch.testing.assert_close(far.grad.double(), exact.grad, rtol=1e-3, atol=1e-5)


def test_scores_of_any_layout():
    logits, item, dense, sparse = case()
    turned = logits.detach().T.contiguous().T.requires_grad_()
    softmax_parts(turned, item, *sparse)[1].sum().backward()
    plain(logits, item, dense)[1].sum().backward()
    torch.testing.assert_close(turned.grad, logits.grad)


def peak(compute) -> int:
    """Most bytes allocated at once."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        compute()
    events = [event for event in run.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


@pytest.mark.parametrize("uniform", [False, True])
def test_memory_is_the_scores_gradient_and_a_piece(uniform, monkeypatch):
    monkeypatch.setattr(softmax, "_CHUNK", 2**15)
    B, n_items = 64, 10_000
    logits, item = torch.randn(B, n_items, requires_grad=True), torch.arange(B)
    sparse = (Segments(torch.arange(1000, 1000 + 5 * B), 5 * torch.arange(B + 1)), torch.full((5 * B,), 0.2))
    scores = logits.numel() * 4

    def both(parts):
        (sum(parts).mean()).backward()
        logits.grad = None

    found = peak(lambda: both(softmax_parts(logits, item, *(() if uniform else sparse))))
    assert scores <= found < 1.1 * scores
    forward = peak(lambda: softmax_parts(logits.detach(), item, *(() if uniform else sparse)))
    assert forward < 0.15 * scores, "3 of 64 rows at once"
    assert peak(lambda: F.cross_entropy(logits, item, label_smoothing=0.1).backward()) > 2.9 * scores
