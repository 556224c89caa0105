"""Which edges of a graph are trained on, validated and tested."""

import torch
from torch import Tensor

from recloss.errors import require
from recloss.randomness import permutation, stream_key


def split_edges(edges: Tensor, *, seed: int, valid: float = 0.05, test: float = 0.10) -> tuple[Tensor, Tensor, Tensor]:
    """Training, validation and test edges, each in ascending order: ``int(share * E)`` held out, at random by ``seed``.

    Depends on which edges there are, not on their order.

    Args:
        edges: (E, 2) int64 distinct undirected edges, the smaller node of each first.
        seed: of the draw.
        valid, test: shares of the edges.

    Raises:
        ValueError: if a share is not in (0, 1), or a part has no edge.
    """
    for name, share in (("valid", valid), ("test", test)):
        require(0 < share < 1, f"{name} must be a number in (0, 1), got {share!r}")
    n_valid, n_test = int(valid * len(edges)), int(test * len(edges))
    n_train = len(edges) - n_valid - n_test
    require(
        min(n_train, n_valid, n_test) > 0,
        f"{len(edges)} edges give {n_train} to train, {n_valid} to validate and {n_test} to test: each needs one",
    )
    in_order = edges[_ascending(edges)]
    drawn = in_order[permutation(len(edges), stream_key(seed, 0, "edges"))]
    parts = drawn.split([n_train, n_valid, n_test])
    return parts[0][_ascending(parts[0])], parts[1][_ascending(parts[1])], parts[2][_ascending(parts[2])]


def _ascending(edges: Tensor) -> Tensor:
    return torch.argsort(edges[:, 0] * (int(edges.max()) + 1) + edges[:, 1])
