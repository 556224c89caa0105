"""YoutubeDNN: a user is the mean of the history's items, through a multilayer perceptron."""

from torch import Tensor, nn

from recloss.backbones.sequential import Output, SequenceBackbone
from recloss.sequences import Sequences


class YoutubeDNN(SequenceBackbone):
    """YoutubeDNN: ``relu(W relu(V mean(e_i: i in the history)))`` with a hidden layer of 2 d.

    Only the history of the original's features; a user without any is the network's value at zero.

    Args:
        histories: the training sequences.
        dim: embedding dimension d.
        length: items of a history that are read, the last ones.
        init: of the embeddings: "normal", "xavier_normal" or "xavier_uniform".
        output: what scores: "linear" (a table of its own, and a bias), "table" (without), or "tied" (the history's).

    Source: after Covington, Adams and Sargin, RecSys 2016.
    """

    name = "youtubednn"
    title = "YoutubeDNN"

    def __init__(
        self,
        histories: Sequences,
        *,
        dim: int = 128,
        length: int = 20,
        init: str = "xavier_normal",
        output: Output = "linear",
    ) -> None:
        super().__init__(histories, dim=dim, length=length, init=init, output=output)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim), nn.ReLU())

    def states(self, history: Tensor) -> Tensor:
        """From the mean of all items up to each one."""
        count = (history != self.n_items).cumsum(1).clamp_(min=1)
        return self.mlp(self.history_embeddings(history).cumsum(1) / count[:, :, None])

    def last(self, history: Tensor) -> Tensor:
        """From the mean of all items."""
        count = (history != self.n_items).sum(1, keepdim=True).clamp_(min=1)
        return self.mlp(self.history_embeddings(history).sum(1) / count)
