"""Scoring kernels against gather and einsum, with both backward routes."""

import itertools

import pytest
import torch
from torch.autograd import gradcheck

from recloss.errors import choices
from recloss.similarity import prepare, sampled_scores, segment_scores

pytestmark = pytest.mark.usefixtures("kernels")

ROUTES = {
    "dense": (30, 20),
    "dense, more samples than items": (7, 30),
    "sparse, dense backward": (80, 20),
    "sparse": (400, 5),
}
"""Items and samples per row that lead scores and gradients through each of the ways to compute them."""


def naive(u: torch.Tensor, v: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    return torch.einsum("bd,bmd->bm", u, v[items])


def tables(n_items: int, samples: int, rows: int = 9, dim: int = 6, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(rows, dim, generator=generator).to(dtype).requires_grad_()
    v = torch.randn(n_items, dim, generator=generator).to(dtype).requires_grad_()
    items = torch.randint(n_items, (rows, samples), generator=generator)
    items[0] = items[0, 0]  # a row of one repeated item
    items[1, : samples // 2] = n_items - 1
    return u, v, items


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("route", ROUTES)
def test_values_and_gradients_equal_the_naive_way(route, dtype, tolerance):
    u, v, items = tables(*ROUTES[route], dtype=dtype)
    weight = torch.randn(items.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    expected = naive(u, v, items)
    found = sampled_scores(u, v, items)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    by_hand = torch.autograd.grad((expected.sigmoid() * weight).sum(), (u, v))
    by_kernel = torch.autograd.grad((found.sigmoid() * weight).sum(), (u, v))
    for left, right in zip(by_kernel, by_hand, strict=True):
        torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("route", ROUTES)
def test_the_shapes_above_take_the_route_they_name(route, monkeypatch, kernels):
    """Torch builds one sparse matrix for sparse scores, one more for sparse gradients; the native way calls C twice."""
    import recloss.similarity as module
    from recloss import native

    calls = []
    csr, call = module.csr, native.call
    monkeypatch.setattr(module, "csr", lambda *arguments: calls.append("csr") or csr(*arguments))
    monkeypatch.setattr(native, "call", lambda *arguments: calls.append("native") or call(*arguments))
    u, v, items = tables(*ROUTES[route])
    sampled_scores(u, v, items).sum().backward()
    if route.startswith("dense"):
        assert calls == []
    elif kernels == "native":
        assert calls == ["native", "native"]
    else:
        assert calls == ["csr"] * (2 if route == "sparse" else 1)


def test_one_row_of_items_for_all_is_a_matrix_product():
    u, v, items = tables(40, 6)
    shared = items[3].expand(len(u), 6)
    weight = torch.randn(len(u), 6, generator=torch.Generator().manual_seed(1)).double()
    expected = torch.autograd.grad((naive(u, v, shared) * weight).sum(), (u, v))
    found = torch.autograd.grad((sampled_scores(u, v, shared) * weight).sum(), (u, v))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("route", ROUTES)
def test_gradcheck(route):
    n_items, samples = ROUTES[route]
    u, v, items = tables(n_items // 5 + 1, samples // 5, rows=3, dim=2)
    assert (len(v) > 16 * items.shape[1]) == (route == "sparse")
    assert gradcheck(lambda a, b: sampled_scores(a, b, items), (u, v))


@pytest.mark.parametrize("route", ROUTES)
def test_only_one_side_may_want_a_gradient(route):
    u, v, items = tables(*ROUTES[route])
    for which in (0, 1):
        sides = [u.detach(), v.detach()]
        sides[which] = sides[which].requires_grad_()
        sampled_scores(*sides, items).square().sum().backward()
        expected = torch.autograd.grad(naive(u, v, items).square().sum(), (u, v))[which]
        torch.testing.assert_close(sides[which].grad, expected, rtol=1e-12, atol=1e-12)
        assert sides[1 - which].grad is None


@pytest.mark.parametrize("route", ROUTES)
def test_the_gradient_of_a_slice_of_the_scores(route):
    """Positives are column 0, negatives the rest, as the training loop splits them."""
    u, v, items = tables(*ROUTES[route])
    pos, neg = (s := sampled_scores(u, v, items))[:, 0], s[:, 1:]
    found = torch.autograd.grad((neg.logsumexp(1) - pos).sum(), (u, v))
    s = naive(u, v, items)
    expected = torch.autograd.grad((s[:, 1:].logsumexp(1) - s[:, 0]).sum(), (u, v))
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("route", ROUTES)
def test_two_runs_give_the_same_bits(route):
    n_items, samples = ROUTES[route]
    runs = []
    for _ in range(3):
        u, v, items = tables(n_items * 5, samples * 5, rows=200, dim=64, dtype=torch.float32)
        scores = sampled_scores(u, v, items)
        runs.append((scores.detach(), *torch.autograd.grad(scores.sigmoid().sum(), (u, v))))
    for other in runs[1:]:
        assert all(torch.equal(left, right) for left, right in zip(runs[0], other, strict=True))


def test_one_row_and_one_item():
    u, v = torch.tensor([[2.0, 1.0]], requires_grad=True), torch.tensor([[3.0, -1.0]], requires_grad=True)
    scores = sampled_scores(u, v, torch.tensor([[0]]))
    scores.sum().backward()
    assert scores.tolist() == [[5.0]]
    assert u.grad.tolist() == [[3.0, -1.0]]
    assert v.grad.tolist() == [[2.0, 1.0]]


@pytest.mark.parametrize("lengths", [[2, 0, 3], [0, 0, 4], [3, 1, 0], [0, 0, 0]])
def test_segment_scores_with_empty_rows(lengths):
    u, v, _ = tables(12, 3, rows=3)
    offsets = torch.tensor([0, *itertools.accumulate(lengths)])
    items = torch.randint(12, (sum(lengths),), generator=torch.Generator().manual_seed(2))
    rows = torch.arange(3).repeat_interleave(torch.tensor(lengths))
    found = segment_scores(u, v, items, offsets)
    torch.testing.assert_close(found, (u[rows] * v[items]).sum(1).detach(), rtol=1e-12, atol=1e-12)
    assert not found.requires_grad


def test_segment_scores_equal_sampled_scores_of_the_same_items_to_the_bit():
    """A threshold compares positives of one kernel with negatives of the other."""
    u, v, items = tables(200, 20, rows=30, dim=64, dtype=torch.float32)
    segments = segment_scores(u, v, items.flatten(), torch.arange(0, 601, 20))
    assert torch.equal(segments, sampled_scores(u, v, items).detach().flatten())


def test_cosine_has_unit_rows_and_dot_changes_nothing():
    table = torch.tensor([[3.0, 4.0], [-1.0, 0.0], [1e-5, 0.0]], dtype=torch.float64)
    unit = torch.tensor([[0.6, 0.8], [-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(prepare(table, "cosine"), unit, rtol=1e-12, atol=0)
    assert prepare(table, "dot") is table


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_zero_vector_scores_0_and_has_a_finite_gradient(dtype):
    u = torch.zeros(1, 3, dtype=dtype, requires_grad=True)
    v = torch.tensor([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0]], dtype=dtype, requires_grad=True)
    scores = sampled_scores(prepare(u, "cosine"), prepare(v, "cosine"), torch.tensor([[0, 1]]))
    scores.sum().backward()
    assert scores.tolist() == [[0.0, 0.0]]
    assert bool(torch.isfinite(u.grad).all())
    assert bool(torch.isfinite(v.grad).all())


def test_the_gradient_of_a_cosine_is_orthogonal_to_its_embedding():
    table = torch.tensor([[3.0, 4.0], [-1.0, 0.5]], dtype=torch.float64, requires_grad=True)
    (prepare(table, "cosine") * torch.tensor([[1.0, 2.0], [0.5, -3.0]])).sum().backward()
    assert (table.grad * table).sum(1).abs().max().item() < 1e-14
    assert float(table.grad.abs().min()) > 1e-3


def test_an_unknown_similarity_is_named():
    with pytest.raises(ValueError, match=r"unknown similarity 'cosin'; did you mean 'cosine'\?"):
        prepare(torch.ones(1, 1), "cosin")


def test_choices_lists_what_is_accepted_when_nothing_is_near():
    assert choices("loss", "zzzz", ["b", "a"]) == "unknown loss 'zzzz'; (accepted: a, b)"


@pytest.mark.parametrize("route", ROUTES)
def test_items_of_another_integer_type_score_the_same(route):
    u, v, items = tables(*ROUTES[route])
    assert torch.equal(sampled_scores(u, v, items.int()), sampled_scores(u, v, items))
