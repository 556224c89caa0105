"""Sparse matrices over the training graph: their entries, products and gradients against dense ones."""

import copy

import pytest
import torch

from recloss.graph import SparseMatrix, _sparse_dense, _sum_rows, item_means, normalised_adjacency
from recloss.interactions import Interactions

TRAIN = Interactions(torch.tensor([0, 0, 0, 1, 3]), torch.tensor([0, 1, 4, 1, 2]), 4, 6)  # user 2, items 3 and 5: none
MATRICES = {
    "adjacency": lambda: (normalised_adjacency(TRAIN), True),
    "means": lambda: (item_means(TRAIN), False),
    "adjacency as any matrix": lambda: (normalised_adjacency(TRAIN), False),
}
every_matrix = pytest.mark.parametrize("name", MATRICES)


def make(name: str, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, SparseMatrix]:
    matrix, symmetric = MATRICES[name]()
    return matrix.to_dense().to(dtype), SparseMatrix(matrix, symmetric=symmetric).to(dtype)


def test_entries_of_the_means():
    third = 1 / 3
    expected = [[third, third, 0, 0, third, 0], [0, 1, 0, 0, 0, 0], [0] * 6, [0, 0, 1, 0, 0, 0]]
    torch.testing.assert_close(item_means(TRAIN).to_dense(), torch.tensor(expected))


def test_entries_of_the_adjacency():
    dense = normalised_adjacency(TRAIN).to_dense()
    degree = {0: 3, 1: 1, 3: 1, 4: 1, 5: 2, 6: 1, 8: 1}
    expected = torch.zeros(10, 10)
    for u, i in zip(TRAIN.user.tolist(), TRAIN.item.tolist(), strict=True):
        expected[u, 4 + i] = expected[4 + i, u] = (degree[u] * degree[4 + i]) ** -0.5
    torch.testing.assert_close(dense, expected)


@every_matrix
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_product_and_gradient_are_those_of_the_dense_matrix(name, dtype):
    dense, sparse = make(name, dtype)
    x = torch.randn(dense.shape[1], 5, dtype=dtype, requires_grad=True)
    grad = torch.randn(dense.shape[0], 5, dtype=dtype)
    found = sparse(x)
    torch.testing.assert_close(found, dense @ x)
    torch.testing.assert_close(torch.autograd.grad((found * grad).sum(), x)[0], dense.T @ grad)


@every_matrix
def test_first_and_second_derivatives_by_differences(name):
    dense, sparse = make(name)
    x = torch.randn(dense.shape[1], 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(sparse, x)
    assert torch.autograd.gradgradcheck(lambda x: sparse(x).square(), x)


@every_matrix
def test_both_ways_to_multiply_agree(name):
    dense, sparse = make(name)
    x = torch.randn(dense.shape[1], 3, dtype=torch.float64)
    for product in (_sum_rows, _sparse_dense):
        torch.testing.assert_close(product(x, *sparse.matrix()), dense @ x)
        torch.testing.assert_close(product(x.repeat(1, 2)[:, ::2], *sparse.matrix()), dense @ x.repeat(1, 2)[:, ::2])


def test_the_bits_do_not_depend_on_the_layout_of_the_embeddings():
    _, sparse = make("means", torch.float32)
    for x in (torch.rand(8, 6).T, torch.rand(6, 16)[:, ::2], torch.rand(()).expand(6, 8)):
        assert torch.equal(sparse(x), sparse(x.contiguous()))


def test_a_gradient_that_is_one_number_expanded():
    dense, sparse = make("means")
    x = torch.zeros(6, 3, dtype=torch.float64, requires_grad=True)
    sparse(x).sum().backward()
    torch.testing.assert_close(x.grad, dense.sum(0)[:, None].expand(6, 3))


def test_a_symmetric_matrix_is_stored_once_and_any_other_with_its_transpose():
    assert len(list(make("adjacency")[1].buffers())) == 3
    dense, means = make("means")
    assert len(list(means.buffers())) == 6
    torch.testing.assert_close(_sparse_dense(torch.eye(4).double(), *means.transposed()), dense.T)


def test_a_matrix_copies_casts_and_leaves_no_state():
    dense, sparse = make("means", torch.float32)
    assert sparse.state_dict() == {}
    copied = copy.deepcopy(sparse).double()
    x = torch.randn(6, 2)
    torch.testing.assert_close(copied(x.double()), dense.double() @ x.double())
    assert sparse(x).dtype == torch.float32


def test_no_interaction_at_all():
    nothing = torch.zeros(0, dtype=torch.int64)
    means = SparseMatrix(item_means(Interactions(nothing, nothing, 2, 3)))
    x = torch.ones(3, 4, requires_grad=True)
    assert torch.equal(means(x), torch.zeros(2, 4))
    means(x).sum().backward()
    assert torch.equal(x.grad, torch.zeros(3, 4))
