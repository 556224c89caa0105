"""SASRec: a user is what causal self-attention makes of the history."""

import torch
from torch import Tensor, nn

from recloss.attention import AttentionBlock
from recloss.backbones.sequential import Output, SequenceBackbone
from recloss.errors import require
from recloss.sequences import Sequences


class SASRec(SequenceBackbone):
    """SASRec: blocks of causal self-attention and a two-layer network, each on layer-normalised inputs.

    ``x = sqrt(d) item + position``; per block ``x <- x + attention(LN(x))``, ``x <- x + W relu(V LN(x))``; the state is
    ``LN(x)`` at the last item. Positions count from the end of the window. Nothing attends to padding.

    Args:
        histories: the training sequences.
        dim: embedding dimension d.
        length: items of a history that are read, the last ones, and the number of positions.
        blocks: number of blocks.
        heads: attention heads, which divide d.
        dropout: of the inputs, the attention and the outputs of both parts of a block, in [0, 1).
        init: of items and positions: "normal", "xavier_normal" or "xavier_uniform".
        output: what scores: "tied" (the history's embeddings), "table" (of its own), or "linear" (that and a bias).

    Source: Kang and McAuley, ICDM 2018.
    """

    name = "sasrec"
    title = "SASRec"

    def __init__(
        self,
        histories: Sequences,
        *,
        dim: int = 50,
        length: int = 50,
        blocks: int = 2,
        heads: int = 1,
        dropout: float = 0.5,
        init: str = "xavier_normal",
        output: Output = "tied",
    ) -> None:
        super().__init__(histories, dim=dim, length=length, init=init, output=output)
        require(blocks >= 1, f"blocks must be at least 1, got {blocks!r}")
        require(heads >= 1 and dim % heads == 0, f"heads must divide dim ({dim}), got {heads!r}")
        require(0 <= dropout < 1, f"dropout must lie in [0, 1), got {dropout!r}")
        self.position = nn.Parameter(getattr(nn.init, f"{init}_")(torch.empty(length, dim)))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(AttentionBlock(dim, dim, heads, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(dim)

    def states(self, history: Tensor) -> Tensor:
        """The blocks' output at each item."""
        L = history.shape[1]
        x = self.dropout(self.history_embeddings(history) * self.dim**0.5 + self.position[self.length - L :])
        causal = torch.ones(L, L, dtype=torch.bool, device=history.device).tril()
        itself = torch.eye(L, dtype=torch.bool, device=history.device)  # padding has no other, and needs one
        seen = (causal & (history != self.n_items)[:, None]) | itself
        for block in self.blocks:
            x = block(x, seen[:, None])
        return self.norm(x)
