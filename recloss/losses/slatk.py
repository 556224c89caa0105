"""SL@K: softmax loss weighted by whether the positive is in the user's top K."""

import torch
from torch import Tensor

from recloss.errors import require
from recloss.losses.base import Batch, Context, Loss
from recloss.losses.sl import sl
from recloss.thresholds import MonteCarloThreshold


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


class SLatK(Loss):
    """SL@K on cosines, for NDCG@K; the threshold is estimated by Monte Carlo with the positives retained.

    State: ``threshold.value`` (n_users,), 0 until the first refresh, refreshed before every ``refresh``-th epoch. It is
    computed alike on all ranks.

    Args:
        n_users: number of users.
        n_items: size of the catalogue.
        tau: temperature of the softmax, above 0; SL's best on the same data.
        tau_weight: temperature of the weight, above 0; too small a value (about 1) reverses the pull on positives.
        k: the cut-off K.
        refresh: epochs between threshold estimates (T_beta).
        samples: negatives drawn per user for an estimate.

    Source: SL@K (KDD 2025), eq. 3.5, algorithm C.1; spec section 3.
    """

    name = "slatk"
    title = "SL@K"
    needs = frozenset({"user"})

    def __init__(
        self,
        n_users: int,
        n_items: int,
        *,
        tau: float = 0.2,
        tau_weight: float = 2.25,
        k: int = 20,
        refresh: int = 5,
        samples: int = 1000,
    ) -> None:
        super().__init__()
        require(tau > 0, f"tau must be above 0, got {tau}")
        require(tau_weight > 0, f"tau_weight must be above 0, got {tau_weight}")
        self.tau, self.tau_weight = tau, tau_weight
        self.threshold = MonteCarloThreshold(n_users, n_items, k=k, refresh=refresh, samples=samples)

    def compute(self, batch: Batch) -> Tensor:
        """Mean of ``slatk`` over the batch."""
        assert batch.user is not None
        return slatk(batch.pos, batch.neg, self.threshold(batch.user), self.tau, self.tau_weight).mean()

    def on_epoch_start(self, context: Context) -> None:
        """Refresh the thresholds when they are due."""
        self.threshold.on_epoch_start(context)
