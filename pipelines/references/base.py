"""What a reference model is: fitted once on the training interactions, it scores all items for any user."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from torch import Tensor

from recloss.evaluation import Scorer
from recloss.interactions import Interactions

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class Reference(ABC):
    """Base of all reference models; the constructor takes hyper-parameters, keyword-only."""

    name: ClassVar[str]
    title: ClassVar[str]

    @abstractmethod
    def fit(self, train: Interactions, *, seed: int, threads: int) -> dict[str, Tensor]:
        """The model as named tensors, all that `scorer` needs besides the training interactions."""

    @abstractmethod
    def scorer(self, train: Interactions, state: dict[str, Tensor]) -> Scorer:
        """What gives users (B,) their float32 scores (B, n_items), by what `fit` returned for ``train``."""


def matrix(train: Interactions) -> "csr_matrix":
    """(n_users, n_items) float32 matrix of ones."""
    from scipy.sparse import csr_matrix

    ones = np.ones(len(train), np.float32)
    return csr_matrix((ones, train.item.numpy(), train.offsets.numpy()), shape=(train.n_users, train.n_items))
