"""A user's top-K threshold: the score that K of all items exceed. Each estimator is called with users, gives (B,)."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from recloss.errors import require
from recloss.interactions import Segments

if TYPE_CHECKING:
    from recloss.losses.base import Context

_USERS_PER_BLOCK = 256


class RegressionThreshold(nn.Module):
    """Threshold learned by importance-weighted quantile regression on training positives and sampled negatives.

    ``Q_b = 1/|I| * (sum_{i in P_u} rho(s_ui - beta_u) + w_u * sum_j rho(n_bj - beta_u))`` with
    ``rho(x) = (1 - K/|I|) max(x, 0) + K/|I| max(-x, 0)`` and ``w_u = (|I| - |P_u|) / N``: an unbiased estimate, under
    uniform negatives, of the quantile loss over all items, minimal where K items lie above beta.

    State: ``value`` (n_users,), a parameter from 0.

    Source: Talos (WWW 2026), eq. 3.3.
    """

    def __init__(self, n_users: int, n_items: int, *, k: int) -> None:
        super().__init__()
        require(1 <= k <= n_items, f"k must lie in 1..{n_items} (the catalogue), got {k}")
        self.n_items, self.k = n_items, k
        self.value = nn.Parameter(torch.zeros(n_users))

    def forward(self, users: Tensor) -> Tensor:
        """(B,) thresholds of ``users``, without gradient."""
        return self.value.detach()[users]

    def loss(self, users: Tensor, neg: Tensor, positives: Segments) -> Tensor:
        """Mean over the batch of Q, whose gradient reaches the thresholds alone.

        Args:
            users: (B,) users.
            neg: (B, N) scores of negatives drawn uniformly outside the positives.
            positives: scores of all training positives of each row's user.
        """
        beta = nn.functional.embedding(users, self.value[:, None])[:, 0]
        weight = (self.n_items - positives.lengths).to(neg.dtype) / neg.shape[1]
        above_pos = positives.with_values(self._pinball(positives.values.detach() - beta[positives.rows])).sum()
        above_neg = self._pinball(neg.detach() - beta[:, None]).sum(1)
        return ((above_pos + weight * above_neg) / self.n_items).mean()

    def _pinball(self, x: Tensor) -> Tensor:
        """rho(x), with subgradient 0 at 0."""
        share = self.k / self.n_items
        return (1 - share) * x.relu() + share * (-x).relu()


class MonteCarloThreshold(nn.Module):
    """K-th largest score among all of a user's training positives and fresh sampled negatives (duplicates count).

    Biased low on purpose when the user has fewer than K positives. With fewer than K candidates the lowest is taken.

    State: ``value`` (n_users,), a buffer from 0, overwritten at the start of every ``refresh``-th epoch.

    Source: SL@K (KDD 2025), appendix C.2 and algorithm C.1.
    """

    value: Tensor

    def __init__(self, n_users: int, n_items: int, *, k: int, refresh: int, samples: int) -> None:
        super().__init__()
        require(1 <= k <= n_items, f"k must lie in 1..{n_items} (the catalogue), got {k}")
        require(refresh >= 1, f"refresh must be at least 1, got {refresh}")
        require(samples >= 1, f"samples must be at least 1, got {samples}")
        self.k, self.refresh, self.samples = k, refresh, samples
        self.register_buffer("value", torch.zeros(n_users))

    def forward(self, users: Tensor) -> Tensor:
        """(B,) thresholds of ``users``, without gradient."""
        return self.value[users]

    def on_epoch_start(self, context: "Context") -> None:
        """Estimate all users' thresholds in epochs that are multiples of ``refresh``."""
        if context.epoch % self.refresh:
            return
        everyone = torch.arange(len(self.value), device=self.value.device)
        for users in everyone.split(_USERS_PER_BLOCK):
            scores = context.scores(users)
            positives = context.train.of(users)
            positives = positives.with_values(scores[positives.rows, positives.values])
            neg = scores.gather(1, context.negatives(users, self.samples, "threshold"))
            self.value[users] = kth_largest(positives, neg, self.k)


def kth_largest(positives: Segments, neg: Tensor, k: int) -> Tensor:
    """(B,) the min(k, candidates)-th largest of each row's positives (segments) and negatives (B, N) together."""
    best = neg.topk(min(k, neg.shape[1]), dim=1).values
    rows = torch.arange(len(neg), device=neg.device)[:, None].expand_as(best)
    values, row = torch.cat([positives.values, best.flatten()]), torch.cat([positives.rows, rows.flatten()])
    values, by_value = values.sort(descending=True)
    row, by_row = row[by_value].sort(stable=True)  # rows one after the other, each from its largest value down
    count = positives.lengths + best.shape[1]
    return values[by_row][count.cumsum(0) - count + count.clamp(max=k) - 1]
