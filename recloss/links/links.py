"""A graph whose links are split, with what each held-out link is ranked against: the data of link prediction."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from recloss.interactions import Interactions


@dataclass(frozen=True, eq=False)
class Links:
    """Undirected edges between nodes, in three splits, and negatives of the validation and the test edges.

    Attributes:
        n_nodes: number of nodes, with or without edges.
        features: (n_nodes, F) CSR matrix of the nodes' features in float32, or ``None``.
        train, valid, test: (E, 2) int64 edges, each once, its smaller node first.
        valid_negatives, test_negatives: (E, M, 2) int64 pairs of nodes, none of them an edge of any split: row e is
            what edge e of the split is ranked against. The order within a pair has no meaning.

    Raises:
        ValueError: for another shape, nodes out of range, an edge that comes twice or has its larger node first, or a
            negative that is an edge or a loop.
    """

    n_nodes: int
    features: Tensor | None
    train: Tensor
    valid: Tensor
    test: Tensor
    valid_negatives: Tensor
    test_negatives: Tensor

    def __post_init__(self) -> None:
        for name in ("train", "valid", "test"):
            _check_edges(name, getattr(self, name), self.n_nodes)
        edges = torch.cat([self.train, self.valid, self.test])
        keys = edge_keys(edges, self.n_nodes).sort().values
        repeated = torch.nonzero(keys[1:] == keys[:-1]).flatten()
        if len(repeated):
            raise ValueError(f"the edge {_named(int(keys[repeated[0]]), self.n_nodes)} occurs more than once")
        for name in ("valid", "test"):
            _check_negatives(name, getattr(self, name), getattr(self, f"{name}_negatives"), keys, self.n_nodes)
        if self.features is not None and (
            self.features.layout != torch.sparse_csr or len(self.features) != self.n_nodes
        ):
            given = f"{self.features.layout} {tuple(self.features.shape)}"
            raise ValueError(f"features must be a CSR matrix of {self.n_nodes} rows, got {given}")

    @cached_property
    def neighbours(self) -> Interactions:
        """Both directions of the training edges: node u's "items" are the nodes it is linked with."""
        both = torch.cat([self.train, self.train.flip(1)])
        return Interactions(both[:, 0], both[:, 1], self.n_nodes, self.n_nodes)


def edge_keys(pairs: Tensor, n_nodes: int) -> Tensor:
    """(...) int64 number of each undirected pair (..., 2): the same for both orders of its nodes."""
    return pairs.amin(-1) * n_nodes + pairs.amax(-1)


def are_edges(pairs: Tensor, sorted_keys: Tensor, n_nodes: int) -> Tensor:
    """(...) whether each pair (..., 2), in any order of its nodes, is among the ascending ``edge_keys`` of edges."""
    keys = edge_keys(pairs, n_nodes)
    if not len(sorted_keys):
        return torch.zeros_like(keys, dtype=torch.bool)
    place = torch.searchsorted(sorted_keys, keys).clamp_(max=len(sorted_keys) - 1)
    return sorted_keys[place] == keys


def _named(key: int, n_nodes: int) -> str:
    return f"{key // n_nodes} - {key % n_nodes}"


def _check_edges(name: str, edges: Tensor, n_nodes: int) -> None:
    if edges.dtype != torch.int64 or edges.dim() != 2 or edges.shape[1] != 2:
        raise ValueError(f"{name} must be int64 of shape (E, 2), got {edges.dtype} {tuple(edges.shape)}")
    if len(edges) and not 0 <= int(edges.min()) <= int(edges.max()) < n_nodes:
        raise ValueError(f"nodes of {name} must lie in 0..{n_nodes - 1}, got {int(edges.min())}..{int(edges.max())}")
    wrong = torch.nonzero(edges[:, 0] >= edges[:, 1]).flatten()
    if len(wrong):
        u, v = edges[wrong[0]].tolist()
        raise ValueError(f"{name} must have the smaller node of each edge first, and no loops, got {u} - {v}")


def _check_negatives(name: str, edges: Tensor, negatives: Tensor, keys: Tensor, n_nodes: int) -> None:
    shape = tuple(negatives.shape)
    if negatives.dtype != torch.int64 or negatives.dim() != 3 or shape[0] != len(edges) or shape[2] != 2:
        raise ValueError(f"{name}_negatives must be int64 of shape ({len(edges)}, M, 2), got {negatives.dtype} {shape}")
    if negatives.numel() and not 0 <= int(negatives.min()) <= int(negatives.max()) < n_nodes:
        given = f"{int(negatives.min())}..{int(negatives.max())}"
        raise ValueError(f"nodes of {name}_negatives must lie in 0..{n_nodes - 1}, got {given}")
    wrong = are_edges(negatives, keys, n_nodes) | (negatives[..., 0] == negatives[..., 1])
    if wrong.any():
        row, column = torch.nonzero(wrong)[0].tolist()
        u, v = negatives[row, column].tolist()
        raise ValueError(f"{name}_negatives of edge {row} hold {u} - {v}, which is an edge or a loop")
