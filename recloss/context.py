"""What a training loop offers the hooks of a loss."""

from collections.abc import Callable
from functools import cached_property

from torch import Tensor

from recloss.interactions import Interactions
from recloss.randomness import stream_key
from recloss.sampling import UniformNegatives


class Context:
    """The model at the start of an epoch, seen without gradient.

    Args:
        epoch: the epoch that starts, counted from 1.
        train: the training positives.
        embed: gives user (U, d) and item (I, d) embeddings whose dot products are the scores (``similarity.prepare``),
            with the backbone in evaluation mode; called at most once, when a hook asks for scores.
        seed: of the negatives.
    """

    def __init__(
        self, epoch: int, train: Interactions, embed: Callable[[], tuple[Tensor, Tensor]], seed: int = 0
    ) -> None:
        self.epoch, self.train = epoch, train
        self._embed, self._seed = embed, seed

    def scores(self, users: Tensor) -> Tensor:
        """(len(users), n_items) scores of all items."""
        u_UD, v_ID = self._embeddings
        return u_UD[users] @ v_ID.T

    def negatives(self, users: Tensor, n: int, purpose: str) -> Tensor:
        """(len(users), n) fresh uniform negatives; a function of (seed, epoch, purpose, user)."""
        return self._sampler.sample(users, users, n, stream_key(self._seed, self.epoch, purpose))

    @cached_property
    def _embeddings(self) -> tuple[Tensor, Tensor]:
        u_UD, v_ID = self._embed()
        return u_UD.detach(), v_ID.detach()

    @cached_property
    def _sampler(self) -> UniformNegatives:
        return UniformNegatives(self.train)
