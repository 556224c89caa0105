"""RS@K: a smoothed Recall@K, a step at rank K of a smoothed rank."""

import torch
from torch import Tensor

from recloss.errors import require, require_positive
from recloss.losses.base import Batch, Loss


def rsatk(pos: Tensor, neg: Tensor, k: int, tau_rank: float, tau_step: float, weight: Tensor | float = 1.0) -> Tensor:
    """``l_b = 1 - sigmoid((K - 1 - R_b) / tau_step)`` with ``R_b = w_b * sum_j sigmoid((n_bj - p_b) / tau_rank)``.

    Args:
        pos: (B,) scores of the positives.
        neg: (B, N) scores of the negatives.
        k: the cut-off K; a positive at rank K exactly has loss 1/2 in the limit of small temperatures.
        tau_rank: temperature of the smoothed number R of negatives above the positive.
        tau_step: temperature of the step at R = K - 1, in ranks.
        weight: items that one negative stands for (w), a number or (B,).

    Returns:
        (B,) losses in [0, 1]; the gradient vanishes where R is far from K - 1.
    """
    above = weight * torch.sigmoid((neg - pos[:, None]) / tau_rank).sum(1)
    return torch.sigmoid((above - (k - 1)) / tau_step)


class RSatK(Loss):
    """Recall@K surrogate on cosines; the rank is counted among the sampled negatives.

    Args:
        n_items: size of the catalogue.
        tau_rank: temperature of the rank, above 0; by default the most frequent optimum on MF in Talos, as tau_step.
        tau_step: temperature of the step, above 0, in ranks.
        k: the cut-off K.
        rank_scale: count each negative as the (n_items - positives) / N items it stands for, so that the rank is
            estimated in the catalogue, where K is meant; ours. The paper's rank among N negatives is smaller.

    Source: Patel et al., CVPR 2022, for one positive and one K as in Talos (WWW 2026).
    """

    name = "rsatk"
    title = "RS@K"
    per_row = True

    def __init__(
        self, n_items: int, *, tau_rank: float = 0.05, tau_step: float = 5.0, k: int = 20, rank_scale: bool = False
    ) -> None:
        super().__init__()
        require_positive(tau_rank=tau_rank, tau_step=tau_step)
        require(isinstance(k, int) and 1 <= k <= n_items, f"k must lie in 1..{n_items} (the catalogue), got {k!r}")
        require(isinstance(rank_scale, bool), f"rank_scale must be true or false, got {rank_scale!r}")
        self.n_items, self.k, self.tau_rank, self.tau_step = n_items, k, tau_rank, tau_step
        self.rank_scale = rank_scale
        if rank_scale:
            self.needs = frozenset({"n_positives"})

    def compute(self, batch: Batch) -> Tensor:
        """Mean of ``rsatk`` over the batch."""
        weight: Tensor | float = 1.0
        if self.rank_scale:
            assert batch.n_positives is not None
            weight = (self.n_items - batch.n_positives).to(batch.pos.dtype) / batch.neg.shape[1]
        return rsatk(batch.pos, batch.neg, self.k, self.tau_rank, self.tau_step, weight).mean()
