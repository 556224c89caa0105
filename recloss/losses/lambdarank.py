"""LambdaRank: pairwise logistic loss weighted by the pair's share in DCG."""

import math

import torch
from torch import Tensor

from recloss.losses.base import Batch, Loss
from recloss.losses.lambdaloss import weighted_pairs


def lambdarank(pos: Tensor, neg: Tensor, pos_rank: Tensor, neg_rank: Tensor) -> Tensor:
    """``l_b = mean_j |1 / log2(1 + pos_rank_b) - 1 / log2(1 + neg_rank_bj)| softplus(n_bj - p_b)``.

    The weight is what swapping the two items changes DCG by.

    Args:
        pos: (B,) scores of the positives.
        neg: (B, N) scores of the negatives.
        pos_rank: (B,) ranks of the positives, from 1.
        neg_rank: (B, N) ranks of the negatives.

    Returns:
        (B,) losses; their gradient leaves the weights out.
    """
    first, second = torch.minimum(pos_rank[:, None], neg_rank), torch.maximum(pos_rank[:, None], neg_rank)
    ratio = torch.log1p((second - first).to(pos.dtype) / (1 + first))
    weight = math.log(2) * ratio / (torch.log1p(first.to(pos.dtype)) * torch.log1p(second.to(pos.dtype)))
    return weighted_pairs(pos, neg, weight)


class LambdaRank(Loss):
    """LambdaRank on dot products, the papers' with one negative per positive; exact ranks, no IDCG, gains of 1.

    Source: SL@K (KDD 2025), appendix A; Burges et al. (NIPS 2006).
    """

    name = "lambdarank"
    title = "LambdaRank"
    per_row = True
    similarity = "dot"
    needs = frozenset({"pos_rank", "neg_rank"})

    def compute(self, batch: Batch) -> Tensor:
        """Mean of ``lambdarank`` over the batch."""
        assert batch.pos_rank is not None
        assert batch.neg_rank is not None
        return lambdarank(batch.pos, batch.neg, batch.pos_rank, batch.neg_rank).mean()
