"""CE: cross-entropy of the softmax over all items."""

import torch.nn.functional as F
from torch import Tensor

from recloss.losses.base import Batch, Loss
from recloss.softmax import softmax_parts


def ce(logits: Tensor, item: Tensor) -> Tensor:
    """``l_b = -log p_by`` with ``p = softmax(z_b)``.

    Args:
        logits: (B, I) scores z of all items.
        item: (B,) targets y.

    Returns:
        (B,) losses.
    """
    margin, _ = softmax_parts(logits, item)
    return -F.logsigmoid(margin)


class CE(Loss):
    """Softmax cross-entropy on dot products with all items; nothing is sampled.

    What label smoothing, soft labels and DeSoRec are compared with, and what GRU4Rec and SASRec are often trained with.
    `SL` with ``over="all"`` is the one on cosines.

    Memory: (B, I) scores and their gradient, and a million scores more (see `recloss.softmax`).

    Source: the first stage of DeSoRec (arXiv 2410.06536), as in its published code.
    """

    name = "ce"
    title = "CE"
    similarity = "dot"
    sampled = False
    per_row = True
    needs = frozenset({"logits", "item"})

    def compute(self, batch: Batch) -> Tensor:
        """Mean of ``ce`` over the batch."""
        assert batch.logits is not None
        assert batch.item is not None
        return ce(batch.logits, batch.item).mean()
