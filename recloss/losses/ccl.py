"""CCL: cosine contrastive loss."""

from torch import Tensor

from recloss.errors import require, require_positive
from recloss.losses.base import Batch, Loss


def ccl(pos: Tensor, neg: Tensor, margin: float, neg_weight: float | None = None) -> Tensor:
    """``l_b = max(0, 1 - p_b) + w * mean_j max(0, n_bj - margin)``, with w = N where no weight is given.

    Args:
        pos: (B,) scores of the positives.
        neg: (B, N) scores of the negatives; those up to the margin are left out, without gradient.
        margin: m.
        neg_weight: w; ``None`` for the sum over the negatives.

    Returns:
        (B,) losses, at least 0.
    """
    weight = neg.shape[1] if neg_weight is None else neg_weight
    return (1 - pos).relu() + weight * (neg - margin).relu().mean(1)


def truncation_rate(neg: Tensor, margin: float | Tensor) -> Tensor:
    """(B,) share of each row's negatives (B, N) that are left out: ``n_bj <= margin``, one margin or (B,) of them."""
    if isinstance(margin, Tensor):
        margin = margin[:, None]
    return (neg <= margin).to(neg.dtype).mean(1)


class CCL(Loss):
    """Cosine contrastive loss: raises positives to 1, pushes negatives below a margin, leaves the rest alone.

    With the margin learned per user it is DrRL at gamma_star = 1 and c = neg_weight.

    Args:
        margin: m, in [-1, 1).
        neg_weight: w, above 0; ``None`` for the number of negatives, a sum instead of a weighted mean.

    Source: SimpleX (Mao et al., CIKM 2021), default margin of the DrRL code.
    """

    name = "ccl"
    title = "CCL"
    per_row = True

    def __init__(self, *, margin: float = 0.7, neg_weight: float | None = None) -> None:
        super().__init__()
        inside = isinstance(margin, int | float) and -1 <= margin < 1
        require(inside, f"margin must be a number in [-1, 1), got {margin!r}")
        if neg_weight is not None:
            require_positive(neg_weight=neg_weight)
        self.margin, self.neg_weight = margin, neg_weight

    def compute(self, batch: Batch) -> Tensor:
        """Mean of ``ccl`` over the batch."""
        return ccl(batch.pos, batch.neg, self.margin, self.neg_weight).mean()
