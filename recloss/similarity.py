"""Scores of users and items: cosine or dot product, for all items or for sampled items, with their backward passes."""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

from recloss import native
from recloss.errors import choices

with warnings.catch_warnings():  # torch says once per process that CSR tensors are in beta; here is that once
    warnings.simplefilter("ignore")
    torch.eye(1).to_sparse_csr()

SIMILARITIES = ("cosine", "dot")
_EPS = 1e-12
_REALS = (torch.float32, torch.float64)
_DENSE_UP_TO = 2
"""All I scores are computed, and the sampled ones picked, while I is at most this many times the samples per row: a
matrix product does more, faster, and needs memory for B x I scores."""
_DENSE_BACKWARD = 16
"""The same for torch's own backward pass, which is slow on sparse matrices."""


def prepare(embeddings: Tensor, similarity: str) -> Tensor:
    """Embeddings (n, d) whose dot products are the similarity: L2-normalised (eps 1e-12) for cosine, else as they are.

    Raises:
        ValueError: for an unknown similarity.
    """
    if similarity not in SIMILARITIES:
        raise ValueError(choices("similarity", similarity, SIMILARITIES))
    if similarity == "dot":
        return embeddings
    if embeddings.dim() == 2 and native.takes(embeddings, dtypes=_REALS):
        return _NormalisedRows.apply(embeddings.contiguous())
    return F.normalize(embeddings, dim=-1, eps=_EPS)


def sampled_scores(u_BD: Tensor, v_ID: Tensor, items_BM: Tensor) -> Tensor:
    """(B, M) scores ``<u_b, v_items[b, m]>`` without materialising (B, M, D); differentiable in ``u`` and ``v``.

    ``items`` may repeat; they must lie in ``0 .. I - 1``, which is not checked. Rows that are one row expanded are
    scored by a matrix product of the items that there are.
    """
    B, M = items_BM.shape
    items_BM = items_BM.to(torch.int64)
    if B > 1 and items_BM.stride(0) == 0:
        return u_BD @ v_ID[items_BM[0]].T
    if len(v_ID) <= _DENSE_UP_TO * M:
        return (u_BD @ v_ID.T).gather(1, items_BM)
    if native.takes(u_BD, v_ID, dtypes=_REALS):
        return _NativeScores.apply(u_BD.contiguous(), v_ID.contiguous(), items_BM.contiguous())
    return _SampledScores.apply(u_BD, v_ID, items_BM)


def pair_scores(u_BD: Tensor, v_ID: Tensor, items_B: Tensor, negatives_BN: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) scores of each row's item and (B, N) of its negatives, as ``sampled_scores``, in one pass each way."""
    items_B, negatives_BN = items_B.to(torch.int64), negatives_BN.to(torch.int64)
    shared = len(u_BD) > 1 and negatives_BN.stride(0) == 0
    dense = len(v_ID) <= _DENSE_UP_TO * negatives_BN.shape[1]
    if not shared and (dense or native.takes(u_BD, v_ID, dtypes=_REALS)):
        return _PairScores.apply(u_BD.contiguous(), v_ID.contiguous(), items_B, negatives_BN.contiguous(), dense)
    return sampled_scores(u_BD, v_ID, items_B[:, None])[:, 0], sampled_scores(u_BD, v_ID, negatives_BN)


def segment_scores(u_BD: Tensor, v_ID: Tensor, items: Tensor, offsets: Tensor) -> Tensor:
    """(M,) scores of ragged rows: row b scores ``items[offsets[b] : offsets[b + 1]]``. No gradient."""
    u_BD, v_ID = u_BD.detach(), v_ID.detach()
    if not native.takes(u_BD, v_ID, dtypes=_REALS):
        return _csr_scores(u_BD, v_ID, items, offsets)
    return _native_scores(u_BD.contiguous(), v_ID.contiguous(), items.contiguous(), offsets.contiguous())


