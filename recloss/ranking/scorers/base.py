"""What a scorer of documents is, and the scaling of features that all scorers start with."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from recloss.errors import require_one_of
from recloss.ranking.lists import Lists

Scaling = Literal["standard", "log"]
_ROWS = 2**16


class ListScorer(nn.Module, ABC):
    """Base of all scorers: the backbones of learning to rank.

    The constructor takes the training lists, from which it learns the scale of the features alone, hyper-parameters
    keyword-only, and initialises from torch's global generator.
    """

    name: ClassVar[str]
    title: ClassVar[str]

    @abstractmethod
    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """(Q, L) scores of lists, higher for what is to rank higher.

        Args:
            features: (Q, L, F) features as the data has them.
            present: (Q, L) bool, whether there is a document; what stands elsewhere has no effect on documents.
        """


class Scale(nn.Module):
    """Features with mean 0 and standard deviation 1 over the training documents; one that is constant there gives 0.

    Args:
        train: the training lists.
        scaling: "standard", or "log": ``sign(x) log(1 + |x|)`` comes first, for counts and other features that span
            orders of magnitude (Qin et al., ICLR 2021).
    """

    mean: Tensor
    factor: Tensor

    def __init__(self, train: Lists, scaling: str) -> None:
        super().__init__()
        require_one_of("scaling", scaling, get_args(Scaling))
        self.scaling = scaling
        mean, variance = (torch.zeros(train.n_features, dtype=torch.float64) for _ in range(2))
        varies = torch.zeros(train.n_features, dtype=torch.bool)
        if len(train):
            blocks = train.features.split(_ROWS)
            mean = sum((self._transformed(x).sum(0, dtype=torch.float64) for x in blocks), mean) / len(train)
            variance = sum(((self._transformed(x) - mean).square().sum(0) for x in blocks), variance) / len(train)
            low, high = train.features.aminmax(dim=0)
            varies = low < high
        self.register_buffer("mean", mean.float())
        self.register_buffer("factor", torch.where(varies, variance.rsqrt(), 0).float())

    def forward(self, features: Tensor) -> Tensor:
        """(..., F) to (..., F)."""
        return (self._transformed(features) - self.mean) * self.factor

    def _transformed(self, x: Tensor) -> Tensor:
        return x.sign() * x.abs().log1p() if self.scaling == "log" else x
