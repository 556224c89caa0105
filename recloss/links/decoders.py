"""Scores of pairs of nodes from their vectors."""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from recloss.similarity import prepare, sampled_scores

_NUMBERS_AT_ONCE = 2**24
"""Of the products and of each hidden layer that the MLP decoder holds: 64 MB in float32."""


class Decoder(nn.Module, ABC):
    """Base of the decoders; the score of a pair does not depend on the order of its nodes."""

    @abstractmethod
    def forward(self, z: Tensor, sources: Tensor, targets: Tensor, similarity: str) -> Tensor:
        """(B, M) scores of the pairs of ``sources`` (B,) with ``targets`` (B, M); ``z`` (n, d) are the nodes' vectors.

        ``similarity`` is the loss's, "cosine" or "dot".
        """


class DotDecoder(Decoder):
    """The similarity of the loss: cosine or dot product. No parameters."""

    def forward(self, z: Tensor, sources: Tensor, targets: Tensor, similarity: str) -> Tensor:
        """See ``Decoder.forward``."""
        z = prepare(z, similarity)
        return sampled_scores(F.embedding(sources, z), z, targets)


class MLPDecoder(Decoder):
    """Logits of an MLP on the product of the two vectors, whatever the similarity of the loss.

    A loss for cosines gets these logits as they are: its temperatures are then in their unit, which is not bounded.

    Pairs are scored in pieces, such that the products and each hidden layer have at most 2**24 numbers (64 MB in
    float32); with more than one piece, the layers of each are computed again in the backward pass, so that the memory
    does not grow with the number of pairs.

    Args:
        dim: d, of the vectors and of the hidden layers.
        layers: linear layers, at least 1; ReLU and dropout between them.
        dropout: probability in [0, 1).
    """

    def __init__(self, dim: int, *, layers: int, dropout: float) -> None:
        super().__init__()
        hidden = [m for _ in range(layers - 1) for m in (nn.Linear(dim, dim), nn.ReLU(), nn.Dropout(dropout))]
        self.layers = nn.Sequential(*hidden, nn.Linear(dim, 1))
        self.pairs_at_once = max(1, _NUMBERS_AT_ONCE // dim)

    def forward(self, z: Tensor, sources: Tensor, targets: Tensor, similarity: str) -> Tensor:
        """See ``Decoder.forward``."""
        u, v = sources[:, None].expand_as(targets).flatten(), targets.flatten()
        if len(u) <= self.pairs_at_once:
            return self._logits(z, u, v).view_as(targets)
        pieces = zip(u.split(self.pairs_at_once), v.split(self.pairs_at_once), strict=True)
        logits = [checkpoint(self._logits, z, *piece, use_reentrant=False) for piece in pieces]
        return torch.cat(logits).view_as(targets)

    def _logits(self, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self.layers(F.embedding(u, z) * F.embedding(v, z))[:, 0]
