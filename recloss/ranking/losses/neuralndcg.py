"""NeuralNDCG: NDCG of a sorting that is smooth in the scores (NeuralSort)."""

import torch
from torch import Tensor

from recloss.errors import require, require_positive
from recloss.ranking.losses.base import ListLoss, below_top, discounts, documents, gains, ideal_dcg, mean_of

ITERATIONS, TOLERANCE = 50, 1e-6
"""Of the scaling to a doubly stochastic matrix, as published."""


def neuralndcg(scores: Tensor, grades: Tensor, tau: float, k: int | None = None) -> Tensor:
    """``l_q = - sum_{r <= K} (P g)_r / log2(1 + r) / IDCG@K`` with gains ``g = 2^y - 1``.

    P is the soft permutation of `soft_permutation`, scaled to be doubly stochastic; for tau -> 0 it sorts the list and
    the loss is -NDCG@K.

    Args:
        scores: (Q, L) scores.
        grades: (Q, L) grades y; below 0 for padding.
        tau: temperature of P.
        k: the cut-off K; all ranks without.

    Returns:
        (Q,) losses in [-1, 0] up to the tolerance of the scaling; 0 for a list without a relevant document. Memory: a
        few times Q L^2 numbers.
    """
    gain = gains(grades, scores.dtype)
    at_rank = _Sorted.apply(soft_permutation(scores, grades, tau), gain)[:, :k]
    ideal = ideal_dcg(gain, k)
    return -(at_rank @ discounts(at_rank.shape[1], at_rank)) / ideal.where(ideal > 0, 1.0)


def soft_permutation(scores: Tensor, grades: Tensor, tau: float) -> Tensor:
    """(Q, L, L) with rows ``P_r = softmax_j(((n + 1 - 2 r) s_j - sum_l |s_j - s_l|) / tau)``, r = 1 .. n.

    n is the number of the query's documents, over which j and l run; columns of padding and rows beyond n are 0.

    Source: Grover et al., ICLR 2019.
    """
    present = documents(grades)
    n = present.sum(1)
    rank = torch.arange(1, scores.shape[1] + 1, device=scores.device)
    s = below_top(scores, present).masked_fill(~present, 0)
    distance = ((s[:, :, None] - s[:, None, :]).abs() * present[:, None, :]).sum(2)
    logits = (n[:, None] + 1 - 2 * rank)[:, :, None] * s[:, None, :] - distance[:, None, :]
    rows = rank <= n[:, None]
    exists = rows[:, :, None] & present[:, None, :]
    logits = (logits / tau).masked_fill(~exists, -torch.inf).masked_fill(~rows[:, :, None], 0)
    return logits.softmax(2).masked_fill(~exists, 0)


class _Sorted(torch.autograd.Function):
    """(Q, L) ``diag(r) P diag(c) g``: columns and rows are scaled in turn until both sum to 1 (Sinkhorn).

    Backward through the iterations, of which the scales r and c alone are kept: the gradients of P are outer products,
    added up in one product of matrices.
    """

    @staticmethod
    def forward(ctx, P, gain):  # type: ignore[no-untyped-def]
        r, c = P.new_ones(P.shape[:2]), P.new_ones(P.shape[:2])
        done = torch.zeros(len(P), 1, dtype=torch.bool, device=P.device)
        sums, steps = _by_column(P, r), []
        for _ in range(ITERATIONS):
            next_c = _inverse(sums)
            next_r = _inverse(_by_row(P, next_c))
            steps.append((r, next_c, next_r, done))
            r, c = r.where(done, next_r), c.where(done, next_c)
            sums = _by_column(P, r)
            done = done | ((c * sums - 1).where(sums > 0, 0).abs().amax(1, keepdim=True) < TOLERANCE)
            if bool(done.all()):
                break
        at_rank = _by_row(P, c * gain)
        ctx.save_for_backward(P, gain, r, c, at_rank)
        ctx.steps = steps
        return r * at_rank

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        P, gain, r, c, at_rank = ctx.saved_tensors
        left, right = [grad * r], [c * gain]
        grad_r, grad_c = grad * at_rank, _by_column(P, grad * r) * gain
        for before, next_c, next_r, done in reversed(ctx.steps):
            of_row = (-grad_r * next_r.square()).masked_fill(done | (next_r == _LARGEST), 0)
            of_column = -(grad_c + _by_column(P, of_row)) * next_c.square()
            of_column = of_column.masked_fill(done | (next_c == _LARGEST), 0)
            left += [of_row, before]
            right += [next_c, of_column]
            grad_r, grad_c = grad_r.where(done, _by_row(P, of_column)), grad_c.where(done, 0)
        return torch.stack(left, 2) @ torch.stack(right, 1), None


_LARGEST = 1e10
"""Bound of a scale, where sums vanish, as those of padding do."""


def _by_row(P: Tensor, c: Tensor) -> Tensor:
    return (P @ c[:, :, None])[:, :, 0]


def _by_column(P: Tensor, r: Tensor) -> Tensor:
    return (r[:, None, :] @ P)[:, 0]


def _inverse(sums: Tensor) -> Tensor:
    return (1 / sums).clamp(max=_LARGEST)


class NeuralNDCG(ListLoss):
    """NeuralNDCG in its deterministic form.

    Args:
        tau: temperature of the soft sorting, above 0.
        k: the cut-off K; ``None`` for the whole list.

    Source: Pobrotyn and Bialobrzeski, SIGIR eCom 2021.
    """

    name = "neuralndcg"
    title = "NeuralNDCG"

    def __init__(self, *, tau: float = 1.0, k: int | None = None) -> None:
        super().__init__()
        require_positive(tau=tau)
        require(k is None or k >= 1, f"k must be at least 1, or none for the whole list, got {k!r}")
        self.tau, self.k = tau, k

    def compute(self, scores: Tensor, grades: Tensor) -> Tensor:
        """Mean of ``neuralndcg`` over the lists with a relevant document."""
        return mean_of(neuralndcg(scores, grades, self.tau, self.k), (grades > 0).any(1))
