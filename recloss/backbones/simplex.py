"""SimpleX-style users: a free embedding mixed with the mean of the user's items."""

from torch import Tensor, nn

from recloss.backbones.base import Backbone, embedding_table
from recloss.errors import require
from recloss.graph import SparseMatrix, item_means
from recloss.interactions import Interactions


class SimpleX(Backbone):
    """SimpleX-style history pooling: user ``g u + (1 - g) W mean(v_i: i of the user's training items)``, item ``v``.

    Unlike the official code, the mean is over all training items of the user, not over at most 50 with zeros for the
    missing ones, and W has no bias: a user without history is ``g u``. The positive of a training row is part of its
    user's mean.

    Args:
        train: the training interactions.
        dim: embedding dimension d.
        gate: g in [0, 1], the share of the free embedding.
        init: as for MF; W starts as torch's linear layers do.

    Source: Mao et al., CIKM 2021.
    """

    name = "simplex"
    title = "SimpleX"
    user_parameters = ("user",)

    def __init__(self, train: Interactions, *, dim: int = 64, gate: float = 0.5, init: str = "normal") -> None:
        super().__init__()
        require(0 <= gate <= 1, f"gate must lie in 0..1, got {gate!r}")
        self.user = embedding_table(train.n_users, dim, init)
        self.item = embedding_table(train.n_items, dim, init)
        self.gate = gate
        self.history = nn.Linear(dim, dim, bias=False)
        self.means = SparseMatrix(item_means(train))

    def embed(self) -> tuple[Tensor, Tensor]:
        """Users mixed with their history, and the items' table."""
        return self.gate * self.user + (1 - self.gate) * self.history(self.means(self.item)), self.item
