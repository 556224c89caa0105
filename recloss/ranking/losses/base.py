"""What a loss over lists is: a module called with padded scores and grades, which gives a number."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from recloss.errors import require


class ListLoss(nn.Module, ABC):
    """Base of the losses over lists; hyper-parameters are keyword-only constructor arguments.

    A query without a relevant document, or with one document alone, may say nothing to a loss: then it counts neither
    in its sum nor in its mean. Padding has no effect and no gradient, whatever its scores are.
    """

    name: ClassVar[str]
    """Name in code, YAML files and tables' data."""
    title: ClassVar[str]
    """Name as the papers print it."""

    def forward(self, scores: Tensor, grades: Tensor) -> Tensor:
        """Scalar loss of Q lists, computed in float32 or float64 also under autocast; 0 if no list says anything.

        Args:
            scores: (Q, L) scores of the documents.
            grades: (Q, L) their grades, from 0 up; a grade below 0 is padding.

        Raises:
            ValueError: if the shapes differ or are not (Q, L).
        """
        shape = tuple(scores.shape)
        require(scores.dim() == 2, f"{self.title}: scores must have shape (Q, L), got {shape}")
        require(grades.shape == shape, f"{self.title}: grades must have shape {shape}, got {tuple(grades.shape)}")
        with torch.autocast(scores.device.type, enabled=False):
            return self.compute(scores.to(torch.promote_types(scores.dtype, torch.float32)), grades)

    @abstractmethod
    def compute(self, scores: Tensor, grades: Tensor) -> Tensor:
        """Scalar loss of checked lists; for most losses the mean of its pure function over the queries that count."""


def documents(grades: Tensor) -> Tensor:
    """(Q, L) bool, whether there is a document."""
    return grades >= 0


def below_top(scores: Tensor, present: Tensor) -> Tensor:
    """(Q, L) scores less the largest of each list, which is detached; far below all others where no document is."""
    top = scores.detach().masked_fill(~present, -torch.inf).amax(1, keepdim=True)
    return (scores - top.nan_to_num(neginf=0.0)).masked_fill(~present, _FAR_BELOW)


_FAR_BELOW = -1e30
"""Finite in float32 over any temperature above 1e-8, so that lists of nothing but padding give no NaN."""


def gains(grades: Tensor, dtype: torch.dtype) -> Tensor:
    """(Q, L) exponential gains ``2^y - 1`` of documents; 0 where there is none."""
    return torch.exp2(grades.clamp(min=0).to(dtype)) - 1


def ideal_dcg(gain: Tensor, k: int | None) -> Tensor:
    """(Q,) sum over the k largest of (Q, L) gains of ``gain / log2(1 + rank)``; over all without ``k``."""
    best = gain.sort(1, descending=True).values[:, :k]
    return best @ discounts(best.shape[1], best)


def discounts(n: int, like: Tensor) -> Tensor:
    """(n,) ``1 / log2(1 + rank)`` of ranks 1 to n, of the type and device of ``like``."""
    return 1 / torch.log2(torch.arange(2, n + 2, dtype=like.dtype, device=like.device))


def mean_of(losses: Tensor, counted: Tensor) -> Tensor:
    """Mean of (Q,) losses over the queries that are ``counted`` (Q,); 0 without any. The others' losses are 0."""
    return losses.sum() / counted.sum().clamp(min=1)
