"""ListNet: cross-entropy between the softmax of the grades and that of the scores."""

from torch import Tensor

from recloss.ranking.losses.base import ListLoss, below_top, documents, mean_of


def listnet(scores: Tensor, grades: Tensor) -> Tensor:
    """``l_q = - sum_j softmax(y_q)_j log softmax(s_q)_j``, both over the documents of query q.

    Args:
        scores: (Q, L) scores s.
        grades: (Q, L) grades y; below 0 for padding.

    Returns:
        (Q,) losses, at least the entropy of softmax(y); 0 for a list without documents.
    """
    present = documents(grades)
    target = below_top(grades.to(scores.dtype), present).softmax(1).masked_fill(~present, 0)
    return -(target * below_top(scores, present).log_softmax(1)).sum(1)


class ListNet(ListLoss):
    """ListNet with top-one probabilities; the target is the softmax of the grades as they are.

    Every list counts: one whose documents all have one grade asks for equal scores.

    Source: Cao et al., ICML 2007.
    """

    name = "listnet"
    title = "ListNet"

    def compute(self, scores: Tensor, grades: Tensor) -> Tensor:
        """Mean of ``listnet`` over the lists with documents."""
        return mean_of(listnet(scores, grades), documents(grades).any(1))
