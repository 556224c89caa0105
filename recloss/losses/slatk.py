"""SL@K: softmax loss weighted by whether the positive is in the user's top K."""

import torch
from torch import Tensor

from recloss.errors import require_positive
from recloss.losses.base import Batch, ThresholdLoss
from recloss.losses.sl import sl


def slatk(pos: Tensor, neg: Tensor, threshold: Tensor, tau: float, tau_weight: float) -> Tensor:
    """``l_b = sigmoid((p_b - beta_b) / tau_weight) * log sum_j exp((n_bj - p_b) / tau)``; the weight has a gradient.

    Args:
        pos: (B,) scores of the positives.
        neg: (B, N) scores of the negatives.
        threshold: (B,) top-K threshold beta of each row's user.
        tau: temperature of the softmax (the paper's tau_d).
        tau_weight: temperature of the weight (tau_w).

    Returns:
        (B,) losses.
    """
    return torch.sigmoid((pos - threshold) / tau_weight) * sl(pos, neg, tau)


class SLatK(ThresholdLoss):
    """SL@K on cosines, for NDCG@K; by default the threshold is estimated by Monte Carlo with the positives retained.

    State: ``threshold`` (see `recloss.thresholds`).

    Args:
        n_users: number of users.
        n_items: size of the catalogue.
        tau: temperature of the softmax, above 0; SL's best on the same data.
        tau_weight: temperature of the weight, above 0; too small a value (about 1) reverses the pull on positives.
        k: the cut-off K.
        threshold: "monte_carlo", "exact", "regression" or "smoothed".
        threshold_lr: learning rate of a "regression" or "smoothed" threshold.
        refresh: epochs between "monte_carlo" or "exact" estimates (T_beta).
        samples: negatives drawn per user for a "monte_carlo" estimate.

    Source: SL@K (KDD 2025), eq. 3.5, algorithm C.1.
    """

    name = "slatk"
    title = "SL@K"
    per_row = True
    needs = frozenset({"user"})

    def __init__(
        self,
        n_users: int,
        n_items: int,
        *,
        tau: float = 0.2,
        tau_weight: float = 2.25,
        k: int = 20,
        threshold: str = "monte_carlo",
        threshold_lr: float = 1e-3,
        refresh: int = 5,
        samples: int = 1000,
    ) -> None:
        super().__init__(
            n_users, n_items, k=k, threshold=threshold, threshold_lr=threshold_lr, refresh=refresh, samples=samples
        )
        require_positive(tau=tau, tau_weight=tau_weight)
        self.tau, self.tau_weight = tau, tau_weight

    def compute(self, batch: Batch) -> Tensor:
        """Mean of ``slatk`` over the batch, plus the threshold's own loss where it has one."""
        assert batch.user is not None
        losses = slatk(batch.pos, batch.neg, self.threshold(batch.user), self.tau, self.tau_weight)
        return self.with_fit(losses.mean(), batch)
