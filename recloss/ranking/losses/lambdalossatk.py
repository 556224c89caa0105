"""LambdaLoss@K: pairwise logistic loss weighted by gains, distance of ranks and reach beyond the top K."""

import torch
import torch.nn.functional as F
from torch import Tensor

from recloss.errors import require
from recloss.ranking.losses.base import ListLoss, documents, gains, ideal_dcg, mean_of
from recloss.ranking.losses.ranknet import preferred


def lambdalossatk(scores: Tensor, grades: Tensor, k: int) -> Tensor:
    """``l_q = sum over i, j with y_i > y_j of (G_i - G_j) / IDCG@K  mu_ij eta_ij  softplus(s_j - s_i)``.

    Gains are ``G = 2^y - 1``. With r the ranks in the list (1 + number of larger scores), d the distance of the two
    and m the larger one, ``eta = 1 / log2(1 + d) - 1 / log2(2 + d)``, 0 at d = 0, and
    ``mu = 1 / (1 - 1 / log2(1 + m))`` if m > K, else 1.

    Args:
        scores: (Q, L) scores s.
        grades: (Q, L) grades y; below 0 for padding.
        k: the cut-off K, at least 1.

    Returns:
        (Q,) losses, whose gradient leaves the weights out; 0 for a list without two grades. Memory: a few times Q L^2
        numbers.
    """
    present = documents(grades)
    s, gain = scores.masked_fill(~present, 0), gains(grades, scores.dtype)
    with torch.no_grad():
        larger = (s[:, None, :] > s[:, :, None]) & present[:, None, :]
        rank = 1 + larger.sum(2).to(s.dtype)
        d = (rank[:, :, None] - rank[:, None, :]).abs()
        m = torch.maximum(rank[:, :, None], rank[:, None, :])
        eta = (1 / torch.log2(1 + d) - 1 / torch.log2(2 + d)).masked_fill(d == 0, 0)
        mu = torch.where(m > k, 1 / (1 - 1 / torch.log2(1 + m)), 1.0)
        ideal = ideal_dcg(gain, k)[:, None, None]
        weight = (gain[:, :, None] - gain[:, None, :]) * mu * eta / ideal.where(ideal > 0, 1.0)
        weight = weight.masked_fill(~preferred(grades), 0)
    return (weight * F.softplus(s[:, None, :] - s[:, :, None])).sum((1, 2))


class LambdaLossatK(ListLoss):
    """LambdaLoss@K for NDCG@K with exponential gains, over all pairs of a list.

    Args:
        k: the cut-off K.

    Source: Jagerman et al., SIGIR 2022; SL@K (KDD 2025), eqs. A.1-A.3, with gains of grades and the IDCG.
    """

    name = "lambdalossatk"
    title = "LambdaLoss@K"

    def __init__(self, *, k: int = 5) -> None:
        super().__init__()
        require(k >= 1, f"k must be at least 1, got {k!r}")
        self.k = k

    def compute(self, scores: Tensor, grades: Tensor) -> Tensor:
        """Mean of ``lambdalossatk`` over the lists with a relevant document."""
        return mean_of(lambdalossatk(scores, grades, self.k), (grades > 0).any(1))
