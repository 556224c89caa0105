"""LambdaLoss: pairwise logistic loss weighted by the distance of the pair's ranks (NDCG-Loss2)."""

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from recloss.errors import require_one_of
from recloss.interactions import Segments
from recloss.losses.base import Batch, Loss

Variant = Literal["paper", "ir_benchmark"]
Ranks = Literal["all", "sampled"]
RankRescale = Literal["affine", "proportional"]


def lambdaloss(pos: Tensor, neg: Tensor, pos_rank: Tensor, neg_rank: Tensor, variant: Variant = "paper") -> Tensor:
    """``l_b = mean_j eta(|pos_rank_b - neg_rank_bj|) softplus(n_bj - p_b)``, eta as in ``rank_distance_weight``.

    Args:
        pos: (B,) scores of the positives.
        neg: (B, N) scores of the negatives.
        pos_rank: (B,) ranks of the positives, from 1.
        neg_rank: (B, N) ranks of the negatives.
        variant: "paper" or "ir_benchmark".

    Returns:
        (B,) losses; their gradient leaves the weights out.
    """
    return weighted_pairs(pos, neg, rank_distance_weight(pos_rank, neg_rank, pos.dtype, variant))


def weighted_pairs(pos: Tensor, neg: Tensor, weight: Tensor) -> Tensor:
    """(B,) ``mean_j w_bj softplus(n_bj - p_b)``; the weights (B, N) get no gradient."""
    return (weight.detach() * F.softplus(neg - pos[:, None])).mean(1)


def rank_distance_weight(pos_rank: Tensor, neg_rank: Tensor, dtype: torch.dtype, variant: Variant) -> Tensor:
    """(B, N) eta at d = the distance of the two ranks; 0 for d = 0, which is a tie.

    ``1 / log2(1 + d) - 1 / log2(2 + d)``, or in the "ir_benchmark" variant its first term alone.
    """
    d = (pos_rank[:, None] - neg_rank).abs().to(dtype)
    tied = d == 0
    d = d.masked_fill(tied, 1)
    share = 1 if variant == "ir_benchmark" else torch.log1p(1 / (1 + d)) / torch.log1p(1 + d)  # exact for large d too
    return (math.log(2) / torch.log1p(d) * share).masked_fill(tied, 0)


@torch.no_grad()
def sampled_ranks(
    pos: Tensor, neg: Tensor, positives: Segments, n_items: int, rank_rescale: RankRescale
) -> tuple[Tensor, Tensor]:
    """Estimated ranks among all items, from ranks r among C candidates: the user's positives and the row's negatives.

    ``1 + (r - 1) n_items / C`` ("affine") or ``r n_items / C`` ("proportional"); r is 1 + the number of candidates
    with a larger score. Repeated negatives count each.

    Args:
        pos: (B,) scores of the positives, which are among ``positives`` too.
        neg: (B, N) scores of the negatives.
        positives: scores of all training positives of each row's user.
        n_items: size of the catalogue.
        rank_rescale: "affine" or "proportional".

    Returns:
        (B,) and (B, N) ranks of the positives and the negatives.
    """
    (B, N), M = neg.shape, len(positives.values)
    rows = torch.arange(B, device=neg.device)
    own = torch.cat([pos[:, None], neg], 1)
    bar = own.clone()  # the positive's copy in `positives` may be rounded otherwise, and is not larger than itself
    bar[:, 0] += 64 * torch.finfo(own.dtype).eps * own.abs().amax(1)
    values, order = positives.values.to(own.dtype).sort()
    keys = (positives.rows[order] * M + torch.arange(M, device=neg.device)).sort().values
    not_larger = torch.searchsorted(values, bar, right=True)  # among the positives of all rows
    larger_pos = positives.offsets[1:, None] - torch.searchsorted(keys, rows[:, None] * M + not_larger)
    larger_neg = N - torch.searchsorted(neg.sort(1).values, own, right=True)
    count = (positives.lengths + N)[:, None].to(own.dtype)
    first = 1 if rank_rescale == "affine" else 0
    ranks = first + ((1 - first + larger_pos + larger_neg) * n_items).to(own.dtype) / count
    return ranks[:, 0], ranks[:, 1:]


class LambdaLoss(Loss):
    """LambdaLoss on dot products, for NDCG, the paper's with one negative per positive; no IDCG, gains of 1.

    Ranks are exact among all items, or estimated from each row's own candidates (the papers' LambdaLoss-S).

    Args:
        n_items: size of the catalogue.
        variant: "paper", or "ir_benchmark": only the first term of the weight, as the published numbers were run.
        ranks: "all" or "sampled".
        rank_rescale: "affine" (the best stays 1) or "proportional" (eq. C.8), of "sampled" ranks.

    Source: SL@K (KDD 2025), appendix A; NDCG-Loss2 of Wang et al. (CIKM 2018).
    """

    name = "lambdaloss"
    title = "LambdaLoss"
    per_row = True
    similarity = "dot"
    needs = frozenset({"pos_rank", "neg_rank"})

    def __init__(
        self, n_items: int, *, variant: Variant = "paper", ranks: Ranks = "all", rank_rescale: RankRescale = "affine"
    ) -> None:
        super().__init__()
        require_one_of("variant", variant, get_args(Variant))
        require_one_of("ranks", ranks, get_args(Ranks))
        require_one_of("rank_rescale", rank_rescale, get_args(RankRescale))
        self.n_items, self.variant, self.ranks, self.rank_rescale = n_items, variant, ranks, rank_rescale
        if ranks == "sampled":
            self.needs = frozenset({"positives"})

    def compute(self, batch: Batch) -> Tensor:
        """Mean of ``lambdaloss`` over the batch."""
        return lambdaloss(batch.pos, batch.neg, *self.ranks_of(batch), self.variant).mean()

    def ranks_of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B,) and (B, N) ranks of the positives and the negatives."""
        if self.ranks == "sampled":
            assert batch.positives is not None
            return sampled_ranks(batch.pos, batch.neg, batch.positives, self.n_items, self.rank_rescale)
        assert batch.pos_rank is not None
        assert batch.neg_rank is not None
        return batch.pos_rank, batch.neg_rank
