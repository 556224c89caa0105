"""Talos: optimises Precision@K and Recall@K through a learned top-K threshold per user."""

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from recloss.errors import require_one_of, require_positive
from recloss.losses.base import Batch, ThresholdLoss
from recloss.rowwise import logsigmoid_rows

Variant = Literal["full", "no_quantile", "inner_temperature", "no_denominator"]


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
    return logsigmoid_rows(neg, threshold, tau) - F.logsigmoid(pos - threshold) / tau


def inner_temperature(pos: Tensor, neg: Tensor, threshold: Tensor, tau: float) -> Tensor:
    """``l_b = log sum_j sigmoid((n_bj - beta_b) / tau) - log sigmoid((p_b - beta_b) / tau)``, of ``talos``'s shapes."""
    return talos(pos / tau, neg / tau, threshold / tau, 1.0)


def no_denominator(pos: Tensor, threshold: Tensor, tau: float, k: int) -> Tensor:
    """``l_b = log K - log sigmoid(p_b - beta_b)^(1/tau)``: the sum over items replaced by the K it stands for."""
    return math.log(k) - F.logsigmoid(pos - threshold) / tau


class Talos(ThresholdLoss):
    """Talos on cosines; by default the threshold is learned by quantile regression in the same step.

    The threshold used is the one before the step.

    State: ``threshold`` (see `recloss.thresholds`).

    Args:
        n_users: number of users.
        n_items: size of the catalogue.
        tau: temperature, above 0.
        k: the cut-off K.
        variant: "full", or the paper's ablation "no_quantile" (w/o-quantile: threshold 0, nothing is learned),
            "inner_temperature" (w/o-outside) or "no_denominator" (w/o-denominator: negatives move the threshold
            alone, so all scores inflate).
        threshold: "regression", "monte_carlo", "exact" or "smoothed".
        threshold_lr: learning rate of a "regression" or "smoothed" threshold.
        refresh: epochs between "monte_carlo" or "exact" estimates.
        samples: negatives drawn per user for a "monte_carlo" estimate.

    Source: Talos (WWW 2026), eqs. 3.3 and 3.7, table 4.1.
    """

    name = "talos"
    title = "Talos"
    per_row = True
    needs = frozenset({"user"})

    def __init__(
        self,
        n_users: int,
        n_items: int,
        *,
        tau: float = 0.1,
        k: int = 20,
        variant: Variant = "full",
        threshold: str = "regression",
        threshold_lr: float = 1e-3,
        refresh: int = 5,
        samples: int = 1000,
    ) -> None:
        super().__init__(
            n_users, n_items, k=k, threshold=threshold, threshold_lr=threshold_lr, refresh=refresh, samples=samples
        )
        require_positive(tau=tau)
        require_one_of("variant", variant, get_args(Variant))
        self.tau, self.variant = tau, variant
        if variant == "no_quantile":
            self.needs, self.per_row = frozenset(), True

    def compute(self, batch: Batch) -> Tensor:
        """Mean of the variant's function over the batch, plus the threshold's own loss where it has one."""
        pos, neg, tau = batch.pos, batch.neg, self.tau
        if self.variant == "no_quantile":
            return talos(pos, neg, torch.zeros_like(pos), tau).mean()
        assert batch.user is not None
        threshold = self.threshold(batch.user)
        if self.variant == "inner_temperature":
            losses = inner_temperature(pos, neg, threshold, tau)
        elif self.variant == "no_denominator":
            losses = no_denominator(pos, threshold, tau, self.threshold.k)
        else:
            losses = talos(pos, neg, threshold, tau)
        return self.with_fit(losses.mean(), batch)
