"""The contract of a sampler of negatives."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from recloss.interactions import Interactions


@dataclass(frozen=True)
class WholeBatch:
    """The batch, over all ranks, that the rows which want negatives belong to.

    Attributes:
        items: (B',) its positives.
        start: position of its first row in the epoch.
    """

    items: Tensor
    start: int


class Sampler(ABC):
    """Base of the samplers of negatives; each states the distribution it draws from.

    A draw is a function of the stream's key, the row's position and user, the column, and for some samplers the whole
    batch, so any split of a batch over ranks draws the same. Hyper-parameters are keyword-only constructor arguments.

    Args:
        train: the training positives.
    """

    name: ClassVar[str]
    needs_pool: ClassVar[bool] = False
    """Whether the constructor takes a pool of false negatives after ``train``."""

    def __init__(self, train: Interactions) -> None:
        self.train = train

    @abstractmethod
    def sample(self, users: Tensor, positions: Tensor, n: int, key: int, batch: WholeBatch | None = None) -> Tensor:
        """(B, n) int64 negatives of ``users`` (B,); may be a view of fewer numbers, so it must not be written to.

        Args:
            users: (B,) users of the rows.
            positions: (B,) positions of the rows in the epoch.
            n: negatives per row.
            key: of the random stream (`recloss.randomness.stream_key`).
            batch: the batch the rows belong to; samplers that do not look at it take ``None``.
        """

    @abstractmethod
    def log_q(self, users: Tensor, items: Tensor) -> Tensor:
        """(B, n) log of the probability that a draw for the row's user is this item, relative to 1 / n_items.

        ``items`` (B, n) are such as ``sample`` draws for the users; for an item it never draws the value means nothing.
        """

    def whole(self, batch: WholeBatch | None) -> WholeBatch:
        """``batch``, for a sampler that cannot do without.

        Raises:
            ValueError: if it was not given.
        """
        if batch is None:
            raise ValueError(f"batch must be given to the sampler {self.name!r}, got None")
        return batch
