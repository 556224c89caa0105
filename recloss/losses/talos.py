"""Talos: optimises Precision@K and Recall@K through a learned top-K threshold per user."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from recloss.errors import require
from recloss.losses.base import Batch, Loss
from recloss.thresholds import RegressionThreshold


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


class Talos(Loss):
    """Talos on cosines; the threshold is learned by importance-weighted quantile regression in the same step.

    State: ``threshold.value`` (n_users,), a parameter with a learning rate of its own and no weight decay. The
    threshold used is the one before the step. Its gradients are summed over ranks like the model's.

    Args:
        n_users: number of users.
        n_items: size of the catalogue.
        tau: temperature, above 0.
        k: the cut-off K.
        threshold_lr: learning rate of the thresholds.

    Source: Talos (WWW 2026), eqs. 3.3 and 3.7; spec sections 2.11 and 3.
    """

    name = "talos"
    title = "Talos"
    needs = frozenset({"user", "positives"})

    def __init__(
        self, n_users: int, n_items: int, *, tau: float = 0.1, k: int = 20, threshold_lr: float = 1e-3
    ) -> None:
        super().__init__()
        require(tau > 0, f"tau must be above 0, got {tau}")
        require(threshold_lr > 0, f"threshold_lr must be above 0, got {threshold_lr}")
        self.tau, self.threshold_lr = tau, threshold_lr
        self.threshold = RegressionThreshold(n_users, n_items, k=k)

    def compute(self, batch: Batch) -> Tensor:
        """Mean of ``talos`` over the batch, plus the thresholds' own regression loss."""
        assert batch.user is not None
        assert batch.positives is not None
        fit = self.threshold.loss(batch.user, batch.neg, batch.positives)
        return talos(batch.pos, batch.neg, self.threshold(batch.user), self.tau).mean() + fit

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """The thresholds: ``threshold_lr``, no weight decay."""
        return [
            {
                "name": "threshold",
                "params": [self.threshold.value],
                "lr": self.threshold_lr,
                "weight_decay": 0.0,
            }
        ]
