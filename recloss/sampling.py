"""Negative samplers."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from recloss.interactions import Interactions
from recloss.randomness import integers, row_states

_FILTER_WIDTH = 4096
_REDRAWS = 16


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
    """Base of the samplers of negatives; each states the distribution it draws from."""

    name: ClassVar[str]

    @abstractmethod
    def sample(self, users: Tensor, positions: Tensor, n: int, key: int, batch: WholeBatch | None = None) -> Tensor:
        """(B, n) negatives of ``users`` (B,), a function of the stream ``key``, the row's position and the batch.

        Args:
            users: (B,) users of the rows.
            positions: (B,) positions of the rows in the epoch.
            n: negatives per row.
            key: of the random stream (`recloss.randomness.stream_key`).
            batch: the batch the rows belong to; samplers that do not look at it take ``None``.
        """

    @abstractmethod
    def log_q(self, users: Tensor, items: Tensor) -> Tensor:
        """(B, n) log of the probability that a draw for the row's user is this item, relative to 1 / n_items."""


class UniformNegatives(Sampler):
    """Draws i.i.d. with replacement, uniform over the items outside the user's training positives.

    Each draw is a function of (key, position, column), so any split of a batch over workers draws the same items.
    Positives are rejected and redrawn; a per-row bit filter answers most membership questions, a binary search the
    rest. What is still a positive after 16 redraws is drawn by rank among the user's negatives.

    Args:
        train: the training positives.

    Raises:
        ValueError: if a user has interacted with the whole catalogue.
    """

    name = "uniform"

    def __init__(self, train: Interactions) -> None:
        full = torch.nonzero(train.degrees == train.n_items).flatten()
        if len(full):
            raise ValueError(f"user {int(full[0])} has all {train.n_items} items as training positives: no negatives")
        self.train = train

    def sample(self, users: Tensor, positions: Tensor, n: int, key: int, batch: WholeBatch | None = None) -> Tensor:
        """See ``Sampler.sample``."""
        n_items = self.train.n_items
        states = row_states(key, positions)
        draws = integers(states[:, None], torch.arange(n, device=users.device), n_items)
        flat = draws.view(-1)

        width = min(_FILTER_WIDTH, 1 << (n_items - 1).bit_length())
        seen = self._filter(users, width)

        def confirmed(suspects: Tensor) -> Tensor:
            """Those of ``suspects`` (places in ``flat`` that the filter caught) that are positives."""
            if width >= n_items:
                return suspects
            return suspects[self.train.contains(users[suspects // n], flat[suspects])]

        rejected = confirmed(seen.gather(1, draws & (width - 1)).flatten().nonzero().flatten())
        for attempt in range(1, _REDRAWS + 1):
            if not len(rejected):
                return draws
            row = rejected // n
            flat[rejected] = integers(states[row], rejected - row * n + (attempt << 32), n_items)
            rejected = confirmed(rejected[seen[row, flat[rejected] & (width - 1)]])
        row = rejected // n
        free = n_items - self.train.degrees[users[row]]
        rank = integers(states[row], rejected - row * n + ((_REDRAWS + 1) << 32), free)
        flat[rejected] = self._by_rank(users[row], rank)
        return draws

    def log_q(self, users: Tensor, items: Tensor) -> Tensor:
        """``log(|I| / (|I| - |P_u|))``."""
        n_items = self.train.n_items
        free = (n_items - self.train.degrees[users]).to(torch.get_default_dtype())
        return (n_items / free).log()[:, None].expand(items.shape)

    def _filter(self, users: Tensor, width: int) -> Tensor:
        """(B, width) bits: whether a positive of the row's user has these low bits; exact if width >= n_items."""
        positives = self.train.of(users)
        seen = torch.zeros(len(users), width, dtype=torch.bool, device=users.device)
        seen[positives.rows, positives.values & (width - 1)] = True
        return seen

    def _by_rank(self, users: Tensor, rank: Tensor) -> Tensor:
        """The ``rank``-th (from 0) item outside the positives of each user."""
        train = self.train
        within = torch.arange(len(train), device=rank.device) - train.offsets[train.user]
        gaps = train.user * train.n_items + train.item - within  # ascending within and across users
        place = torch.searchsorted(gaps, users * train.n_items + rank, right=True)
        return rank + place - train.offsets[users]
