"""K-means against a loop of Lloyd's algorithm; seeds, empty clusters, degraded clusters, refusals."""

import pytest
import torch

from pipelines.train.clusters import clusters


def blobs(n_blobs: int = 5, each: int = 40, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    own = torch.arange(n_blobs).repeat(each)
    return 100 * torch.eye(n_blobs, 6)[own] + torch.randn(len(own), 6, generator=draw), own


def lloyd(vectors: list[list[float]], centres: list[list[float]], iterations: int) -> list[int]:
    def nearest(row: list[float]) -> int:
        return min(range(len(centres)), key=lambda c: sum((a - b) ** 2 for a, b in zip(row, centres[c], strict=True)))

    for _ in range(iterations):
        found = [nearest(row) for row in vectors]
        members = [
            [row for row, c in zip(vectors, found, strict=True) if c == centre] for centre in range(len(centres))
        ]
        assert all(members), "an empty cluster is not of this test"
        centres = [[sum(column) / len(rows) for column in zip(*rows, strict=True)] for rows in members]
    return [nearest(row) for row in vectors]


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two clusterings are the same up to the clusters' names."""
    pairs = set(zip(a.tolist(), b.tolist(), strict=True))
    return len(pairs) == len(set(a.tolist())) == len(set(b.tolist()))


def test_well_separated_rows_are_found():
    for seed in range(20):
        vectors, own = blobs()
        found = clusters(vectors, 5, seed=seed)
        assert found.dtype == torch.int64
        if same(found, own):
            break
    else:
        pytest.fail("of 20 starts none has a row of each blob")
    start = [vectors[(found == c).nonzero()[0, 0]].tolist() for c in range(5)]
    assert found.tolist() == lloyd(vectors.double().tolist(), start, 30)


@pytest.mark.parametrize("iterations", [1, 2, 100])
def test_the_iterations_are_those_of_lloyd_from_rows_of_the_seed(iterations, monkeypatch):
    """Rows without structure: what the first centres and the number of iterations are shows in the result."""
    from sklearn import cluster

    starts = []

    class Watched(cluster.KMeans):
        def __init__(self, n_clusters, *, init, n_init, max_iter, tol):
            starts.append(init)
            super().__init__(n_clusters, init=init, n_init=n_init, max_iter=max_iter, tol=tol)

    monkeypatch.setattr(cluster, "KMeans", Watched)
    vectors = torch.randn(120, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = clusters(vectors, 4, iterations=iterations, seed=7)
    [start] = starts
    assert len({tuple(row) for row in start.tolist()} & {tuple(row) for row in vectors.tolist()}) == 4
    assert found.tolist() == lloyd(vectors.tolist(), start.tolist(), iterations)


def test_a_seed_gives_the_same_clusters_and_another_seed_others():
    vectors = torch.randn(300, 4, generator=torch.Generator().manual_seed(2))
    first, again, other = (clusters(vectors, 8, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not same(first, other)


@pytest.mark.filterwarnings("error")
def test_with_fewer_distinct_rows_than_clusters_some_are_empty():
    vectors = torch.eye(3)[torch.tensor([0, 1, 2, 0, 1, 0])]
    found = clusters(vectors, 5, seed=0)
    assert same(found, torch.tensor([0, 1, 2, 0, 1, 0]))
    assert set(found.tolist()) < set(range(5))


def test_one_cluster_and_as_many_as_rows():
    vectors = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    assert clusters(vectors, 1, seed=0).tolist() == [0] * 6
    assert sorted(clusters(vectors, 6, seed=0).tolist()) == list(range(6))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 1.0])
def test_exactly_that_share_of_the_rows_goes_to_another_cluster(share):
    vectors, _ = blobs()
    right = clusters(vectors, 5, seed=3)
    found = clusters(vectors, 5, seed=3, reassigned=share)
    assert int((found != right).sum()) == round(share * 200)
    assert set(found.tolist()) <= set(range(5))
    assert torch.equal(found, clusters(vectors, 5, seed=3, reassigned=share))


def test_rows_are_moved_to_all_other_clusters_alike():
    vectors = torch.arange(3.0).repeat(4000)[:, None]
    right, found = (clusters(vectors, 3, seed=0, reassigned=share) for share in (0.0, 1.0))
    counts = torch.bincount((found - right) % 3, minlength=3)
    assert counts[0] == 0
    assert abs(int(counts[1]) - 6000) < 5 * 12000**0.5 / 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, r"clusters must lie in 1..5, the number of rows, got 0"),
        ({"k": 6}, r"clusters must lie in 1..5, the number of rows, got 6"),
        ({"iterations": 0}, "kmeans_iterations must be at least 1, got 0"),
        ({"reassigned": 1.5}, r"reassigned must be a share in \[0, 1\], got 1.5"),
        ({"k": 1, "reassigned": 0.5}, "reassigned must be 0 with one cluster, got 0.5"),
    ],
)
def test_settings_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        clusters(torch.randn(5, 2), **{"k": 2, "seed": 0} | options)


def test_vectors_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="^the vectors to be clustered are not finite"):
        clusters(torch.tensor([[0.0], [float("nan")]]), 1, seed=0)
