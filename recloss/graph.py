"""Sparse matrices over the training graph, and their products with embeddings."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recloss.interactions import Interactions
from recloss.similarity import csr


def normalised_adjacency(train: Interactions) -> Tensor:
    """(U + I, U + I) symmetric CSR matrix ``D^-1/2 A D^-1/2`` of the user-item graph."""
    n = train.n_users + train.n_items
    row = torch.cat([train.user, train.item + train.n_users])
    column = torch.cat([train.item + train.n_users, train.user])
    order = torch.argsort(row * n + column)
    row, column = row[order], column[order]
    degree = torch.bincount(row, minlength=n)
    scale = degree.clamp(min=1).rsqrt()
    offsets = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
    return csr(scale[row] * scale[column], column, offsets, n)


def item_means(train: Interactions) -> Tensor:
    """(U, I) CSR matrix whose product with item vectors is the mean over each user's items; 0 for a user without."""
    return csr(train.degrees.reciprocal()[train.user], train.item, train.offsets, train.n_items)


class SparseMatrix(nn.Module):
    """Constant sparse matrix M; calling it with (m, d) ``x`` gives ``M @ x``, differentiable in ``x``.

    M and its transpose are buffers outside the state_dict: they follow the module's device and precision, and unlike
    torch's sparse tensors can be copied.

    Args:
        matrix: M, (n, m) CSR.
        symmetric: whether M is its own transpose, which is then not made.
    """

    def __init__(self, matrix: Tensor, *, symmetric: bool = False) -> None:
        super().__init__()
        self.matrix = _Parts(matrix)
        self.transposed = self.matrix if symmetric else _Parts(_transposed(matrix))

    def forward(self, x: Tensor) -> Tensor:
        """(n, d) product."""
        return _Product.apply(x, self.matrix(), self.transposed())


class _Parts(nn.Module):
    """The tensors of a CSR matrix; calling it gives offsets, columns and weights."""

    offsets: Tensor
    columns: Tensor
    weights: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("offsets", matrix.crow_indices(), persistent=False)
        self.register_buffer("columns", matrix.col_indices(), persistent=False)
        self.register_buffer("weights", matrix.values(), persistent=False)

    def forward(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.offsets, self.columns, self.weights


def _transposed(matrix: Tensor) -> Tensor:
    """The transpose as CSR: a matrix's columns are the rows of its transpose."""
    by_column = matrix.to_sparse_csc()
    return csr(by_column.values(), by_column.row_indices(), by_column.ccol_indices(), len(matrix))


class _Product(torch.autograd.Function):
    """``M @ x``; the gradient is ``M^T @ g``."""

    @staticmethod
    def forward(ctx, x, matrix, transposed):  # type: ignore[no-untyped-def]
        ctx.matrix, ctx.transposed = matrix, transposed
        product = _sum_rows if x.device.type == "cpu" else _sparse_dense
        return product(x.detach(), *matrix)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        return _Product.apply(grad, ctx.transposed, ctx.matrix), None, None


def _sum_rows(x: Tensor, offsets: Tensor, columns: Tensor, weights: Tensor) -> Tensor:
    """The product as weighted sums of rows of ``x``: on a CPU 3 times as fast as torch's of CSR (1.3m entries)."""
    x = x.contiguous()
    return F.embedding_bag(columns, x, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)


def _sparse_dense(x: Tensor, offsets: Tensor, columns: Tensor, weights: Tensor) -> Tensor:
    """The product as torch's of a CSR matrix."""
    return csr(weights, columns, offsets, len(x)) @ x
