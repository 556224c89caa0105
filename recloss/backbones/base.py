"""What a backbone is: a module that embeds users and items."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """Base of all backbones.

    The constructor takes what it needs of ``n_users``, ``n_items`` and ``train`` (the training interactions) by name,
    hyper-parameters keyword-only, and initialises from torch's global generator.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    user_parameters: ClassVar[tuple[str, ...]] = ()
    """Names of parameters with a row per user that this user's training rows alone move (see `recloss.parallel`)."""

    @abstractmethod
    def embed(self) -> tuple[Tensor, Tensor]:
        """(n_users, d) and (n_items, d) embeddings, not normalised."""

    def rows(self, users: Tensor, windows: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """What B training rows are scored with: (M, d) users' states, (B,) which is each row's, (n_items, d) items.

        Here a user has one state, wherever the row is in a sequence.

        Args:
            users: (B,) the rows' users.
            windows: (B, 2) where in the users' sequences the rows are, if the training data has any (see
                `recloss.sequences.Windows`).
        """
        user, item = self.embed()
        return user, users, item

    def auxiliary_loss(self, users: Tensor, items: Tensor) -> Tensor | None:
        """A loss of the backbone's own on the batch's users (B,) and positive items (B,); ``None`` for most."""
        return None


INITS = ("normal", "xavier_normal", "xavier_uniform")


def embedding_table(n: int, dim: int, init: str) -> nn.Parameter:
    """(n, dim) table: N(0, 1), or Glorot's normal or uniform law with fans n and dim.

    Raises:
        ValueError: for an unknown ``init`` or a dimension below 1.
    """
    if init not in INITS:
        raise ValueError(f"init must be one of {', '.join(INITS)}, got {init!r}")
    if dim < 1:
        raise ValueError(f"dim must be at least 1, got {dim}")
    return nn.Parameter(getattr(nn.init, f"{init}_")(torch.empty(n, dim)))
