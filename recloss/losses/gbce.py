"""gBCE: binary cross-entropy that corrects for sampled negatives."""

import torch.nn.functional as F
from torch import Tensor

from recloss.errors import require
from recloss.losses.base import Batch, Loss


def gbce(pos: Tensor, neg: Tensor, n_items: int, t: float) -> Tensor:
    """``l_b = (beta softplus(-p_b) + sum_j softplus(n_bj)) / (N + 1)`` with ``beta = 1 - t (1 - N / (I - 1))``.

    That is ``-log sigmoid(p_b)^beta`` and the N terms ``-log(1 - sigmoid(n_bj))``; ``N / (I - 1)`` is the share of the
    other items that are drawn, at most 1.

    Args:
        pos: (B,) logits of the positives.
        neg: (B, N) logits of the negatives.
        n_items: size I of the catalogue.
        t: calibration.

    Returns:
        (B,) losses.
    """
    N = neg.shape[1]
    beta = 1 - t * (1 - min(1.0, N / (n_items - 1)))
    return (beta * F.softplus(-pos) + F.softplus(neg).sum(1)) / (N + 1)


class GBCE(Loss):
    """Generalised binary cross-entropy with dot products as logits, for many negatives per positive.

    Of the few negatives that are sampled, plain cross-entropy learns probabilities that are too large. The power beta
    of the positive's probability makes up for it: at ``t = 1`` the probability that minimises the loss is that without
    sampling, at ``t = 0`` nothing is corrected.

    Args:
        n_items: size of the catalogue.
        t: calibration, in [0, 1]: 0 is the cross-entropy of the N + 1 logits.

    Source: gSASRec (Petrov and Macdonald, RecSys 2023); its checkpoint for ML-1M has t = 0.75 and 256 negatives.
    """

    name = "gbce"
    title = "gBCE"
    per_row = True
    similarity = "dot"

    def __init__(self, n_items: int, *, t: float = 0.75) -> None:
        super().__init__()
        require(n_items >= 2, f"n_items must be at least 2, got {n_items!r}")
        require(isinstance(t, int | float) and 0 <= t <= 1, f"t must be a number in [0, 1], got {t!r}")
        self.n_items, self.t = n_items, t

    def compute(self, batch: Batch) -> Tensor:
        """Mean of ``gbce`` over the batch."""
        return gbce(batch.pos, batch.neg, self.n_items, self.t).mean()
