"""LightGCN: embeddings smoothed over the user-item graph."""

import torch
from torch import Tensor

from recloss.backbones.base import Backbone, embedding_table
from recloss.interactions import Interactions


class LightGCN(Backbone):
    """LightGCN: mean of the layers ``E, AE, ..., A^L E`` of the normalised training graph.

    ``A = D^-1/2 [[0, R], [R^T, 0]] D^-1/2`` over users and items, built from the training pairs only; a node without
    neighbours has degree 1. Propagates once per call of ``embed``; A is symmetric, so its backward pass is A itself.

    Args:
        train: the training interactions.
        dim: embedding dimension d.
        layers: number of propagations L, at least 1.
        init: as for MF.

    Source: He et al., SIGIR 2020, eqs. 3-8.
    """

    name = "lightgcn"
    title = "LightGCN"
    offsets: Tensor
    columns: Tensor
    weights: Tensor

    def __init__(self, train: Interactions, *, dim: int = 64, layers: int = 2, init: str = "normal") -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers must be at least 1, got {layers}")
        self.user = embedding_table(train.n_users, dim, init)
        self.item = embedding_table(train.n_items, dim, init)
        self.layers = layers
        graph = normalised_adjacency(train)
        self.register_buffer("offsets", graph.crow_indices(), persistent=False)
        self.register_buffer("columns", graph.col_indices(), persistent=False)
        self.register_buffer("weights", graph.values(), persistent=False)

    @property
    def adjacency(self) -> Tensor:
        """(U + I, U + I) CSR matrix A over the buffers, which unlike it can be copied."""
        size = (len(self.offsets) - 1,) * 2
        return torch.sparse_csr_tensor(self.offsets, self.columns, self.weights, size=size, check_invariants=False)

    def embed(self) -> tuple[Tensor, Tensor]:
        """Mean of all layers."""
        layer, adjacency = torch.cat([self.user, self.item]), self.adjacency
        total = layer
        for _ in range(self.layers):
            layer = _Propagate.apply(adjacency, layer)
            total = total + layer
        mean = total / (self.layers + 1)
        return mean[: len(self.user)], mean[len(self.user) :]


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
    return torch.sparse_csr_tensor(offsets, column, scale[row] * scale[column], size=(n, n), check_invariants=False)


class _Propagate(torch.autograd.Function):
    """``A @ x`` for symmetric A; the gradient is ``A @ g``."""

    @staticmethod
    def forward(ctx, adjacency, x):  # type: ignore[no-untyped-def]
        ctx.adjacency = adjacency
        return adjacency @ x

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        return None, ctx.adjacency @ grad
