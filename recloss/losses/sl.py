"""SL: sampled softmax loss."""

from torch import Tensor

from recloss.errors import require_positive
from recloss.losses.base import Batch, Loss


def sl(pos: Tensor, neg: Tensor, tau: float) -> Tensor:
    """``l_b = log sum_j exp((n_bj - p_b) / tau)``: a sum over the N negatives, the positive not among them.

    Args:
        pos: (B,) scores of the positives.
        neg: (B, N) scores of the negatives.
        tau: temperature.

    Returns:
        (B,) losses; negative values are normal.
    """
    return (neg / tau).logsumexp(1) - pos / tau


class SL(Loss):
    """Sampled softmax loss on cosines.

    Args:
        tau: temperature, above 0.

    Source: SL@K (KDD 2025), eq. 2.3 and algorithm C.1; spec section 2.
    """

    name = "sl"
    title = "SL"

    def __init__(self, *, tau: float = 0.2) -> None:
        super().__init__()
        require_positive(tau=tau)
        self.tau = tau

    def compute(self, batch: Batch) -> Tensor:
        """Mean of ``sl`` over the batch."""
        return sl(batch.pos, batch.neg, self.tau).mean()
