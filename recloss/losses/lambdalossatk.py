"""LambdaLoss@K: LambdaLoss with more weight on pairs that reach beyond the top K."""

import torch
from torch import Tensor

from recloss.errors import require
from recloss.losses.base import Batch
from recloss.losses.lambdaloss import LambdaLoss, RankRescale, Ranks, Variant, rank_distance_weight, weighted_pairs


def lambdalossatk(
    pos: Tensor, neg: Tensor, pos_rank: Tensor, neg_rank: Tensor, k: int, variant: Variant = "paper"
) -> Tensor:
    """``l_b = mean_j mu_bj eta(|pos_rank_b - neg_rank_bj|) softplus(n_bj - p_b)``.

    With m the larger of the two ranks, ``mu = 1 / (1 - 1 / log2(1 + m))`` if m > K, else 1; the "ir_benchmark" variant
    has 1 / m for 1 / log2(1 + m). eta as in ``rank_distance_weight``.

    Args:
        pos: (B,) scores of the positives.
        neg: (B, N) scores of the negatives.
        pos_rank: (B,) ranks of the positives, from 1.
        neg_rank: (B, N) ranks of the negatives.
        k: the cut-off K, at least 1.
        variant: "paper" or "ir_benchmark".

    Returns:
        (B,) losses; their gradient leaves the weights out.
    """
    m = torch.maximum(pos_rank[:, None], neg_rank).to(pos.dtype)
    mu = m / (m - 1) if variant == "ir_benchmark" else torch.log1p(m) / torch.log1p((m - 1) / 2)
    eta = rank_distance_weight(pos_rank, neg_rank, pos.dtype, variant)
    return weighted_pairs(pos, neg, torch.where(m > k, mu, 1.0) * eta)


class LambdaLossatK(LambdaLoss):
    """LambdaLoss@K on dot products, for NDCG@K, the paper's with one negative per positive; no IDCG, gains of 1.

    Ranks are exact among all items, or estimated from each row's own candidates (the papers' LambdaLoss@K-S).

    Args:
        n_items: size of the catalogue.
        k: the cut-off K.
        variant: "paper", or "ir_benchmark": the weight as the published numbers were run.
        ranks: "all" or "sampled".
        rank_rescale: "affine" (the best stays 1) or "proportional" (eq. C.8), of "sampled" ranks.

    Source: SL@K (KDD 2025), eqs. A.1-A.3.
    """

    name = "lambdalossatk"
    title = "LambdaLoss@K"

    def __init__(
        self,
        n_items: int,
        *,
        k: int = 20,
        variant: Variant = "paper",
        ranks: Ranks = "all",
        rank_rescale: RankRescale = "affine",
    ) -> None:
        super().__init__(n_items, variant=variant, ranks=ranks, rank_rescale=rank_rescale)
        require(isinstance(k, int) and 1 <= k <= n_items, f"k must lie in 1..{n_items} (the catalogue), got {k!r}")
        self.k = k

    def compute(self, batch: Batch) -> Tensor:
        """Mean of ``lambdalossatk`` over the batch."""
        return lambdalossatk(batch.pos, batch.neg, *self.ranks_of(batch), self.k, self.variant).mean()
