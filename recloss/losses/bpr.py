"""BPR: Bayesian personalised ranking."""

import torch.nn.functional as F
from torch import Tensor

from recloss.losses.base import Batch, Loss


def bpr(pos: Tensor, neg: Tensor) -> Tensor:
    """``l_b = mean_j softplus(n_bj - p_b)``, which is -log sigmoid(p - n) for the paper's single negative.

    Args:
        pos: (B,) scores of the positives.
        neg: (B, N) scores of the negatives.

    Returns:
        (B,) losses.
    """
    return F.softplus(neg - pos[:, None]).mean(1)


class BPR(Loss):
    """Bayesian personalised ranking on dot products, the paper's with one negative per positive.

    Source: Rendle et al., UAI 2009, eq. 6 (the sum over triples, here a mean; L2 is the optimiser's weight decay).
    """

    name = "bpr"
    title = "BPR"
    per_row = True
    similarity = "dot"

    def compute(self, batch: Batch) -> Tensor:
        """Mean of ``bpr`` over the batch."""
        return bpr(batch.pos, batch.neg).mean()
