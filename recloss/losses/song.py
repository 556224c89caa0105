"""SONG: optimises NDCG through a moving average of each positive's soft rank."""

import math

import torch
from torch import Tensor

from recloss.errors import require, require_positive, require_share
from recloss.losses.base import Batch, Loss, last_of_each


def song(
    pos: Tensor, neg: Tensor, average: Tensor, ema: float, n_items: int, margin: float = 1.0
) -> tuple[Tensor, Tensor]:
    """``l_b = c(a_b) g_b`` with ``g_b = (margin^2 + sum_j relu(margin + n_bj - p_b)^2) / (N + 1)``.

    ``a_b`` is the moving average of ``g_b`` and ``c(a) = n / (ln 2 * log2(1 + n a)^2 * (1 + n a))``, where log2 is at
    least 1 and n = ``n_items``. At a = g, the gradient of l is that of ``-1 / log2(1 + n g)``; c has none of its own.

    Args:
        pos: (B,) scores of the positives.
        neg: (B, N) scores of the negatives.
        average: (B,) moving average of each row's pair so far.
        ema: weight of the new value in the average.
        n_items: size of the catalogue.
        margin: of the squared hinge; a positive counts itself with margin^2.

    Returns:
        (B,) losses and (B,) new averages.
    """
    hinges = (margin + neg - pos[:, None]).relu().square().sum(1)
    share = (margin**2 + hinges) / (neg.shape[1] + 1)
    average = (1 - ema) * average.detach() + ema * share.detach()
    rank = 1 + n_items * average
    slope = n_items / (math.log(2) * rank.log2().clamp(min=1).square() * rank)
    return slope * share, average


def ndcg_scale(n_positives: Tensor, n_items: int, dtype: torch.dtype) -> Tensor:
    """(B,) ``|P_u| / IDCG_u`` of users with (B,) ``n_positives``; ``IDCG_u = sum_(r = 1..|P_u|) 1 / log2(1 + r)``."""
    ranks = torch.arange(1, n_items + 1, device=n_positives.device, dtype=dtype)
    ideal = (1 / torch.log2(1 + ranks)).cumsum(0)
    return n_positives / ideal[n_positives - 1]


def remember(memory: Tensor, batch: Batch, rows: Tensor) -> None:
    """Write (B,) ``rows`` to their pairs' places in ``memory`` (n_pairs,), alike on all ranks; a pair's last counts."""
    assert batch.pair is not None
    pairs, last = last_of_each(batch.gather(batch.pair))
    memory[pairs] = batch.gather(rows)[last].to(memory.dtype)


class SONG(Loss):
    """SONG on cosines, for NDCG.

    State: ``average`` (n_pairs,), a buffer from 0, moved by each training batch before it is used. Of a pair's rows in
    one batch, each moves the average on its own and the last is kept.

    Args:
        n_items: size of the catalogue.
        n_pairs: number of training pairs.
        ema: weight of the new value in the average, in (0, 1].
        margin: of the squared hinge, above 0.
        idcg: whether a row counts |P_u| / IDCG_u times (NDCG, as in SONG's own paper) or once (SL@K's appendix A.4).

    Source: Qiu et al. (ICML 2022), in LibAUC's form.
    """

    name = "song"
    title = "SONG"
    needs = frozenset({"pair"})
    average: Tensor

    def __init__(self, n_items: int, n_pairs: int, *, ema: float = 0.9, margin: float = 1.0, idcg: bool = True) -> None:
        super().__init__()
        require_share(ema=ema)
        require_positive(margin=margin)
        require(isinstance(idcg, bool), f"idcg must be true or false, got {idcg!r}")
        self.n_items, self.ema, self.margin, self.idcg = n_items, ema, margin, idcg
        self.register_buffer("average", torch.zeros(n_pairs))
        if idcg:
            self.needs = self.needs | {"n_positives"}

    def compute(self, batch: Batch) -> Tensor:
        """Mean over the batch of ``song``, each row with its user's scale."""
        losses, average = song(batch.pos, batch.neg, self.average[batch.pair], self.ema, self.n_items, self.margin)
        if self.training:
            remember(self.average, batch, average)
        if self.idcg:
            assert batch.n_positives is not None
            losses = losses * ndcg_scale(batch.n_positives, self.n_items, losses.dtype)
        return losses.mean()
