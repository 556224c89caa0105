"""SONG@K: SONG weighted by whether the positive is in the user's top K."""

import torch
from torch import Tensor

from recloss.errors import require, require_positive, require_share
from recloss.losses.base import Batch, ThresholdLoss
from recloss.losses.song import ndcg_scale, remember, song


def songatk(
    pos: Tensor,
    neg: Tensor,
    threshold: Tensor,
    average: Tensor,
    ema: float,
    n_items: int,
    margin: float = 1.0,
    sharpness: float = 2.0,
) -> tuple[Tensor, Tensor]:
    """``l_b = sigmoid(sharpness (p_b - beta_b)) c(a_b) g_b`` with c, a and g of ``song``; the weight has no gradient.

    Args:
        pos: (B,) scores of the positives.
        neg: (B, N) scores of the negatives.
        threshold: (B,) top-K threshold beta of each row's user.
        average: (B,) moving average of each row's pair so far.
        ema: weight of the new value in the average.
        n_items: size of the catalogue.
        margin: of the squared hinge.
        sharpness: of the weight (K-SONG's alpha).

    Returns:
        (B,) losses and (B,) new averages.
    """
    weight = torch.sigmoid(sharpness * (pos - threshold)).detach()
    losses, average = song(pos, neg, average, ema, n_items, margin)
    return weight * losses, average


class SONGatK(ThresholdLoss):
    """SONG@K (K-SONG, its "practical" form) on cosines, for NDCG@K; by default the threshold is the smoothed one.

    The threshold used is the one before the batch.

    State: ``average`` (n_pairs,), as SONG's; ``threshold`` (see `recloss.thresholds`).

    Args:
        n_users: number of users.
        n_items: size of the catalogue.
        n_pairs: number of training pairs.
        ema: weight of the new value in the average, in (0, 1].
        margin: of the squared hinge, above 0.
        idcg: whether a row counts |P_u| / IDCG_u times (as in the method's own paper) or once (SL@K's appendix A.4).
        sharpness: of the top-K weight (alpha), above 0.
        k: the cut-off K.
        threshold: "smoothed", "regression", "monte_carlo" or "exact".
        threshold_lr: learning rate of a "smoothed" (eta_lambda) or "regression" threshold.
        refresh: epochs between "monte_carlo" or "exact" estimates.
        samples: negatives drawn per user for a "monte_carlo" estimate.

    Source: Qiu et al. (ICML 2022), in LibAUC's form.
    """

    name = "songatk"
    title = "SONG@K"
    needs = frozenset({"user", "pair"})
    average: Tensor

    def __init__(
        self,
        n_users: int,
        n_items: int,
        n_pairs: int,
        *,
        ema: float = 0.9,
        margin: float = 1.0,
        idcg: bool = True,
        sharpness: float = 2.0,
        k: int = 20,
        threshold: str = "smoothed",
        threshold_lr: float = 0.01,
        refresh: int = 5,
        samples: int = 1000,
    ) -> None:
        super().__init__(
            n_users, n_items, k=k, threshold=threshold, threshold_lr=threshold_lr, refresh=refresh, samples=samples
        )
        require_share(ema=ema)
        require_positive(margin=margin, sharpness=sharpness)
        require(isinstance(idcg, bool), f"idcg must be true or false, got {idcg!r}")
        self.n_items, self.ema, self.margin, self.idcg, self.sharpness = n_items, ema, margin, idcg, sharpness
        self.register_buffer("average", torch.zeros(n_pairs))
        if idcg:
            self.needs = self.needs | {"n_positives"}

    def compute(self, batch: Batch) -> Tensor:
        """Mean over the batch of ``songatk``, each row with its user's scale, plus the threshold's own loss if any."""
        assert batch.user is not None
        losses, average = songatk(
            batch.pos,
            batch.neg,
            self.threshold(batch.user),
            self.average[batch.pair],
            self.ema,
            self.n_items,
            self.margin,
            self.sharpness,
        )
        if self.training:
            remember(self.average, batch, average)
        if self.idcg:
            assert batch.n_positives is not None
            losses = losses * ndcg_scale(batch.n_positives, self.n_items, losses.dtype)
        return self.with_fit(losses.mean(), batch)
