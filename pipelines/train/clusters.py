"""Clusters that soft labels spread in: scikit-learn's K-means from seeded rows, made worse on purpose where asked."""

import warnings

import numpy as np
from torch import Tensor, from_numpy

from recloss.errors import require
from recloss.randomness import stream_key


def clusters(vectors: Tensor, k: int, *, iterations: int = 100, seed: int, reassigned: float = 0.0) -> Tensor:
    """(R,) int64 cluster of each row of ``vectors`` (R, d), from 0 to k - 1: Lloyd's iterations from k random rows.

    They end when no row moves, or after ``iterations``. A centre that loses all its rows goes to the row that is
    farthest from its own centre (scikit-learn's rule); where distinct rows are fewer than k, some clusters stay empty.
    The same numbers on a machine with the same number of threads give the same clusters.

    Args:
        vectors: what is clustered, such as users' states.
        k: number of clusters.
        iterations: of Lloyd's algorithm, at most.
        seed: of the first centres, and of the rows that are re-assigned.
        reassigned: share of the rows, rounded to a number of rows, that go to another cluster than theirs, drawn
            uniformly: how well a method does with clusters that are not right.

    Raises:
        ValueError: for a setting out of range, or vectors that are not finite.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    rows = len(vectors)
    require(1 <= k <= rows, f"clusters must lie in 1..{rows}, the number of rows, got {k!r}")
    require(iterations >= 1, f"kmeans_iterations must be at least 1, got {iterations!r}")
    require(0 <= reassigned <= 1, f"reassigned must be a share in [0, 1], got {reassigned!r}")
    require(not reassigned or k > 1, f"reassigned must be 0 with one cluster, got {reassigned!r}")
    x = vectors.detach().cpu().numpy()
    require(bool(np.isfinite(x).all()), "the vectors to be clustered are not finite")
    draws = np.random.default_rng(stream_key(seed, 0, "clusters"))
    start = x[draws.choice(rows, k, replace=False)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of fewer distinct rows than clusters
        found = KMeans(k, init=start, n_init=1, max_iter=iterations, tol=0.0).fit(x).labels_.astype(np.int64)
    moved = draws.choice(rows, round(reassigned * rows), replace=False)
    found[moved] = (found[moved] + draws.integers(1, max(k, 2), len(moved))) % k
    return from_numpy(found)
