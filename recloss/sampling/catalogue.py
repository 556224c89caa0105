"""Samplers that take any item of the catalogue, the user's positives among them."""

import torch
from torch import Tensor

from recloss.randomness import integers, row_states
from recloss.sampling.base import Sampler, WholeBatch


class UniformItems(Sampler):
    """Draws i.i.d. with replacement, uniform over all items; the user's positives can be drawn.

    Args:
        train: the training positives, of which only the size of the catalogue is read.
    """

    name = "uniform_all"

    def sample(self, users: Tensor, positions: Tensor, n: int, key: int, batch: WholeBatch | None = None) -> Tensor:
        """See ``Sampler.sample``."""
        column = torch.arange(n, device=users.device)
        return integers(row_states(key, positions)[:, None], column, self.train.n_items)

    def log_q(self, users: Tensor, items: Tensor) -> Tensor:
        """0."""
        return torch.zeros(items.shape, device=items.device)


class SharedItems(UniformItems):
    """Draws ``n`` items once per batch, i.i.d. uniform over all items, and gives them to all of its rows.

    Each row's negatives are distributed as those of ``uniform_all``, but rows are not independent: the same expected
    loss with another variance of its gradient. The user's positives, the row's own among them, can be drawn.

    Args:
        train: the training positives, of which only the size of the catalogue is read.
    """

    name = "shared"

    def sample(self, users: Tensor, positions: Tensor, n: int, key: int, batch: WholeBatch | None = None) -> Tensor:
        """See ``Sampler.sample``; a view of n numbers, a function of the key and where the batch starts."""
        start = torch.tensor([self.whole(batch).start], device=users.device)
        return super().sample(users[:1], start, n, key).expand(len(users), n)
