"""A user's top-K threshold: the score that K of all items exceed. One interface, four estimators.

A loss owns an estimator, calls it with users to get (B,) thresholds without gradient, adds ``fit(batch)`` to its value,
and hands its hook and parameter groups on. `recloss.losses.base.ThresholdLoss` does the latter for every loss.
"""

import inspect
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from recloss.context import Context
from recloss.errors import require, require_one_of, require_positive
from recloss.interactions import Segments
from recloss.rowwise import pinball_rows

if TYPE_CHECKING:
    from recloss.losses.base import Batch

_USERS_PER_BLOCK = 256


class Threshold(nn.Module, ABC):
    """Base of the estimators. All state lives in ``state_dict``; ``value`` (n_users,) starts from 0."""

    kind: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset({"user"})
    """Fields of ``Batch`` it reads beyond ``neg``."""
    user_parameters: ClassVar[tuple[str, ...]] = ()
    """As a loss's."""
    per_row: ClassVar[bool] = True
    """As a loss's."""
    value: Tensor

    def __init__(self, n_users: int, n_items: int, *, k: int) -> None:
        super().__init__()
        require(isinstance(k, int) and 1 <= k <= n_items, f"k must lie in 1..{n_items} (the catalogue), got {k!r}")
        self.n_items, self.k = n_items, k

    def forward(self, users: Tensor) -> Tensor:
        """(B,) thresholds of ``users``, without gradient."""
        return self.value.detach()[users]

    def fit(self, batch: "Batch") -> Tensor | None:
        """Learn from a training batch after its thresholds were read: a loss to add, or a change of state."""
        return None

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Optimiser groups of its parameters."""
        return []

    def on_epoch_start(self, context: Context) -> None:
        """Called before each epoch."""


class RegressionThreshold(Threshold):
    """Threshold learned by importance-weighted quantile regression on training positives and sampled negatives.

    ``Q_b = 1/|I| * (sum_{i in P_u} rho(s_ui - beta_u) + w_u * sum_j rho(n_bj - beta_u))`` with
    ``rho(x) = (1 - K/|I|) max(x, 0) + K/|I| max(-x, 0)`` and ``w_u = (|I| - |P_u|) / N``: an unbiased estimate, under
    uniform negatives, of the quantile loss over all items, minimal where K items lie above beta. With another
    sampler of negatives the estimate is biased.

    State: ``value``, a parameter with a learning rate of its own and no weight decay, moved by the model's optimiser.
    A user's row is trained by the rank that owns the user.

    Args:
        lr: learning rate.

    Source: Talos (WWW 2026), eq. 3.3.
    """

    kind = "regression"
    needs = frozenset({"user", "positives"})
    user_parameters = ("value",)

    def __init__(self, n_users: int, n_items: int, *, k: int, lr: float = 1e-3) -> None:
        super().__init__(n_users, n_items, k=k)
        self.lr = lr
        self.value = nn.Parameter(torch.zeros(n_users))

    def fit(self, batch: "Batch") -> Tensor:
        """Mean of Q over the batch."""
        assert batch.user is not None
        assert batch.positives is not None
        return self.loss(batch.user, batch.neg, batch.positives)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The thresholds: ``lr``, no weight decay."""
        return [{"name": "threshold", "params": [self.value], "lr": self.lr, "weight_decay": 0.0}]

    def loss(self, users: Tensor, neg: Tensor, positives: Segments) -> Tensor:
        """Mean over the batch of Q, whose gradient reaches the thresholds alone.

        Args:
            users: (B,) users.
            neg: (B, N) scores of negatives drawn uniformly outside the positives; others bias the thresholds.
            positives: scores of all training positives of each row's user.
        """
        beta = nn.functional.embedding(users, self.value[:, None])[:, 0]
        weight = (self.n_items - positives.lengths).to(neg.dtype) / neg.shape[1]
        share = self.k / self.n_items
        d = positives.values.detach() - beta[positives.rows]
        of_pos = positives.with_values((1 - share) * d.relu() + share * (-d).relu()).sum()
        return ((of_pos + weight * pinball_rows(neg, beta, share)) / self.n_items).mean()


class _Refreshed(Threshold):
    """Base of the estimators that look at all users in every ``refresh``-th epoch."""

    def __init__(self, n_users: int, n_items: int, *, k: int, refresh: int = 5) -> None:
        super().__init__(n_users, n_items, k=k)
        self.refresh = refresh
        self.register_buffer("value", torch.zeros(n_users))

    @torch.no_grad()
    def on_epoch_start(self, context: Context) -> None:
        """Estimate all users' thresholds in epochs that are multiples of ``refresh``."""
        if context.epoch % self.refresh:
            return
        for users in torch.arange(len(self.value), device=self.value.device).split(_USERS_PER_BLOCK):
            self.value[users] = self.estimate(context, users).to(self.value.dtype)

    @abstractmethod
    def estimate(self, context: Context, users: Tensor) -> Tensor:
        """(B,) thresholds of a block of users."""


