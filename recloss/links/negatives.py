"""What held-out edges are ranked against: pairs that keep one end of the edge and replace the other."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from recloss.errors import require
from recloss.graph import SparseMatrix
from recloss.interactions import Interactions
from recloss.randomness import stream_key
from recloss.sampling import UniformNegatives
from recloss.similarity import csr
from recloss.ties import item_order

RESTART = 0.15
"""Probability with which the walk of the personalised PageRank returns to its start."""
_STEPS = 50
"""Steps of its power iteration: what is left out weighs 0.85^50 = 3e-4."""
_ANCHORS_AT_ONCE = 128
_DECIMALS = 12
"""Scores are compared after rounding to so many decimals, so that other orders of summation do not change a rank."""


def random_negatives(edges: Tensor, known: Tensor, n_nodes: int, n: int, *, seed: int) -> Tensor:
    """(E, n, 2) pairs: the first half keep the first node of their edge, the others the second one.

    The node that replaces the other end is drawn i.i.d. uniform among those that the kept one is not linked with in
    ``known``, itself not among them.

    Args:
        edges: (E, 2) held-out edges.
        known: (A, 2) all edges that no negative may be, those of every split.
        n_nodes: number of nodes.
        n: pairs per edge.
        seed: of the draws.

    Raises:
        ValueError: if a node is linked with all others.
    """
    sampler = UniformNegatives(linked_or_self(known, n_nodes))
    rows, key = torch.arange(len(edges)), stream_key(seed, 0, "negatives of held-out edges")
    kept = [edges[:, :1].expand(-1, (n + 1) // 2), edges[:, 1:].expand(-1, n // 2)]
    drawn = [sampler.sample(k[:, 0], rows + i * len(edges), k.shape[1], key) for i, k in enumerate(kept) if k.numel()]
    return torch.stack([torch.cat(kept, 1), torch.cat(drawn, 1)], 2)


def hard_negatives(
    edges: Tensor, train: Tensor, known: Tensor, features: Tensor | None, n_nodes: int, n: int
) -> Tensor:
    """(E, n, 2) pairs as of ``random_negatives``, but with the nodes that are most likely linked with the kept one.

    Three heuristics order the candidates of a kept node a: resource allocation on the training graph (the sum over
    common neighbours of 1 / degree), personalised PageRank from a on it (restart 0.15), the cosine of the features
    (where there are any). A candidate's rank by each is its mean rank among equal scores; the candidates with the best
    of their ranks are taken, equal ones by the sum of their ranks, then in a fixed pseudo-random order of nodes.
    Nothing is drawn. The idea is HeaRT's (Li et al., NeurIPS 2023); its published negatives differ in detail.

    Args:
        edges: (E, 2) held-out edges.
        train: (T, 2) training edges, which alone are seen by the heuristics.
        known: (A, 2) all edges that no negative may be, those of every split.
        features: (n_nodes, F) CSR matrix, or ``None``.
        n_nodes: number of nodes.
        n: pairs per edge.

    Raises:
        ValueError: if a node has fewer candidates than are asked for.
    """
    forbidden, half = linked_or_self(known, n_nodes), (n + 1) // 2
    candidates = n_nodes - int(forbidden.degrees[edges.flatten()].max()) if len(edges) else n_nodes
    require(half <= candidates, f"{half} negatives of a kept node need as many candidates, a node has {candidates}")
    anchors, place = edges.unique(return_inverse=True)
    heuristics = _Heuristics(train, features, n_nodes)
    blocks = [_hardest(heuristics, block, forbidden, half) for block in anchors.split(_ANCHORS_AT_ONCE)]
    hardest = torch.cat(blocks) if blocks else torch.empty(0, half, dtype=torch.int64)
    kept = torch.cat([edges[:, :1].expand(-1, half), edges[:, 1:].expand(-1, n // 2)], 1)
    return torch.stack([kept, torch.cat([hardest[place[:, 0]], hardest[place[:, 1], : n // 2]], 1)], 2)


def linked_or_self(edges: Tensor, n_nodes: int) -> Interactions:
    """Both directions of undirected edges, and every node with itself."""
    loops = torch.arange(n_nodes, device=edges.device)[:, None].expand(-1, 2)
    both = torch.cat([edges, edges.flip(1), loops])
    return Interactions(both[:, 0], both[:, 1], n_nodes, n_nodes)


class _Heuristics:
    """Scores of all nodes as neighbours of given ones."""

    def __init__(self, train: Tensor, features: Tensor | None, n_nodes: int) -> None:
        both = torch.cat([train, train.flip(1)])
        graph = Interactions(both[:, 0], both[:, 1], n_nodes, n_nodes)
        out = graph.degrees.double().reciprocal()[graph.item]
        self.walk = SparseMatrix(csr(out, graph.item, graph.offsets, n_nodes))
        """One step of the random walk: column a is where it goes from a."""
        self.features = None if features is None else F.normalize(features.to_dense().double(), dim=1)
        self.n_nodes = n_nodes

    def scores(self, anchors: Tensor) -> list[Tensor]:
        """(A, n_nodes) of each heuristic; the order of resource allocation is that of two steps of the walk."""
        start = F.one_hot(anchors, self.n_nodes).double().T.contiguous()
        ends = start
        for _ in range(_STEPS):
            ends = self.walk(ends).mul_(1 - RESTART).add_(start, alpha=RESTART)
        scores = [self.walk(self.walk(start)).T, ends.T]
        return scores if self.features is None else [*scores, self.features[anchors] @ self.features.T]


def _hardest(heuristics: _Heuristics, anchors: Tensor, forbidden: Interactions, n: int) -> Tensor:
    """(A, n) the candidates of each anchor, the hardest first."""
    linked = forbidden.of(anchors)
    ranks = []
    for scores in heuristics.scores(anchors):
        scores = scores.round(decimals=_DECIMALS).contiguous()
        scores[linked.rows, linked.values] = -math.inf
        ranks.append(_mean_ranks(scores))
    best, total = torch.stack(ranks).amin(0), torch.stack(ranks).sum(0)
    order = item_order(heuristics.n_nodes)
    best[linked.rows, linked.values] = math.inf
    by_total = order[total[:, order].argsort(dim=1, stable=True)]
    return by_total.gather(1, best.gather(1, by_total).argsort(dim=1, stable=True))[:, :n]


def _mean_ranks(scores: Tensor) -> Tensor:
    """(A, n) rank of each score in its row, from 1 for the largest; equal ones share the mean of their ranks."""
    ascending = scores.sort(dim=1).values
    above = scores.shape[1] - torch.searchsorted(ascending, scores, right=True)
    not_below = scores.shape[1] - torch.searchsorted(ascending, scores)
    return (above + not_below + 1) / 2
