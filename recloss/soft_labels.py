"""Soft labels: which items a user like this one could have chosen, spread over the users of a cluster."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recloss.errors import require, require_positive
from recloss.interactions import Segments


@dataclass(frozen=True)
class SoftLabels:
    """Sparse distributions over items, one per row; no dense users x items.

    Attributes:
        items: items of each row, each at most once.
        weights: (M,) their weights, those of a row summing to 1.
    """

    items: Segments
    weights: Tensor

    def to(self, dtype: torch.dtype) -> "SoftLabels":
        """The same with weights of another precision."""
        return SoftLabels(self.items, self.weights.to(dtype))

    def split(self, item: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) weight of each row's own ``item`` (B,), 0 if it is not there, and (M,) the weights of the others."""
        own = self.items.values == item[self.items.rows]
        others = self.weights.masked_fill(own, 0)
        return self.items.with_values(self.weights - others).sum(), others


@dataclass(frozen=True)
class ClusterLabels:
    """Soft labels of many rows, of which those of one cluster share the items they spread over.

    Memory: a weight per row and item of its cluster; the items themselves once per cluster.

    Attributes:
        items: the distinct items of each cluster; a cluster may have none.
        cluster: (R,) int64 cluster of each row.
        first: (R,) int64 place in ``weights`` of each row's first weight.
        weights: the rows' weights, each row's in the order of its cluster's items.
    """

    items: Segments
    cluster: Tensor
    first: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.cluster)

    def of(self, rows: Tensor) -> SoftLabels:
        """The soft labels of ``rows`` (B,)."""
        cluster = self.cluster[rows]
        lengths = self.items.lengths[cluster]
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        within = Segments(torch.arange(int(offsets[-1]), device=offsets.device), offsets)
        place = within.values - offsets[:-1][within.rows]
        items = within.with_values(self.items.values[place + self.items.offsets[cluster][within.rows]])
        return SoftLabels(items, self.weights[place + self.first[rows][within.rows]])

    def placed(self, rows: Tensor, size: int) -> "ClusterLabels":
        """The same soft labels as ``rows`` (R,) of ``size`` rows, of which the others have none; of a row that is named
        several times the last ones."""
        none = len(self.items.offsets) - 1
        items = Segments(self.items.values, torch.cat([self.items.offsets, self.items.offsets[-1:]]))
        cluster, first = self.cluster.new_full((size,), none), self.first.new_zeros(size)
        last = first.new_full((size,), -1)
        last.scatter_reduce_(0, rows, torch.arange(len(rows), device=rows.device), "amax")
        found = last >= 0
        cluster[found], first[found] = self.cluster[last[found]], self.first[last[found]]
        return ClusterLabels(items, cluster, first, self.weights)

    def to(self, device: torch.device) -> "ClusterLabels":
        """The same on another device."""
        items = Segments(self.items.values.to(device), self.items.offsets.to(device))
        return ClusterLabels(items, self.cluster.to(device), self.first.to(device), self.weights.to(device))


@torch.no_grad()
def propagate(
    vectors: Tensor, labels: Tensor, clusters: Tensor, *, tau: float, alpha: float = 0.5, iterations: int = 20
) -> ClusterLabels:
    """Label propagation inside clusters: ``D <- alpha A D + (1 - alpha) D_0``, from the one-hot ``D_0``.

    ``A_ab = softmax_b(-||x_a - x_b|| / tau)`` over the other rows b of the cluster (the diagonal is -inf). Rows of A
    and D sum to 1, a row's own label keeps at least 1 - alpha, and what is left to the fixed point
    ``(1 - alpha)(I - alpha A)^-1 D_0`` is at most alpha^iterations. The one row of a cluster keeps its label.

    Memory: for a cluster of n rows with m distinct labels, n x n and two n x m numbers at once; the result holds all
    clusters' n x m.

    Args:
        vectors: (R, d) rows' vectors, such as users' embeddings.
        labels: (R,) int64 item of each row.
        clusters: (R,) int64 cluster of each row, from 0; some may be empty.
        tau: temperature of the distances, above 0; their scale is that of the vectors.
        alpha: share of the neighbours in each iteration, in (0, 1).
        iterations: how many.

    Raises:
        ValueError: for a hyper-parameter out of range, or rows of different numbers.

    Source: DeSoRec's published code; definitions only.
    """
    require_positive(tau=tau)
    require(0 < alpha < 1, f"alpha must be a number in (0, 1), got {alpha!r}")
    require(isinstance(iterations, int) and iterations >= 1, f"iterations must be at least 1, got {iterations!r}")
    R = len(vectors)
    require(
        labels.shape == clusters.shape == (R,),
        f"labels and clusters must have shape ({R},), one for each vector, got {tuple(labels.shape)}"
        f" and {tuple(clusters.shape)}",
    )
    sizes = torch.bincount(clusters)
    first, weights, items = torch.zeros_like(clusters), [], []
    start = 0
    for rows in clusters.argsort(stable=True).split(sizes.tolist()):
        distinct, column = labels[rows].unique(return_inverse=True)
        D = _spread(vectors[rows], column, len(distinct), tau, alpha, iterations)
        first[rows] = start + torch.arange(len(rows), device=rows.device) * len(distinct)
        start += D.numel()
        weights.append(D.flatten())
        items.append(distinct)
    lengths = torch.tensor([len(distinct) for distinct in items], device=clusters.device)
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    return ClusterLabels(Segments(torch.cat(items), offsets), clusters, first, torch.cat(weights))


def _spread(x: Tensor, column: Tensor, n_labels: int, tau: float, alpha: float, iterations: int) -> Tensor:
    """(n, n_labels) soft labels of a cluster's rows, whose own labels are in ``column`` (n,)."""
    D = x.new_zeros(len(x), n_labels).scatter_(1, column[:, None], 1)
    if len(x) < 2:
        return D
    A = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").div_(-tau).fill_diagonal_(-torch.inf)
    A.sub_(A.amax(1, keepdim=True)).exp_()
    A.div_(A.sum(1, keepdim=True))
    kept = x.new_full((len(x), 1), 1 - alpha)
    for _ in range(iterations):
        D = torch.mm(A, D).mul_(alpha).scatter_add_(1, column[:, None], kept)
    return D
