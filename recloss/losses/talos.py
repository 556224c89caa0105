"""Talos: optimises Precision@K and Recall@K through a learned top-K threshold per user."""

import torch.nn.functional as F
from torch import Tensor

from recloss.errors import require_positive
from recloss.losses.base import Batch, ThresholdLoss


def talos(pos: Tensor, neg: Tensor, threshold: Tensor, tau: float) -> Tensor:
    """``l_b = log sum_j sigmoid(n_bj - beta_b)^(1/tau) - log sigmoid(p_b - beta_b)^(1/tau)``.

    Args:
        pos: (B,) scores of the positives.
        neg: (B, N) scores of the negatives.
        threshold: (B,) top-K threshold beta of each row's user, without gradient.
        tau: temperature, outside the sigmoid.

    Returns:
        (B,) losses; negative values are normal.
    """
    return (F.logsigmoid(neg - threshold[:, None]) / tau).logsumexp(1) - F.logsigmoid(pos - threshold) / tau


class Talos(ThresholdLoss):
    """Talos on cosines; by default the threshold is learned by quantile regression in the same step.

    The threshold used is the one before the step. State: ``threshold`` (see `recloss.thresholds`).

    Args:
        n_users: number of users.
        n_items: size of the catalogue.
        tau: temperature, above 0.
        k: the cut-off K.
        threshold: "regression", "monte_carlo", "exact" or "smoothed".
        threshold_lr: learning rate of a "regression" or "smoothed" threshold.
        refresh: epochs between "monte_carlo" or "exact" estimates.
        samples: negatives drawn per user for a "monte_carlo" estimate.

    Source: Talos (WWW 2026), eqs. 3.3 and 3.7; spec sections 2.11 and 3.
    """

    name = "talos"
    title = "Talos"
    needs = frozenset({"user"})

    def __init__(
        self,
        n_users: int,
        n_items: int,
        *,
        tau: float = 0.1,
        k: int = 20,
        threshold: str = "regression",
        threshold_lr: float = 1e-3,
        refresh: int = 5,
        samples: int = 1000,
    ) -> None:
        super().__init__(
            n_users, n_items, k=k, threshold=threshold, threshold_lr=threshold_lr, refresh=refresh, samples=samples
        )
        require_positive(tau=tau)
        self.tau = tau

    def compute(self, batch: Batch) -> Tensor:
        """Mean of ``talos`` over the batch, plus the threshold's own loss where it has one."""
        assert batch.user is not None
        return self.with_fit(talos(batch.pos, batch.neg, self.threshold(batch.user), self.tau).mean(), batch)
