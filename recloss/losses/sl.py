"""SL: sampled softmax loss."""

from typing import Literal, get_args

import torch
from torch import Tensor

from recloss.errors import require, require_one_of, require_positive
from recloss.losses.base import Batch, Loss
from recloss.rowwise import logsumexp_rows

Reduce = Literal["sum", "mean"]
Over = Literal["sampled", "all"]


def sl(
    pos: Tensor,
    neg: Tensor,
    tau: float,
    *,
    include_positive: bool = False,
    reduce: Reduce = "sum",
    log_q: Tensor | None = None,
) -> Tensor:
    """``l_b = log sum_j exp((n_bj - p_b) / tau)``: a sum over the N negatives, the positive not among them.

    Args:
        pos: (B,) scores of the positives.
        neg: (B, N) scores of the negatives; a score of -inf is left out.
        tau: temperature.
        include_positive: add the positive's own term, exp(0), to the denominator.
        reduce: "sum", or "mean" over the terms of the denominator.
        log_q: (B, N) log of each negative's probability, subtracted from its exponent.

    Returns:
        (B,) losses; negative values are normal unless the positive is included in a sum.
    """
    terms = neg if log_q is None else neg - tau * log_q
    if include_positive:
        terms = torch.cat([pos[:, None], terms], 1)
    losses = logsumexp_rows(terms, tau) - pos / tau
    return losses if reduce == "sum" else losses - (terms > -torch.inf).sum(1).to(losses.dtype).log()


class SL(Loss):
    """Softmax loss on cosines, over sampled negatives or over all items.

    Args:
        tau: temperature, above 0.
        include_positive: whether the positive is a term of the denominator (InfoNCE).
        reduce: "sum" over the terms of the denominator, or their "mean".
        over: "sampled" negatives, or "all" items but the positive (B x n_items scores; nothing is sampled).
        log_q: correct for a sampler that is not uniform, such as in-batch negatives; with over="sampled".

    Source: SL@K (KDD 2025), eq. 2.3 and algorithm C.1.
    """

    name = "sl"
    title = "SL"
    per_row = True

    def __init__(
        self,
        *,
        tau: float = 0.2,
        include_positive: bool = False,
        reduce: Reduce = "sum",
        over: Over = "sampled",
        log_q: bool = False,
    ) -> None:
        super().__init__()
        require_positive(tau=tau)
        require_one_of("reduce", reduce, get_args(Reduce))
        require_one_of("over", over, get_args(Over))
        for flag, value in (("include_positive", include_positive), ("log_q", log_q)):
            require(isinstance(value, bool), f"{flag} must be true or false, got {value!r}")
        require(not (log_q and over == "all"), "log_q must be False with over='all', which samples nothing, got True")
        self.tau, self.include_positive, self.reduce, self.over, self.log_q = tau, include_positive, reduce, over, log_q
        self.sampled = over == "sampled"
        self.needs = frozenset({"logits", "item"} if over == "all" else {"log_q"} if log_q else ())

    def compute(self, batch: Batch) -> Tensor:
        """Mean of ``sl`` over the batch."""
        neg = batch.neg
        if self.over == "all":
            assert batch.logits is not None
            assert batch.item is not None
            neg = batch.logits.scatter(1, batch.item[:, None], -torch.inf)
        log_q = batch.log_q if self.log_q else None
        return sl(
            batch.pos, neg, self.tau, include_positive=self.include_positive, reduce=self.reduce, log_q=log_q
        ).mean()
