"""SogSL@K: SogCLR whose positives are weighted by whether they are in the user's top K."""

import torch
from torch import Tensor

from recloss.errors import require_positive
from recloss.losses.base import Batch, ThresholdLoss
from recloss.losses.sogclr import LogAverage, log_mean_exp


def sogslatk(pos: Tensor, neg: Tensor, log_average: Tensor, weight: Tensor, tau: float) -> Tensor:
    """``l_b = mean_j exp(n_bj / tau) / g_b - w_b p_b / tau``; its gradient counts, its value says little.

    Args:
        pos: (B,) scores of the positives.
        neg: (B, N) scores of the negatives, whose term has no weight.
        log_average: (B,) log of g, the moving average of ``mean_j exp(n_bj / tau)`` for each row's user.
        weight: (B,) weight of the positive, ``sigmoid((p_b - beta_b) / tau_weight)`` over the batch's mean of it.
        tau: temperature.

    Returns:
        (B,) losses.
    """
    return (log_mean_exp(neg, tau) - log_average.detach()).exp() - weight.detach() * pos / tau


class SogSLatK(ThresholdLoss):
    """SogSL@K on cosines. The weights are divided by their mean over the whole batch, so rows depend on each other.

    State: ``threshold`` (see `recloss.thresholds`); ``average`` (see `recloss.losses.sogclr.LogAverage`).

    Args:
        n_users: number of users.
        n_items: size of the catalogue.
        tau: temperature of the softmax, above 0.
        tau_weight: temperature of the weight, above 0.
        ema: weight of the new value in the moving average, in (0, 1].
        k: the cut-off K.
        threshold: "monte_carlo", "exact", "regression" or "smoothed".
        threshold_lr: learning rate of a "regression" or "smoothed" threshold.
        refresh: epochs between "monte_carlo" or "exact" estimates (T_beta).
        samples: negatives drawn per user for a "monte_carlo" estimate.

    Source: the SL@K (KDD 2025) code, not its paper.
    """

    name = "sogslatk"
    title = "SogSL@K"
    needs = frozenset({"user"})

    def __init__(
        self,
        n_users: int,
        n_items: int,
        *,
        tau: float = 0.2,
        tau_weight: float = 2.25,
        ema: float = 0.9,
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
        self.average = LogAverage(n_users, ema=ema)

    def compute(self, batch: Batch) -> Tensor:
        """Mean of ``sogslatk`` over the batch, plus the threshold's own loss where it has one."""
        assert batch.user is not None
        log_average = self.average(batch.user, log_mean_exp(batch.neg, self.tau), batch.gather)
        weight = torch.sigmoid((batch.pos - self.threshold(batch.user)) / self.tau_weight)
        weight = weight / batch.gather(weight).mean()
        losses = sogslatk(batch.pos, batch.neg, log_average, weight, self.tau)
        return self.with_fit(losses.mean(), batch)
