"""ListMLE: the likelihood of the order of the grades under the Plackett-Luce model of the scores."""

import torch
from torch import Tensor

from recloss.errors import require
from recloss.ranking.losses.base import ListLoss, below_top, documents, mean_of


def listmle(scores: Tensor, grades: Tensor) -> Tensor:
    """``l_q = sum_i (log sum_{j >= i} exp(s_qj) - s_qi)``, the documents by descending grade, equal ones as they come.

    Args:
        scores: (Q, L) scores s.
        grades: (Q, L) grades; below 0 for padding.

    Returns:
        (Q,) losses, at least 0; 0 for a list of one document or none.
    """
    by_grade = grades.argsort(dim=1, descending=True, stable=True)
    present = documents(grades).gather(1, by_grade)
    x = below_top(scores.gather(1, by_grade), present)
    rest = x.flip(1).logcumsumexp(1).flip(1)
    return (rest - x).masked_fill(~present, 0).sum(1)


class ListMLE(ListLoss):
    """ListMLE: minus the log-likelihood of the order that the grades ask for.

    The formula needs an order of documents of equal grade too. In training it is drawn anew in each call, from torch's
    global generator; in evaluation, and without ``shuffle``, it is that of the columns.

    Args:
        shuffle: whether the order among equal grades is drawn; without, the loss teaches that of the data too.

    Source: Xia et al., ICML 2008.
    """

    name = "listmle"
    title = "ListMLE"

    def __init__(self, *, shuffle: bool = True) -> None:
        super().__init__()
        require(isinstance(shuffle, bool), f"shuffle must be true or false, got {shuffle!r}")
        self.shuffle = shuffle

    def compute(self, scores: Tensor, grades: Tensor) -> Tensor:
        """Mean of ``listmle`` over the lists with documents."""
        if self.shuffle and self.training:
            order = torch.randperm(scores.shape[1]).to(scores.device)
            scores, grades = scores[:, order], grades[:, order]
        return mean_of(listmle(scores, grades), documents(grades).any(1))
