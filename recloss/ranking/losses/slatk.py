"""SL@K over lists: SL weighted by whether the document is in the list's top K."""

import torch
from torch import Tensor

from recloss.errors import require, require_positive
from recloss.ranking.losses.base import ListLoss, documents, mean_of
from recloss.ranking.losses.sl import weighted_softmax


def slatk(scores: Tensor, grades: Tensor, k: int, tau: float, tau_weight: float, detach_weight: bool = False) -> Tensor:
    """``l_q = sum_i G_i sigmoid((s_i - beta) / tau_weight) log sum_j exp((s_j - s_i) / tau) / sum_i G_i``.

    ``G = 2^y - 1``, j runs over the whole list, beta is its K-th largest score (the smallest of a shorter list),
    detached. The gradient of the weight pulls relevant documents down, and wins where ``tau_weight`` is small for the
    spread of the scores: without bounds on these, the loss tends to 0 as a relevant document's score tends to -inf.

    Args:
        scores: (Q, L) scores s.
        grades: (Q, L) grades y; below 0 for padding.
        k: the cut-off K, at least 1.
        tau: temperature of the softmax.
        tau_weight: temperature of the weight.
        detach_weight: whether the weight has no gradient.

    Returns:
        (Q,) losses, at least 0; 0 for a list without a relevant document.
    """
    above = (scores - threshold(scores, grades, k)[:, None]).masked_fill(~documents(grades), 0)
    weight = torch.sigmoid(above / tau_weight)
    return weighted_softmax(scores, grades, tau, weight.detach() if detach_weight else weight)


@torch.no_grad()
def threshold(scores: Tensor, grades: Tensor, k: int) -> Tensor:
    """(Q,) the k-th largest score of each list, the smallest of a shorter one; 0 of a list without documents."""
    present = documents(grades)
    ordered = scores.masked_fill(~present, -torch.inf).sort(1, descending=True).values
    last = present.sum(1).clamp(1, k) - 1
    return ordered.gather(1, last[:, None])[:, 0].nan_to_num(neginf=0.0)


class SLatK(ListLoss):
    """SL@K over lists with exact thresholds; the paper does not say how SL@K takes grades, this is our reading of it.

    Args:
        tau: temperature of the softmax, above 0.
        tau_weight: temperature of the weight, above 0.
        k: the cut-off K.
        detach_weight: whether the weight has no gradient; the paper's has one, on cosines.

    Source: SL@K (KDD 2025), table 5 and eq. 3.5; the weights by grade are ours.
    """

    name = "slatk"
    title = "SL@K"

    def __init__(self, *, tau: float = 1.0, tau_weight: float = 10.0, k: int = 5, detach_weight: bool = False) -> None:
        super().__init__()
        require_positive(tau=tau, tau_weight=tau_weight)
        require(k >= 1, f"k must be at least 1, got {k!r}")
        require(isinstance(detach_weight, bool), f"detach_weight must be true or false, got {detach_weight!r}")
        self.tau, self.tau_weight, self.k, self.detach_weight = tau, tau_weight, k, detach_weight

    def compute(self, scores: Tensor, grades: Tensor) -> Tensor:
        """Mean of ``slatk`` over the lists with a relevant document."""
        losses = slatk(scores, grades, self.k, self.tau, self.tau_weight, self.detach_weight)
        return mean_of(losses, (grades > 0).any(1))
