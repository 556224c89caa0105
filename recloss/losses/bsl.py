"""BSL: bilateral softmax loss."""

import math
from typing import Literal, get_args

from torch import Tensor

from recloss.errors import require_one_of, require_positive
from recloss.losses.base import Batch, Loss
from recloss.losses.sl import sl
from recloss.rowwise import logsumexp_rows

Variant = Literal["bilateral", "per_sample"]


def bsl(pos: Tensor, neg: Tensor, user: Tensor, tau_pos: float, tau_neg: float) -> Tensor:
    """``l_b = tau_neg log mean_j exp(n_bj / tau_neg) - tau_pos log mean_{c: u_c = u_b} exp(p_c / tau_pos)``.

    Args:
        pos: (B,) scores of the positives.
        neg: (B, N) scores of the negatives.
        user: (B,) users; the positives of one user are pooled.
        tau_pos: temperature of the positives (the paper's tau_1).
        tau_neg: temperature of the negatives (tau_2).

    Returns:
        (B,) losses.
    """
    pooled_neg = logsumexp_rows(neg, tau_neg) - math.log(neg.shape[1])
    return tau_neg * pooled_neg - tau_pos * _log_mean_exp_by_user(pos / tau_pos, user)


def bsl_per_sample(pos: Tensor, neg: Tensor, tau_pos: float, tau_neg: float) -> Tensor:
    """(B,) ``l_b = tau_neg / tau_pos * log sum_j exp((n_bj - p_b) / tau_neg)``: SL at ``tau_neg``, scaled."""
    return tau_neg / tau_pos * sl(pos, neg, tau_neg)


def _log_mean_exp_by_user(x: Tensor, user: Tensor) -> Tensor:
    """(B,) ``log mean exp(x)`` over the rows of each row's user."""
    _, place, count = user.unique(return_inverse=True, return_counts=True)
    top = x.new_zeros(len(count)).scatter_reduce(0, place, x.detach(), "amax", include_self=False)
    total = x.new_zeros(len(count)).index_add(0, place, (x - top[place]).exp())
    return (top + (total / count).log())[place]


class BSL(Loss):
    """Bilateral softmax loss on cosines: both sides are softly pooled, each at a temperature of its own.

    The value of "bilateral" depends on which positives of a user share a batch.

    Args:
        tau_pos: temperature of the positives, above 0.
        tau_neg: temperature of the negatives, above 0; SL's best on the same data.
        variant: "bilateral", or "per_sample" (the form behind the published tables, SL times a constant).

    Source: BSL, as SL@K (KDD 2025) and Talos (WWW 2026) describe it.
    """

    name = "bsl"
    title = "BSL"
    needs = frozenset({"user"})

    def __init__(self, *, tau_pos: float = 0.2, tau_neg: float = 0.2, variant: Variant = "bilateral") -> None:
        super().__init__()
        require_positive(tau_pos=tau_pos, tau_neg=tau_neg)
        require_one_of("variant", variant, get_args(Variant))
        self.tau_pos, self.tau_neg, self.variant = tau_pos, tau_neg, variant
        self.per_row = variant == "per_sample"
        if self.per_row:
            self.needs = frozenset()

    def compute(self, batch: Batch) -> Tensor:
        """Mean of ``bsl`` or ``bsl_per_sample`` over the batch."""
        if self.variant == "per_sample":
            return bsl_per_sample(batch.pos, batch.neg, self.tau_pos, self.tau_neg).mean()
        assert batch.user is not None
        return bsl(batch.pos, batch.neg, batch.user, self.tau_pos, self.tau_neg).mean()
