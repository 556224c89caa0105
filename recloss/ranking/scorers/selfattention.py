"""Self-attention over the list: a document's score depends on the documents it is listed with."""

import torch.nn.functional as F
from torch import Tensor, nn

from recloss.errors import require
from recloss.ranking.lists import Lists
from recloss.ranking.scorers.base import ListScorer, Scale, Scaling


class SelfAttention(ListScorer):
    """Documents attend to all documents of their list; no positions, so their order does not matter.

    ``x = W f`` of scaled features f; per block ``x <- x + attention(LN(x))``, ``x <- x + W relu(V LN(x))``; the score
    is linear in ``LN(x)``.

    Args:
        train: the training lists.
        dim: width of x.
        feed_forward: width inside the network of a block.
        blocks: number of blocks.
        heads: attention heads, which divide ``dim``.
        dropout: of the attention, the networks' hidden layers and the outputs of both parts of a block, in [0, 1).
        scaling: of the features: "standard" or "log" (see `recloss.ranking.scorers.base.Scale`).

    Source: Pobrotyn et al., SIGIR eCom 2020; sizes of Pobrotyn and Bialobrzeski, SIGIR eCom 2021.
    """

    name = "selfattention"
    title = "Self-attention"

    def __init__(
        self,
        train: Lists,
        *,
        dim: int = 96,
        feed_forward: int = 384,
        blocks: int = 2,
        heads: int = 1,
        dropout: float = 0.1,
        scaling: Scaling = "standard",
    ) -> None:
        super().__init__()
        for name, value in (("dim", dim), ("feed_forward", feed_forward), ("blocks", blocks)):
            require(value >= 1, f"{name} must be at least 1, got {value!r}")
        require(heads >= 1 and dim % heads == 0, f"heads must divide dim ({dim}), got {heads!r}")
        require(0 <= dropout < 1, f"dropout must lie in [0, 1), got {dropout!r}")
        self.scale = Scale(train, scaling)
        self.embed = nn.Linear(train.n_features, dim)
        self.blocks = nn.ModuleList(_Block(dim, feed_forward, heads, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, 1)

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """Scores of documents within their lists; nothing attends to padding."""
        seen = (present | ~present.any(1, keepdim=True))[:, None, None, :]  # an empty list has to see something
        x = self.embed(self.scale(features))
        for block in self.blocks:
            x = block(x, seen)
        return self.output(self.norm(x))[:, :, 0]


class _Block(nn.Module):
    def __init__(self, dim: int, feed_forward: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.share = heads, dropout
        self.before_attention, self.before_network = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.mixed = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.network = nn.Sequential(
            nn.Linear(dim, feed_forward), nn.ReLU(), nn.Dropout(dropout), nn.Linear(feed_forward, dim)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """(Q, L, d) to (Q, L, d); ``seen`` (Q, 1, 1, L) says which documents are attended to."""
        parts = self.qkv(self.before_attention(x)).unflatten(2, (3 * self.heads, -1)).transpose(1, 2)
        q, k, v = parts.chunk(3, dim=1)
        share = self.share if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=share)
        x = x + self.dropout(self.mixed(attended.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.network(self.before_network(x)))
