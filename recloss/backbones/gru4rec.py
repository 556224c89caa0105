"""GRU4Rec: a user is what a recurrent network has read."""

from torch import Tensor, nn

from recloss.backbones.sequential import Output, SequenceBackbone
from recloss.errors import require
from recloss.sequences import Sequences


class GRU4Rec(SequenceBackbone):
    """GRU4Rec: gated recurrent layers over the history's embeddings, then a linear layer.

    The recurrent layers have no bias, so padding, which is zeros before the history, leaves their state at zero.

    Args:
        histories: the training sequences.
        dim: embedding and state dimension d.
        length: items of a history that are read, the last ones.
        layers: recurrent layers.
        dropout: of the embeddings, in [0, 1).
        init: of the embeddings: "normal", "xavier_normal" or "xavier_uniform".
        output: what scores: "linear" (a table of its own, and a bias), "table" (without), or "tied" (the history's).

    Source: Hidasi et al., ICLR 2016, as in DeSoRec's code.
    """

    name = "gru4rec"
    title = "GRU4Rec"

    def __init__(
        self,
        histories: Sequences,
        *,
        dim: int = 128,
        length: int = 20,
        layers: int = 4,
        dropout: float = 0.1,
        init: str = "xavier_normal",
        output: Output = "linear",
    ) -> None:
        super().__init__(histories, dim=dim, length=length, init=init, output=output)
        require(layers >= 1, f"layers must be at least 1, got {layers!r}")
        require(0 <= dropout < 1, f"dropout must lie in [0, 1), got {dropout!r}")
        self.dropout = nn.Dropout(dropout)
        self.gru = nn.GRU(dim, dim, layers, bias=False, batch_first=True)
        for name in ("weight_ih_l0", "weight_hh_l0"):
            nn.init.xavier_uniform_(self.gru.get_parameter(name))
        self.dense = nn.Linear(dim, dim)

    def states(self, history: Tensor) -> Tensor:
        """The last layer's output after each item, through the linear layer."""
        return self.dense(self._outputs(history))

    def last(self, history: Tensor) -> Tensor:
        """That of the last item alone goes through the linear layer."""
        return self.dense(self._outputs(history)[:, -1])

    def _outputs(self, history: Tensor) -> Tensor:
        return self.gru(self.dropout(self.history_embeddings(history)))[0]
