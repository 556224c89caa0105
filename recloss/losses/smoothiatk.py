"""SmoothI@K: Precision@K with smooth indicators of who stands at each of the K ranks."""

from typing import Literal, get_args

import torch
from torch import Tensor

from recloss.errors import require, require_one_of, require_positive
from recloss.losses.base import Batch, Loss

Variant = Literal["per_item", "scalar"]


def smoothiatk(pos: Tensor, neg: Tensor, k: int, tau: float, delta: float, variant: Variant = "per_item") -> Tensor:
    """``l_b = 1 - 1/K * sum_k I_b0^(k)``: what the positive, item 0, takes of ranks 1..K.

    Over the list s of the positive and its negatives, less its minimum (of which one item has the gradient), and
    with c^(1) = 1:
    ``I_j^(k) = softmax_j(c_j^(k) s_j / tau)`` and ``c_j^(k+1) = c_j^(k) (1 - I_j^(k) - delta)``, c without gradient.
    An item that takes a rank thereby falls to the list's end. O(N K) per row.

    Args:
        pos: (B,) scores of the positives.
        neg: (B, N) scores of the negatives.
        k: the cut-off K.
        tau: temperature (1 / alpha in the paper).
        delta: push on all items after each rank.
        variant: "per_item", or "scalar": every item has the positive's c, so that no item is ever removed.

    Returns:
        (B,) losses in [0, 1].
    """
    scores = torch.cat([pos[:, None], neg], 1)
    logits = (scores - scores.min(1, keepdim=True).values) / tau
    factor = torch.ones_like(logits)
    taken = torch.zeros_like(pos)
    for _ in range(k):
        indicator = (factor * logits).softmax(1)
        taken = taken + indicator[:, 0]
        remaining = (1 - indicator - delta).detach()
        factor = factor * (remaining if variant == "per_item" else remaining[:, :1])
    return 1 - taken / k


class SmoothIatK(Loss):
    """Smooth Precision@K on cosines; the list is one positive and its sampled negatives.

    Args:
        tau: temperature, above 0; by default the most frequent optimum in Talos, as delta.
        delta: push on all items after each rank, in [0, 1).
        k: the cut-off K; time and memory grow with it.
        variant: "per_item", the paper's, or "scalar", which Talos' tables used.

    Source: Thonet et al., AAAI 2022, with a mean over rows; "scalar": Talos (WWW 2026).
    """

    name = "smoothiatk"
    title = "SmoothI@K"
    per_row = True

    def __init__(self, *, tau: float = 0.1, delta: float = 0.05, k: int = 20, variant: Variant = "per_item") -> None:
        super().__init__()
        require_positive(tau=tau)
        require(isinstance(delta, int | float) and 0 <= delta < 1, f"delta must lie in [0, 1), got {delta!r}")
        require(isinstance(k, int) and k >= 1, f"k must be a whole number of at least 1, got {k!r}")
        require_one_of("variant", variant, get_args(Variant))
        self.tau, self.delta, self.k, self.variant = tau, delta, k, variant

    def compute(self, batch: Batch) -> Tensor:
        """Mean of ``smoothiatk`` over the batch."""
        return smoothiatk(batch.pos, batch.neg, self.k, self.tau, self.delta, self.variant).mean()
