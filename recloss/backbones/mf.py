"""Matrix factorisation."""

from torch import Tensor

from recloss.backbones.base import Backbone, embedding_table


class MF(Backbone):
    """Matrix factorisation: one free embedding per user and per item.

    Args:
        n_users: number of users.
        n_items: size of the catalogue.
        dim: embedding dimension d.
        init: "normal" (N(0, 1), for cosine losses), "xavier_normal" or "xavier_uniform".

    Source: Koren, Bell and Volinsky, IEEE Computer 2009.
    """

    name = "mf"
    title = "MF"
    user_parameters = ("user",)

    def __init__(self, n_users: int, n_items: int, *, dim: int = 64, init: str = "normal") -> None:
        super().__init__()
        self.user = embedding_table(n_users, dim, init)
        self.item = embedding_table(n_items, dim, init)

    def embed(self) -> tuple[Tensor, Tensor]:
        """The tables themselves."""
        return self.user, self.item
