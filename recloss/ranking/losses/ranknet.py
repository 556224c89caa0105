"""RankNet: logistic loss of every pair of documents of different grades."""

import torch.nn.functional as F
from torch import Tensor

from recloss.ranking.losses.base import ListLoss, documents


def ranknet(scores: Tensor, grades: Tensor) -> Tensor:
    """``l = mean over all q, i, j with y_qi > y_qj of softplus(s_qj - s_qi)``; pairs of all queries are pooled.

    Args:
        scores: (Q, L) scores s.
        grades: (Q, L) grades y; below 0 for padding.

    Returns:
        The scalar loss; 0 without any pair. Memory: a few times Q L^2 numbers.
    """
    present = documents(grades)
    s = scores.masked_fill(~present, 0)
    pairs = preferred(grades)
    losses = F.softplus(s[:, None, :] - s[:, :, None]).masked_fill(~pairs, 0)
    return losses.sum() / pairs.sum().clamp(min=1)


def preferred(grades: Tensor) -> Tensor:
    """(Q, L, L) bool, whether document i of a query has a higher grade than document j."""
    return (grades[:, :, None] > grades[:, None, :]) & documents(grades)[:, None, :]


class RankNet(ListLoss):
    """RankNet; a list weighs as many pairs of different grades as it has.

    Source: Burges et al., ICML 2005.
    """

    name = "ranknet"
    title = "RankNet"

    def compute(self, scores: Tensor, grades: Tensor) -> Tensor:
        """``ranknet`` of the batch."""
        return ranknet(scores, grades)
