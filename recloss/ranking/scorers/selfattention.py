"""Self-attention over the list: a document's score depends on the documents it is listed with."""

from torch import Tensor, nn

from recloss.attention import AttentionBlock
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
        self.blocks = nn.ModuleList(AttentionBlock(dim, feed_forward, heads, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, 1)

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """Scores of documents within their lists; nothing attends to padding."""
        seen = (present | ~present.any(1, keepdim=True))[:, None, None, :]  # an empty list has to see something
        x = self.embed(self.scale(features))
        for block in self.blocks:
            x = block(x, seen)
        return self.output(self.norm(x))[:, :, 0]
