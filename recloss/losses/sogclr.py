"""SogCLR: softmax loss normalised by a moving average per user."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from recloss.errors import require, require_positive
from recloss.losses.base import Batch, Loss, last_of_each
from recloss.rowwise import logsumexp_rows


def log_mean_exp(neg: Tensor, tau: float) -> Tensor:
    """(B,) ``log mean_j exp(n_bj / tau)`` of negatives (B, N)."""
    return logsumexp_rows(neg, tau) - math.log(neg.shape[1])


def sogclr(pos: Tensor, neg: Tensor, log_average: Tensor, tau: float) -> Tensor:
    """``l_b = mean_j exp(n_bj / tau) / g_b - p_b / tau``; its gradient counts, its value says little.

    Args:
        pos: (B,) scores of the positives.
        neg: (B, N) scores of the negatives.
        log_average: (B,) log of g, the moving average of ``mean_j exp(n_bj / tau)`` for each row's user.
        tau: temperature.

    Returns:
        (B,) losses.
    """
    return (log_mean_exp(neg, tau) - log_average.detach()).exp() - pos / tau


class LogAverage(nn.Module):
    """Moving average per user of a positive quantity, kept as its log so that no temperature overflows.

    State: ``value`` (n_users,), a buffer, -inf for a user not seen yet. In training each row is averaged with its
    user's value before the batch; the last row of a user in the (gathered) batch is stored.

    Args:
        n_users: number of users.
        ema: weight of the new value; a user's first estimate is taken as it is.
    """

    value: Tensor

    def __init__(self, n_users: int, *, ema: float) -> None:
        super().__init__()
        require(isinstance(ema, int | float) and 0 < ema <= 1, f"ema must lie in (0, 1], got {ema!r}")
        self.ema = ema
        self.register_buffer("value", torch.full((n_users,), -torch.inf))

    @torch.no_grad()
    def forward(self, user: Tensor, log_estimate: Tensor, gather: Callable[[Tensor], Tensor]) -> Tensor:
        """(B,) log of the averages after (B,) new estimates; in training they are stored."""
        old, log_keep = self.value[user], math.log1p(-self.ema) if self.ema < 1 else -torch.inf
        averaged = torch.logaddexp(old + log_keep, log_estimate + math.log(self.ema))
        averaged = torch.where(old.isneginf(), log_estimate, averaged)
        if self.training:
            users, last = last_of_each(gather(user))
            self.value[users] = gather(averaged)[last].to(self.value.dtype)
        return averaged


class SogCLR(Loss):
    """SogCLR on cosines: the softmax loss's gradient with a denominator remembered per user.

    State: ``average`` (see `LogAverage`), updated by each training batch before it is used.

    Args:
        n_users: number of users.
        tau: temperature, above 0.
        ema: weight of the new value in the moving average, in (0, 1]; at 1 the gradient is SL's.

    Source: SogCLR (ICML 2022), as the SL@K (KDD 2025) code applies it to recommendation.
    """

    name = "sogclr"
    title = "SogCLR"
    needs = frozenset({"user"})

    def __init__(self, n_users: int, *, tau: float = 0.2, ema: float = 0.9) -> None:
        super().__init__()
        require_positive(tau=tau)
        self.tau = tau
        self.average = LogAverage(n_users, ema=ema)

    def compute(self, batch: Batch) -> Tensor:
        """Mean of ``sogclr`` over the batch."""
        assert batch.user is not None
        log_average = self.average(batch.user, log_mean_exp(batch.neg, self.tau), batch.gather)
        return sogclr(batch.pos, batch.neg, log_average, self.tau).mean()
