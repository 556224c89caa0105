"""Soft labels: cross-entropy of the softmax over all items with soft labels, target and others coupled."""

import torch.nn.functional as F
from torch import Tensor

from recloss.losses.base import Batch, Loss
from recloss.soft_labels import SoftLabels
from recloss.softmax import softmax_parts


def softlabels(logits: Tensor, item: Tensor, soft_targets: SoftLabels) -> Tensor:
    """``l_b = -sum_j q_bj log p_bj`` with ``p = softmax(z_b)`` over all items and soft labels q that sum to 1.

    It is computed in its two parts, ``BCE(q_y, p_y) + (1 - q_y) H(q', p')``, q' and p' without the target y and
    summing to 1; so the items need not include the target.

    Args:
        logits: (B, I) scores z of all items.
        item: (B,) targets y.
        soft_targets: soft labels q of the B rows.

    Returns:
        (B,) losses.
    """
    own, others = soft_targets.split(item)
    rows = soft_targets.items
    margin, cross = softmax_parts(logits, item, rows, others)
    return cross - own * F.logsigmoid(margin) - rows.with_values(others).sum() * F.logsigmoid(-margin)


class SoftLabelLoss(Loss):
    """Cross-entropy with soft labels on dot products with all items, the baseline that DeSoRec decouples.

    It has no hyper-parameters: q_y alone sets both how confident the target is and how much the others count.

    Memory: (B, I) scores and their gradient, and a million scores more (see `recloss.softmax`).

    Source: DeSoRec (arXiv 2410.06536), after Hinton et al. 2015.
    """

    name = "softlabels"
    title = "SoftLabels"
    similarity = "dot"
    sampled = False
    per_row = True
    needs = frozenset({"logits", "item", "soft_targets"})

    def compute(self, batch: Batch) -> Tensor:
        """Mean of ``softlabels`` over the batch."""
        assert batch.logits is not None
        assert batch.item is not None
        assert batch.soft_targets is not None
        return softlabels(batch.logits, batch.item, batch.soft_targets).mean()
