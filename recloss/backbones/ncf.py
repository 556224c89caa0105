"""NCF-style towers: free embeddings refined by a multilayer perceptron on each side."""

from itertools import pairwise

from torch import Tensor, nn

from recloss.backbones.base import Backbone, embedding_table
from recloss.errors import require


class NCF(Backbone):
    """NCF-style two-tower MLP: ``e + MLP(e)`` of free embeddings e, one MLP for users and one for items.

    Not the original NCF (NeuMF), whose network scores each pair of user and item: here a score stays the inner product
    or cosine of two towers, so that every loss and full-ranking evaluation apply.

    Args:
        n_users: number of users.
        n_items: size of the catalogue.
        dim: embedding dimension d.
        hidden: sizes between d and d; ReLU follows every layer, the last one too.
        init: as for MF; the MLPs start as torch's linear layers do.

    Source: after He et al., WWW 2017.
    """

    name = "ncf"
    title = "NCF"
    user_parameters = ("user",)

    def __init__(
        self,
        n_users: int,
        n_items: int,
        *,
        dim: int = 64,
        hidden: tuple[int, ...] = (32, 16, 8),
        init: str = "normal",
    ) -> None:
        super().__init__()
        require(all(size >= 1 for size in hidden), f"hidden must be sizes of at least 1, got {list(hidden)}")
        self.user = embedding_table(n_users, dim, init)
        self.item = embedding_table(n_items, dim, init)
        sizes = (dim, *hidden, dim)
        self.user_mlp, self.item_mlp = _mlp(sizes), _mlp(sizes)

    def embed(self) -> tuple[Tensor, Tensor]:
        """Both tables through their towers."""
        return self.user + self.user_mlp(self.user), self.item + self.item_mlp(self.item)


def _mlp(sizes: tuple[int, ...]) -> nn.Sequential:
    return nn.Sequential(*(layer for n_in, n_out in pairwise(sizes) for layer in (nn.Linear(n_in, n_out), nn.ReLU())))
