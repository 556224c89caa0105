"""MSE: mean squared error of predicted probabilities."""

import torch
from torch import Tensor

from recloss.losses.base import Batch, Loss


def mse(pos: Tensor, neg: Tensor) -> Tensor:
    """``l_b = ((sigmoid(p_b) - 1)^2 + mean_j sigmoid(n_bj)^2) / 2``; with one negative, the mean over the 2B errors.

    Args:
        pos: (B,) logits of the positives.
        neg: (B, N) logits of the negatives.

    Returns:
        (B,) losses, in (0, 1).
    """
    return (torch.sigmoid(-pos).square() + torch.sigmoid(neg).square().mean(1)) / 2


class MSE(Loss):
    """Squared error of the sigmoid of dot products; positives and negatives weigh the same, whatever N.

    Source: a baseline in the code of DrRL, with one negative per positive.
    """

    name = "mse"
    title = "MSE"
    per_row = True
    similarity = "dot"

    def compute(self, batch: Batch) -> Tensor:
        """Mean of ``mse`` over the batch."""
        return mse(batch.pos, batch.neg).mean()