class MonteCarloThreshold(_Refreshed):
    """K-th largest score among all of a user's training positives and fresh sampled negatives (duplicates count).

    Biased low on purpose when the user has fewer than K positives. With fewer than K candidates the lowest is taken.

    State: ``value``, a buffer, overwritten at the start of every ``refresh``-th epoch, alike on all ranks.

    Args:
        refresh: epochs between estimates (T_beta).
        samples: negatives drawn per user for an estimate.

    Source: SL@K (KDD 2025), appendix C.2 and algorithm C.1.
    """

    kind = "monte_carlo"

    def __init__(self, n_users: int, n_items: int, *, k: int, refresh: int = 5, samples: int = 1000) -> None:
        super().__init__(n_users, n_items, k=k, refresh=refresh)
        self.samples = samples

    def estimate(self, context: Context, users: Tensor) -> Tensor:
        """The K-th largest of positives and samples."""
        scores = context.scores(users)
        positives = context.train.of(users)
        positives = positives.with_values(scores[positives.rows, positives.values])
        neg = scores.gather(1, context.negatives(users, self.samples, "threshold"))
        return kth_largest(positives, neg, self.k)


class ExactThreshold(_Refreshed):
    """K-th largest score over all items, positives included; blocks of users bound the memory.

    State: ``value``, a buffer, overwritten at the start of every ``refresh``-th epoch, alike on all ranks.

    Args:
        refresh: epochs between computations.

    Source: Talos (WWW 2026), eq. 3.1.
    """

    kind = "exact"

    def estimate(self, context: Context, users: Tensor) -> Tensor:
        """The K-th largest of all items."""
        return context.scores(users).topk(self.k, dim=1, sorted=False).values.amin(1)


class SmoothedThreshold(Threshold):
    """Threshold by gradient steps on a smoothed top-K objective over the batch's own list.

    ``beta <- beta - lr * (K / |I| + 1e-4 beta - mean_s sigmoid((s - beta) / 0.01))``, the mean over the positive and
    its negatives; the steps of a user's rows in one batch add up. The list holds the positive, so its share among the
    items is overstated: the estimate lies above the others'.

    State: ``value``, a buffer, moved by each training batch from gathered rows, alike on all ranks.

    Args:
        lr: step size (eta_lambda).

    Source: K-SONG (Qiu et al., ICML 2022), in LibAUC's "practical" form.
    """

    kind = "smoothed"
    per_row = False
    _TAU, _DECAY = 0.01, 1e-4

    def __init__(self, n_users: int, n_items: int, *, k: int, lr: float = 0.01) -> None:
        super().__init__(n_users, n_items, k=k)
        self.lr = lr
        self.register_buffer("value", torch.zeros(n_users))

    @torch.no_grad()
    def fit(self, batch: "Batch") -> None:
        """One step for each row's user."""
        if not self.training:
            return
        assert batch.user is not None
        beta = self(batch.user)
        scores = torch.cat([batch.pos[:, None], batch.neg], 1)
        share = torch.sigmoid((scores - beta[:, None]) / self._TAU).mean(1)
        gradient = self.k / self.n_items + self._DECAY * beta - share
        self.value.index_add_(0, batch.gather(batch.user), batch.gather(gradient).to(self.value.dtype), alpha=-self.lr)


THRESHOLDS: dict[str, type[Threshold]] = {
    cls.kind: cls for cls in (RegressionThreshold, MonteCarloThreshold, ExactThreshold, SmoothedThreshold)
}


def build_threshold(
    kind: str, n_users: int, n_items: int, *, k: int, lr: float, refresh: int, samples: int
) -> Threshold:
    """The estimator of a name; each reads of ``lr``, ``refresh`` and ``samples`` what it has a use for.

    Raises:
        ValueError: for an unknown name or a value out of range.
    """
    require_one_of("threshold", kind, THRESHOLDS)
    require_positive(threshold_lr=lr)
    require(refresh >= 1, f"refresh must be at least 1, got {refresh!r}")
    require(samples >= 1, f"samples must be at least 1, got {samples!r}")
    options = {"lr": lr, "refresh": refresh, "samples": samples}
    wanted = inspect.signature(THRESHOLDS[kind]).parameters
    return THRESHOLDS[kind](n_users, n_items, k=k, **{key: options[key] for key in options if key in wanted})


def exact_thresholds(u_UD: Tensor, v_ID: Tensor, k: int) -> Tensor:
    """(U,) K-th largest of each user's scores of all items, positives included, without gradient.

    Args:
        u_UD: (U, D) prepared embeddings of users; blocks of them bound the memory.
        v_ID: (I, D) prepared embeddings of all items.
        k: the cut-off K.
    """
    with torch.no_grad():
        blocks = [(block @ v_ID.T).topk(k, sorted=False).values.amin(1) for block in u_UD.split(_USERS_PER_BLOCK)]
    return torch.cat(blocks)


def kth_largest(positives: Segments, neg: Tensor, k: int) -> Tensor:
    """(B,) the min(k, candidates)-th largest of each row's positives (segments) and negatives (B, N) together."""
    best = neg.topk(min(k, neg.shape[1]), dim=1).values
    rows = torch.arange(len(neg), device=neg.device)[:, None].expand_as(best)
    values, row = torch.cat([positives.values, best.flatten()]), torch.cat([positives.rows, rows.flatten()])
    values, by_value = values.sort(descending=True)
    row, by_row = row[by_value].sort(stable=True)  # rows one after the other, each from its largest value down
    count = positives.lengths + best.shape[1]
    return values[by_row][count.cumsum(0) - count + count.clamp(max=k) - 1]
