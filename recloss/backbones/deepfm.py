"""DeepFM: a user is the pairwise products of the history's items beside a multilayer perceptron of them all."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recloss.backbones.sequential import Output, SequenceBackbone
from recloss.errors import require
from recloss.sequences import Sequences


class DeepFM(SequenceBackbone):
    """DeepFM: ``W [f; g]`` with ``f = ((sum e)^2 - sum e^2) / 2`` and g an MLP of the concatenated embeddings.

    The places of the history, counted from its end, are the fields; they share the items' embeddings. The MLP has two
    layers of 2 d and d, each with ReLU and dropout. A state reads ``length`` fields, so to have one at every place of a
    window takes ``length`` times the work of the last one.

    Args:
        histories: the training sequences.
        dim: embedding dimension d.
        length: items of a history that are read, the last ones: the fields.
        dropout: of the MLP's layers, in [0, 1).
        init: of the embeddings: "normal", "xavier_normal" or "xavier_uniform".
        output: what scores: "linear" (a table of its own, and a bias), "table" (without), or "tied" (the history's).

    Source: after Guo et al., IJCAI 2017; as defined for DeSoRec's experiments.
    """

    name = "deepfm"
    title = "DeepFM"

    def __init__(
        self,
        histories: Sequences,
        *,
        dim: int = 128,
        length: int = 20,
        dropout: float = 0.1,
        init: str = "xavier_normal",
        output: Output = "linear",
    ) -> None:
        super().__init__(histories, dim=dim, length=length, init=init, output=output)
        require(0 <= dropout < 1, f"dropout must lie in [0, 1), got {dropout!r}")
        sizes = ((length * dim, 2 * dim), (2 * dim, dim))
        layers = (part for size in sizes for part in (nn.Linear(*size), nn.ReLU(), nn.Dropout(dropout)))
        self.deep = nn.Sequential(*layers)
        self.mixed = nn.Linear(2 * dim, dim)

    def states(self, history: Tensor) -> Tensor:
        """The history up to each item, as a history of its own."""
        L = history.shape[1]
        prefixes = F.pad(history, (L - 1, 0), value=self.n_items).unfold(1, L, 1)
        return self.last(prefixes.flatten(0, 1)).unflatten(0, (-1, L))

    def last(self, history: Tensor) -> Tensor:
        """Missing fields are zeros."""
        e = self.history_embeddings(history)
        pairs = (e.sum(1).square() - e.square().sum(1)) / 2
        fields = F.pad(e.flatten(1), ((self.length - history.shape[1]) * self.dim, 0))
        return self.mixed(torch.cat([pairs, self.deep(fields)], 1))
