"""GCN: vectors of nodes from their features and those of their neighbours, and scores of pairs from the vectors."""

import itertools
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recloss.errors import require, require_one_of
from recloss.links.decoders import DotDecoder, MLPDecoder
from recloss.links.links import Links
from recloss.links.messages import MessageGraph

DecoderName = Literal["dot", "mlp"]


class GCN(nn.Module):
    """Graph convolutions ``Z <- S dropout(Z) W + b``, ``S = D^-1/2 (A + I) D^-1/2``, and a decoder.

    ReLU between the layers. The first layer reads the nodes' features; nodes without any have a learned vector each
    instead, drawn N(0, 1). Only training edges carry messages.

    Args:
        links: the graph.
        decoder: "dot" for the similarity of the loss, "mlp" for logits of an MLP on the product of the two vectors.
        layers: convolutions, at least 1.
        hidden: dimension d of all layers.
        dropout: probability in [0, 1), on the input of every convolution and in the MLP.
        decoder_layers: linear layers of the MLP, at least 1.

    Source: Kipf and Welling, ICLR 2017; the MLP as in HeaRT (Li et al., NeurIPS 2023).
    """

    name = "gcn"
    title = "GCN"

    def __init__(
        self,
        links: Links,
        *,
        decoder: DecoderName = "dot",
        layers: int = 1,
        hidden: int = 256,
        dropout: float = 0.5,
        decoder_layers: int = 3,
    ) -> None:
        super().__init__()
        require_one_of("decoder", decoder, get_args(DecoderName))
        for name, value in (("layers", layers), ("hidden", hidden), ("decoder_layers", decoder_layers)):
            require(value >= 1, f"{name} must be at least 1, got {value!r}")
        require(0 <= dropout < 1, f"dropout must be a number in [0, 1), got {dropout!r}")
        self.dropout, self.decoder_name = dropout, decoder
        self.messages = MessageGraph(links.train, links.n_nodes)
        if links.features is None:
            self.nodes: Features | nn.Embedding = nn.Embedding(links.n_nodes, hidden)
            first = hidden
        else:
            self.nodes, first = Features(links.features), links.features.shape[1]
        sizes = [first] + [hidden] * layers
        self.weights = nn.ParameterList(
            nn.init.xavier_uniform_(torch.empty(m, n)) for m, n in itertools.pairwise(sizes)
        )
        self.biases = nn.ParameterList(torch.zeros(hidden) for _ in range(layers))
        self.decoder = DotDecoder() if decoder == "dot" else MLPDecoder(hidden, layers=decoder_layers, dropout=dropout)

    def embed(self, without: Tensor | None = None) -> Tensor:
        """(n_nodes, d) vectors; the edges ``without`` (B, 2) carry no message."""
        adjacency = self.messages(without)
        z = adjacency(self._first_product()) + self.biases[0]
        for weight, bias in zip(list(self.weights)[1:], list(self.biases)[1:], strict=True):
            z = adjacency(F.dropout(z.relu(), self.dropout, self.training) @ weight) + bias
        return z

    def score(self, z: Tensor, sources: Tensor, targets: Tensor, similarity: str) -> Tensor:
        """(B, M) scores of the pairs of ``sources`` (B,) with ``targets`` (B, M), from the nodes' vectors ``z``."""
        return self.decoder(z, sources, targets, similarity)

    def _first_product(self) -> Tensor:
        if isinstance(self.nodes, Features):
            return self.nodes(self.weights[0], self.dropout)
        return F.dropout(self.nodes.weight, self.dropout, self.training) @ self.weights[0]


class Features(nn.Module):
    """A sparse matrix X of features; calling it with weights (F, d) gives ``dropout(X) W``."""

    offsets: Tensor
    columns: Tensor
    values: Tensor

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.register_buffer("offsets", features.crow_indices(), persistent=False)
        self.register_buffer("columns", features.col_indices(), persistent=False)
        self.register_buffer("values", features.values().to(torch.get_default_dtype()), persistent=False)

    def forward(self, weight: Tensor, dropout: float) -> Tensor:
        """(n, d) product."""
        values = F.dropout(self.values, dropout, self.training)
        return F.embedding_bag(
            self.columns, weight, self.offsets, mode="sum", per_sample_weights=values, include_last_offset=True
        )
