"""DeSoRec: softmax over all items, decoupled into the target's confidence and the distribution among the others."""

import torch
import torch.nn.functional as F
from torch import Tensor

from recloss.errors import require
from recloss.losses.base import Batch, Loss
from recloss.soft_labels import SoftLabels
from recloss.softmax import softmax_parts


def desorec(
    logits: Tensor,
    item: Tensor,
    soft_targets: SoftLabels,
    conf_softness: float,
    conf_weight: float,
    nontarget_weight: float,
) -> Tensor:
    """``l_b = conf_weight * BCE(t_b, p_by) + nontarget_weight * KL(q'_b || p'_b)`` with ``p = softmax(z_b)``.

    ``t = 1 - conf_softness (1 - q_y)``; q' and p' are the soft labels q and p without the target y, each summing to 1.
    A row whose soft labels are its target alone has no second part.

    Args:
        logits: (B, I) scores z of all items.
        item: (B,) targets y.
        soft_targets: soft labels q of the B rows.
        conf_softness: how much of the target's soft label replaces the hard one.
        conf_weight: weight of the target's part.
        nontarget_weight: weight of the others' part.

    Returns:
        (B,) losses.
    """
    own, others = soft_targets.split(item)
    rows = soft_targets.items
    mass = rows.with_values(others).sum()
    q = others / torch.where(mass > 0, mass, 1)[rows.rows]
    margin, cross = softmax_parts(logits, item, rows, q)
    t = 1 - conf_softness * (1 - own)
    confidence = -t * F.logsigmoid(margin) - (1 - t) * F.logsigmoid(-margin)
    divergence = rows.with_values(torch.xlogy(q, q)).sum() + cross
    return conf_weight * confidence + nontarget_weight * divergence


class DeSoRec(Loss):
    """DeSoRec's decoupled loss on dot products with all items; nothing is sampled.

    The coupled cross-entropy with soft labels is one point per row of this plane: conf_softness 1, conf_weight 1 and
    nontarget_weight 1 - q_y, up to a constant; with conf_softness 0 and nontarget_weight 0 it is the softmax
    cross-entropy. The authors' code has two scalars: its ld1 is conf_softness; its ld2 is conf_weight, with
    nontarget_weight 1 - ld2.

    Memory: (B, I) scores and their gradient, and a million scores more (see `recloss.softmax`).

    Args:
        conf_softness: how much of the target's soft label replaces the hard one (ld1), in [0, 1].
        conf_weight: weight of the target's confidence (ld2), at least 0.
        nontarget_weight: weight of the distribution among the others, at least 0; None for 1 - conf_weight.

    Source: DeSoRec (arXiv 2410.06536), as in its published code; the defaults are its script's for Diginetica.
    """

    name = "desorec"
    title = "DeSoRec"
    similarity = "dot"
    sampled = False
    per_row = True
    needs = frozenset({"logits", "item", "soft_targets"})

    def __init__(
        self, *, conf_softness: float = 0.3, conf_weight: float = 0.7, nontarget_weight: float | None = None
    ) -> None:
        super().__init__()
        ok = isinstance(conf_softness, int | float) and 0 <= conf_softness <= 1
        require(ok, f"conf_softness must be a number in [0, 1], got {conf_softness!r}")
        ok = isinstance(conf_weight, int | float) and 0 <= conf_weight < float("inf")
        require(ok, f"conf_weight must be a number of at least 0, got {conf_weight!r}")
        ok = nontarget_weight is not None or conf_weight <= 1
        require(ok, f"conf_weight must be at most 1 where nontarget_weight is None, got {conf_weight!r}")
        if nontarget_weight is not None:
            ok = isinstance(nontarget_weight, int | float) and 0 <= nontarget_weight < float("inf")
            require(ok, f"nontarget_weight must be a number of at least 0, or None, got {nontarget_weight!r}")
        self.conf_softness, self.conf_weight = conf_softness, conf_weight
        self.nontarget_weight = 1 - conf_weight if nontarget_weight is None else nontarget_weight

    def compute(self, batch: Batch) -> Tensor:
        """Mean of ``desorec`` over the batch."""
        assert batch.logits is not None
        assert batch.item is not None
        assert batch.soft_targets is not None
        return desorec(
            batch.logits,
            batch.item,
            batch.soft_targets,
            self.conf_softness,
            self.conf_weight,
            self.nontarget_weight,
        ).mean()
