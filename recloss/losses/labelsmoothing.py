"""Label smoothing: cross-entropy of the softmax over all items with a target that is a little uniform."""

import torch.nn.functional as F
from torch import Tensor

from recloss.errors import require
from recloss.losses.base import Batch, Loss
from recloss.softmax import softmax_parts


def labelsmoothing(logits: Tensor, item: Tensor, smoothing: float) -> Tensor:
    """``l_b = -sum_j q_bj log p_bj`` with ``p = softmax(z_b)`` and ``q_bj = (1 - smoothing) [j = y] + smoothing / I``.

    Args:
        logits: (B, I) scores z of all items.
        item: (B,) targets y.
        smoothing: share of the uniform distribution.

    Returns:
        (B,) losses.
    """
    others = smoothing * (1 - 1 / logits.shape[1])
    margin, cross = softmax_parts(logits, item)
    return others * (cross - F.logsigmoid(-margin)) - (1 - others) * F.logsigmoid(margin)


class LabelSmoothing(Loss):
    """Softmax cross-entropy with label smoothing on dot products with all items; plain for a smoothing of 0.

    Memory: (B, I) scores and their gradient, and a million scores more (see `recloss.softmax`).

    Args:
        smoothing: share of the uniform distribution in the target, in [0, 1); 0 is the softmax cross-entropy.

    Source: Szegedy et al., CVPR 2016, section 7.
    """

    name = "labelsmoothing"
    title = "LabelSmoothing"
    similarity = "dot"
    sampled = False
    per_row = True
    needs = frozenset({"logits", "item"})

    def __init__(self, *, smoothing: float = 0.1) -> None:
        super().__init__()
        ok = isinstance(smoothing, int | float) and 0 <= smoothing < 1
        require(ok, f"smoothing must be a number in [0, 1), got {smoothing!r}")
        self.smoothing = smoothing

    def compute(self, batch: Batch) -> Tensor:
        """Mean of ``labelsmoothing`` over the batch."""
        assert batch.logits is not None
        assert batch.item is not None
        return labelsmoothing(batch.logits, batch.item, self.smoothing).mean()
