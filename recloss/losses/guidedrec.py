"""GuidedRec: BCE guided by a network that learns the DCG of a sampled list."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recloss.errors import require
from recloss.losses.base import Batch, Loss, Phase


def guidedrec(pos: Tensor, neg: Tensor, edcg: Callable[[Tensor], Tensor]) -> Tensor:
    """``l_b = -N log x_b0 - sum_j log(1 - x_bj) - edcg(x_b)`` with x = sigmoid(score): the recommender's own loss.

    Args:
        pos: (B,) scores of the positives, column 0 of the list.
        neg: (B, N) scores of the negatives.
        edcg: gives the (B,) estimated DCG of ``labelled_lists``, differentiable in them.

    Returns:
        (B,) losses, each the sum of the parts of the phases "bce" and "dcg".
    """
    return weighted_bce(pos, neg) - edcg(labelled_lists(pos, neg))


def weighted_bce(pos: Tensor, neg: Tensor) -> Tensor:
    """(B,) ``-N log x_b0 - sum_j log(1 - x_bj)``: the positive weighs as much as its N negatives together."""
    return -neg.shape[1] * F.logsigmoid(pos) - F.logsigmoid(-neg).sum(1)


def labelled_lists(pos: Tensor, neg: Tensor) -> Tensor:
    """(B, N + 1, 2) pairs of sigmoid(score) and label, the positive first."""
    scores = torch.cat([pos[:, None], neg], 1).sigmoid()
    labels = torch.zeros_like(scores)
    labels[:, 0] = 1
    return torch.stack([scores, labels], 2)


def true_dcg(pos: Tensor, neg: Tensor) -> Tensor:
    """(B,) ``1 / log2(1 + rank)`` of the positive in its list, rank = 1 + number of negatives with a larger score."""
    rank = 1 + (neg > pos[:, None]).sum(1)
    return 1 / torch.log2(1 + rank.to(pos.dtype))


class EDCG(nn.Module):
    """Network that estimates the DCG of lists of M (score, label) pairs: (B, M, 2) to (B,).

    The product of an MLP on the flattened list and an MLP on the means of the items' Gram matrix, then a head; tanh
    after every layer. The Gram matrix is not formed: its column means are products with the mean item. Memory is of
    the order B * M^2.
    """

    def __init__(self, length: int) -> None:
        super().__init__()
        width = 2 * length
        self.flat = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())
        self.item = nn.Sequential(nn.Linear(2, width), nn.Tanh())
        self.gram = nn.Sequential(nn.Linear(length, width), nn.Tanh())
        self.head = nn.Sequential(nn.Linear(width, 8), nn.Tanh(), nn.Linear(8, 1), nn.Tanh())

    def forward(self, lists: Tensor) -> Tensor:
        """(B,) estimates in (-1, 1), in the precision of the weights."""
        lists = lists.to(next(self.parameters()).dtype)
        items = self.item(lists)
        gram_means = (items @ items.mean(1)[:, :, None])[:, :, 0]
        return self.head(self.flat(lists.flatten(1)) * self.gram(gram_means))[:, 0]


class GuidedRec(Loss):
    """GuidedRec on cosines: three steps on every batch, in the phases "bce", "surrogate" and "dcg".

    "bce" and "dcg" move the model, "surrogate" fits the network to the lists' true DCG with the scores as constants.
    In phase "fit", the default of ``Batch``, the value is the sum of the three, each with the gradients it has alone:
    for other loops, all in one step.

    State: ``surrogate``, an ``EDCG`` network in a parameter group "surrogate", by default with the model's rates.

    Args:
        n_negatives: N, the negatives of every list; the method is defined with 9, and memory grows with B * N^2.

    Source: Rashed et al. (SIGIR 2021), as trained in SL@K (KDD 2025).
    """

    name = "guidedrec"
    title = "GuidedRec"
    per_row = True

    def __init__(self, n_negatives: int) -> None:
        super().__init__()
        self.n_negatives = n_negatives
        self.surrogate = EDCG(n_negatives + 1)

    def compute(self, batch: Batch) -> Tensor:
        """Mean over the batch of the phase's part.

        Raises:
            ValueError: for an unknown phase or another number of negatives.
        """
        pos, neg = batch.pos, batch.neg
        N, given = self.n_negatives, neg.shape[1]
        require(given == N, f"GuidedRec was built for N = {N} negatives, got {given}")
        if batch.phase == "bce":
            return weighted_bce(pos, neg).mean()
        if batch.phase == "surrogate":
            return self._surrogate_error(pos, neg)
        if batch.phase == "dcg":
            return -self._frozen_surrogate(labelled_lists(pos, neg)).mean()
        require(batch.phase == "fit", f"GuidedRec's phases are bce, surrogate, dcg (or fit), got {batch.phase!r}")
        return guidedrec(pos, neg, self._frozen_surrogate).mean() + self._surrogate_error(pos, neg)

    def _surrogate_error(self, pos: Tensor, neg: Tensor) -> Tensor:
        lists = labelled_lists(pos.detach(), neg.detach())
        return F.mse_loss(self.surrogate(lists), true_dcg(pos.detach(), neg.detach()))

    def _frozen_surrogate(self, lists: Tensor) -> Tensor:
        weights = {name: weight.detach() for name, weight in self.surrogate.named_parameters()}
        return torch.func.functional_call(self.surrogate, weights, lists)

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """The network: the model's ``lr`` and weight decay."""
        return [{"name": "surrogate", "params": list(self.surrogate.parameters())}]

    def passes(self, epoch: int) -> Sequence[Sequence[Phase]]:
        """One pass with three steps on each batch."""
        model, surrogate = frozenset({"model"}), frozenset({"surrogate"})
        return [[Phase("bce", model), Phase("surrogate", surrogate), Phase("dcg", model)]]