def csr(values: Tensor, items: Tensor, offsets: Tensor, n_items: int) -> Tensor:
    """(len(offsets) - 1, n_items) sparse matrix of ragged rows, in torch's CSR layout; nothing is checked."""
    size = (len(offsets) - 1, n_items)
    return torch.sparse_csr_tensor(offsets, items, values, size=size, check_invariants=False)


def _csr_scores(u_BD: Tensor, v_ID: Tensor, items: Tensor, offsets: Tensor) -> Tensor:
    pattern = csr(u_BD.new_zeros(len(items)), items, offsets, len(v_ID))
    return torch.sparse.sampled_addmm(pattern, u_BD, v_ID.T, beta=0.0).values()


def _native_scores(u_BD: Tensor, v_ID: Tensor, items: Tensor, offsets: Tensor | None) -> Tensor:
    """Scores of the shape of ``items``: (B, M), or (M,) with ``offsets``."""
    scores = u_BD.new_empty(items.shape)
    columns = 0 if offsets is not None else items.shape[1]
    name = f"sampled_scores_{_precision(u_BD)}"
    native.call(name, u_BD, v_ID, items, offsets, scores, len(u_BD), columns, u_BD.shape[1])
    return scores


def _native_gradients(
    u: Tensor, v: Tensor, items: Tensor, grad: Tensor, first: Tensor | None = None, grad_first: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Gradients of u and v for those of the scores of ``items`` (B, M), and of one more item ``first`` (B,) a row."""
    grad_u, grad_v = torch.empty_like(u), torch.empty_like(v)
    parts = v.new_empty(torch.get_num_threads() - 1, *v.shape)
    name = f"sampled_scores_backward_{_precision(u)}"
    if first is not None and grad_first is not None:
        first, grad_first = first.contiguous(), grad_first.contiguous()
    given = u, v, items, grad.contiguous(), first, grad_first
    native.call(name, *given, grad_u, grad_v, parts, *items.shape, *v.shape)
    return grad_u, grad_v


def _precision(x: Tensor) -> str:
    return "float32" if x.dtype == torch.float32 else "float64"


class _NativeScores(torch.autograd.Function):
    """Sampled scores one by one; backward, each adds to a row of either gradient."""

    @staticmethod
    def forward(ctx, u, v, items):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(u, v, items)
        return _native_scores(u, v, items, None)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        u, v, items = ctx.saved_tensors
        return *_native_gradients(u, v, items, grad), None


class _PairScores(torch.autograd.Function):
    """Positive and sampled scores together: picked from all I scores if ``dense``, else one by one."""

    @staticmethod
    def forward(ctx, u, v, items, negatives, dense):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(u, v, items, negatives)
        ctx.dense = dense
        if dense:
            scores = u @ v.T
            return scores.gather(1, items[:, None])[:, 0], scores.gather(1, negatives)
        return _native_scores(u, v, items[:, None].contiguous(), None)[:, 0], _native_scores(u, v, negatives, None)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_pos, grad_neg):  # type: ignore[no-untyped-def]
        u, v, items, negatives = ctx.saved_tensors
        if ctx.dense:
            G = u.new_zeros(len(u), len(v)).scatter_add_(1, negatives, grad_neg)
            G.scatter_add_(1, items[:, None], grad_pos[:, None])
            return G @ v, G.T @ u, None, None, None
        return *_native_gradients(u, v, negatives, grad_neg, items, grad_pos), None, None, None


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


class _NormalisedRows(torch.autograd.Function):
    """``F.normalize`` of rows, in one pass each way."""

    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        y, norm = torch.empty_like(x), x.new_empty(len(x))
        native.call(f"normalise_rows_{_precision(x)}", x, y, norm, _EPS, *x.shape)
        ctx.save_for_backward(y, norm)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        y, norm = ctx.saved_tensors
        grad_x = torch.empty_like(y)
        native.call(f"normalise_rows_backward_{_precision(y)}", y, norm, grad.contiguous(), grad_x, _EPS, *y.shape)
        return grad_x
