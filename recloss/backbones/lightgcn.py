"""LightGCN: embeddings smoothed over the user-item graph."""

import torch
from torch import Tensor

from recloss.backbones.base import Backbone, embedding_table
from recloss.graph import SparseMatrix, normalised_adjacency
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

    def __init__(self, train: Interactions, *, dim: int = 64, layers: int = 2, init: str = "normal") -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers must be at least 1, got {layers}")
        self.user = embedding_table(train.n_users, dim, init)
        self.item = embedding_table(train.n_items, dim, init)
        self.layers = layers
        self.adjacency = SparseMatrix(normalised_adjacency(train), symmetric=True)

    def embed(self) -> tuple[Tensor, Tensor]:
        """Mean of all layers."""
        total = layer = torch.cat([self.user, self.item])
        for _ in range(self.layers):
            layer = self.adjacency(layer)
            total = total + layer
        mean = total / (self.layers + 1)
        return mean[: len(self.user)], mean[len(self.user) :]
