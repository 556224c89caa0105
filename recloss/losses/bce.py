"""BCE: binary cross-entropy."""

import torch.nn.functional as F
from torch import Tensor

from recloss.losses.base import Batch, Loss


def bce(pos: Tensor, neg: Tensor) -> Tensor:
    """``l_b = (softplus(-p_b) + mean_j softplus(n_bj)) / 2``; with one negative, the mean over the 2B logits.

    Args:
        pos: (B,) logits of the positives.
        neg: (B, N) logits of the negatives.

    Returns:
        (B,) losses.
    """
    return (F.softplus(-pos) + F.softplus(neg).mean(1)) / 2


class BCE(Loss):
    """Binary cross-entropy with dot products as logits; positives and negatives weigh the same, whatever N.

    Source: He et al., WWW 2017, eq. 7, with one negative per positive.
    """

    name = "bce"
    title = "BCE"
    per_row = True
    similarity = "dot"

    def compute(self, batch: Batch) -> Tensor:
        """Mean of ``bce`` over the batch."""
        return bce(batch.pos, batch.neg).mean()
