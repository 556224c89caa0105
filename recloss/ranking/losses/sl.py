"""SL over lists: softmax loss of each document against the whole list, weighted by its gain."""

import torch
from torch import Tensor

from recloss.errors import require_positive
from recloss.ranking.losses.base import ListLoss, below_top, documents, gains, mean_of


def sl(scores: Tensor, grades: Tensor, tau: float) -> Tensor:
    """``l_q = sum_i G_i log sum_j exp((s_j - s_i) / tau) / sum_i G_i`` with ``G = 2^y - 1``; j runs over the list.

    Args:
        scores: (Q, L) scores s.
        grades: (Q, L) grades y; below 0 for padding.
        tau: temperature.

    Returns:
        (Q,) losses, at least 0; 0 for a list without a relevant document.
    """
    return weighted_softmax(scores, grades, tau, torch.ones_like(scores))


def weighted_softmax(scores: Tensor, grades: Tensor, tau: float, weight: Tensor) -> Tensor:
    """(Q,) ``sum_i G_i w_i log sum_j exp((s_j - s_i) / tau) / sum_i G_i`` of weights w (Q, L)."""
    gain = gains(grades, scores.dtype)
    share = gain / gain.sum(1, keepdim=True).clamp(min=torch.finfo(gain.dtype).tiny)
    losses = -(below_top(scores, documents(grades)) / tau).log_softmax(1)
    return (share * weight * losses).sum(1)


class SL(ListLoss):
    """Softmax loss over lists; the papers do not say how SL takes grades, this is our reading of it.

    Args:
        tau: temperature, above 0, of the scorer's scores as they are.

    Source: SL@K (KDD 2025), table 5 names it; the formula is ours.
    """

    name = "sl"
    title = "SL"

    def __init__(self, *, tau: float = 1.0) -> None:
        super().__init__()
        require_positive(tau=tau)
        self.tau = tau

    def compute(self, scores: Tensor, grades: Tensor) -> Tensor:
        """Mean of ``sl`` over the lists with a relevant document."""
        return mean_of(sl(scores, grades, self.tau), (grades > 0).any(1))
