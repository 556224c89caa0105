"""Scores of users and items: cosine or dot product, for all items or for sampled items, with their backward passes."""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

from recloss.errors import choices

with warnings.catch_warnings():  # torch says once per process that CSR tensors are in beta; here is that once
    warnings.simplefilter("ignore")
    torch.eye(1).to_sparse_csr()

SIMILARITIES = ("cosine", "dot")
KERNEL = "sampled dense-dense product"
"""How sampled scores are computed; recorded with results, whose last bits depend on it."""
_DENSE_BACKWARD = 16
"""Item gradients go through a dense (B, I) matrix while I is at most this many times the sampled items per row."""


def prepare(embeddings: Tensor, similarity: str) -> Tensor:
    """Embeddings (n, d) whose dot products are the similarity: L2-normalised (eps 1e-12) for cosine, else as they are.

    Raises:
        ValueError: for an unknown similarity.
    """
    if similarity not in SIMILARITIES:
        raise ValueError(choices("similarity", similarity, SIMILARITIES))
    return F.normalize(embeddings, dim=-1, eps=1e-12) if similarity == "cosine" else embeddings


def sampled_scores(u_BD: Tensor, v_ID: Tensor, items_BM: Tensor) -> Tensor:
    """(B, M) scores ``<u_b, v_items[b, m]>`` without materialising (B, M, D); differentiable in ``u`` and ``v``.

    ``items`` may repeat; they must lie in ``0 .. I - 1``, which is not checked.
    """
    if items_BM.shape[1] > len(v_ID):
        return (u_BD @ v_ID.T).gather(1, items_BM)
    return _SampledScores.apply(u_BD, v_ID, items_BM)


def segment_scores(u_BD: Tensor, v_ID: Tensor, items: Tensor, offsets: Tensor) -> Tensor:
    """(M,) scores of ragged rows: row b scores ``items[offsets[b] : offsets[b + 1]]``. No gradient."""
    return _csr_scores(u_BD.detach(), v_ID.detach(), items, offsets)


def csr(values: Tensor, items: Tensor, offsets: Tensor, n_items: int) -> Tensor:
    """Sparse (len(offsets) - 1, n_items) matrix of rows in the layout of ``Segments``; nothing is checked."""
    size = (len(offsets) - 1, n_items)
    return torch.sparse_csr_tensor(offsets, items, values, size=size, check_invariants=False)


def _csr_scores(u_BD: Tensor, v_ID: Tensor, items: Tensor, offsets: Tensor) -> Tensor:
    pattern = csr(u_BD.new_zeros(len(items)), items, offsets, len(v_ID))
    return torch.sparse.sampled_addmm(pattern, u_BD, v_ID.T, beta=0.0).values()


class _SampledScores(torch.autograd.Function):
    """Forward: sampled dense-dense product. Backward: the (B, I) score gradient G, dense or sparse, times v and u."""

    @staticmethod
    def forward(ctx, u, v, items):  # type: ignore[no-untyped-def]
        offsets = torch.arange(0, items.numel() + 1, items.shape[1], device=items.device)
        ctx.save_for_backward(u, v, items, offsets)
        return _csr_scores(u, v, items.flatten(), offsets).view_as(items)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        u, v, items, offsets = ctx.saved_tensors
        if len(v) <= _DENSE_BACKWARD * items.shape[1]:
            G = grad.new_zeros(len(u), len(v)).scatter_add_(1, items, grad)
            return G @ v, G.T @ u, None
        G = csr(grad.reshape(-1), items.flatten(), offsets, len(v))
        return G @ v, G.t() @ u, None
