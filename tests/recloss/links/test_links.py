"""Graphs, their splits and their negatives against definitions written edge by edge."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recloss.links import Links, hard_negatives, random_negatives, split_edges
from recloss.links.negatives import RESTART
from recloss.similarity import csr


def as_set(edges: torch.Tensor) -> set[tuple[int, ...]]:
    return {tuple(sorted(edge)) for edge in edges.flatten(0, -2).tolist()}


@given(st.integers(20, 400), st.integers(0, 10))
def test_a_split_divides_the_edges_by_seed_whatever_their_order(n_edges, seed):
    pairs = torch.combinations(torch.arange(30))[:n_edges]
    shuffled = pairs[torch.randperm(len(pairs))]
    parts = split_edges(pairs, seed=seed)
    for part, other in zip(parts, split_edges(shuffled, seed=seed), strict=True):
        assert torch.equal(part, other)
        assert part.tolist() == sorted(part.tolist())
    assert [len(p) for p in parts[1:]] == [int(0.05 * len(pairs)), int(0.1 * len(pairs))]
    assert set.union(*map(as_set, parts)) == as_set(pairs)
    assert sum(map(len, parts)) == len(pairs)


def test_other_seeds_hold_out_other_edges_uniformly():
    pairs = torch.combinations(torch.arange(12))
    tested = sum(
        torch.isin(pairs @ torch.tensor([12, 1]), split_edges(pairs, seed=s)[2] @ torch.tensor([12, 1]))
        for s in range(600)
    )
    share = int(0.1 * len(pairs)) / len(pairs)
    assert (tested / 600 - share).abs().max() < 5 * (share * (1 - share) / 600) ** 0.5


def test_too_few_edges_or_a_wrong_share_are_refused():
    pairs = torch.combinations(torch.arange(10))
    with pytest.raises(ValueError, match="19 edges give 18 to train, 0 to validate and 1 to test"):
        split_edges(pairs[:19], seed=0)
    with pytest.raises(ValueError, match=r"test must be a number in \(0, 1\), got 1.0"):
        split_edges(pairs, seed=0, test=1.0)


def test_links_of_a_wrong_form_are_refused(some_links):
    links = some_links()
    u, v = links.train[3].tolist()
    cases = {
        "train must have the smaller node": {"train": links.train.flip(1)},
        "train must be int64 of shape": {"train": links.train.int()},
        r"nodes of valid must lie in 0\.\.29": {"valid": links.valid + 20},
        f"the edge {u} - {v} occurs more than once": {"test": torch.cat([links.test[1:], links.train[3:4]])},
        "valid_negatives must be int64 of shape": {"valid_negatives": links.valid_negatives[..., 0]},
        "features must be a CSR matrix of 30 rows": {"features": links.features.to_dense()},
    }
    for message, wrong in cases.items():
        with pytest.raises(ValueError, match=message):
            replace(links, **wrong)
    for pair in ([v, u], [5, 5]):
        negatives = links.test_negatives.clone()
        negatives[2, 7] = torch.tensor(pair)
        with pytest.raises(ValueError, match=f"edge 2 hold {pair[0]} - {pair[1]}, which is an edge or a loop"):
            replace(links, test_negatives=negatives)


def test_neighbours_are_both_directions_of_the_training_edges_alone(some_links):
    links = some_links()
    found = set(zip(links.neighbours.user.tolist(), links.neighbours.item.tolist(), strict=True))
    edges = [tuple(e) for e in links.train.tolist()]
    assert found == {*edges, *((v, u) for u, v in edges)}


@pytest.mark.parametrize("n", [1, 7, 10])
def test_random_negatives_keep_either_end_and_are_never_linked(some_links, n):
    links = some_links()
    known = torch.cat([links.train, links.valid, links.test])
    negatives = random_negatives(links.test, known, 30, n, seed=3)
    assert negatives.shape == (len(links.test), n, 2)
    half = (n + 1) // 2
    assert (negatives[:, :half, 0] == links.test[:, :1]).all()
    assert (negatives[:, half:, 0] == links.test[:, 1:]).all()
    assert not as_set(negatives) & as_set(known)
    assert (negatives[..., 0] != negatives[..., 1]).all()
    assert torch.equal(negatives, random_negatives(links.test, known, 30, n, seed=3))
    assert not torch.equal(negatives, random_negatives(links.test, known, 30, n, seed=4))


def test_random_negatives_are_uniform_over_the_nodes_that_are_not_linked(some_links):
    links = some_links()
    known = torch.cat([links.train, links.valid, links.test])
    draws = random_negatives(links.test[:1], known, 30, 60_000, seed=0)[0]
    for kept in links.test[0].tolist():
        counts = torch.bincount(draws[draws[:, 0] == kept, 1], minlength=30)
        free = [w for w in range(30) if w != kept and tuple(sorted((kept, w))) not in as_set(known)]
        assert sorted(counts.nonzero().flatten().tolist()) == free
        expected = 30_000 / len(free)
        assert (counts[free] - expected).abs().max() < 5 * expected**0.5


def hardness(anchor: int, links: Links, known: set[tuple[int, ...]]) -> dict[int, tuple[float, float]]:
    """(best rank, sum of ranks) of every candidate, from dense matrices and loops."""
    n, nodes = links.n_nodes, range(links.n_nodes)
    A = torch.zeros(n, n, dtype=torch.float64)
    for u, v in links.train.tolist():
        A[u, v] = A[v, u] = 1
    degree = A.sum(0)
    common = [sum(float(A[anchor, w] * A[w, c] / degree[w]) for w in nodes if degree[w]) for c in nodes]
    start = ends = torch.eye(n, dtype=torch.float64)[anchor]
    for _ in range(50):
        ends = RESTART * start + (1 - RESTART) * A @ (ends / degree.clamp(min=1))
    X = links.features.to_dense().double()
    cosine = [float(X[anchor] @ X[c] / (X[anchor].norm() * X[c].norm()).clamp(min=1e-30)) for c in nodes]
    candidates = [c for c in nodes if c != anchor and tuple(sorted((anchor, c))) not in known]
    ranks: dict[int, list[float]] = {c: [] for c in candidates}
    for scores in (common, ends.tolist(), cosine):
        for c in candidates:
            larger = sum(scores[o] > scores[c] + 1e-11 for o in candidates)
            equal = sum(abs(scores[o] - scores[c]) <= 1e-11 for o in candidates)
            ranks[c].append(larger + (equal + 1) / 2)
    return {c: (min(r), sum(r)) for c, r in ranks.items()}


def test_hard_negatives_are_the_hardest_by_three_heuristics(some_links):
    links = some_links(seed=1)
    edges = torch.cat([links.train, links.valid, links.test])
    negatives = hard_negatives(links.test, links.train, edges, links.features, 30, 11)
    for edge, pairs in zip(links.test.tolist(), negatives.tolist(), strict=True):
        for anchor, own in zip(edge, (pairs[:6], pairs[6:]), strict=True):
            assert [u for u, _ in own] == [anchor] * len(own)
            keys = hardness(anchor, links, as_set(edges))
            assert len({v for _, v in own}) == len(own)
            assert [keys[v] for _, v in own] == sorted(keys.values())[: len(own)]
    assert torch.equal(negatives, hard_negatives(links.test, links.train, edges.flip(0), links.features, 30, 11))


def test_a_common_neighbour_the_walk_and_the_features_each_make_a_negative_hard():
    # 0 - 1 - 2: 2 shares a neighbour with 0. 0 - 1 - 2 - 3: 3 is reached by the walk. 4 looks like 0. 5 and 6: nothing.
    train = torch.tensor([[0, 1], [1, 2], [2, 3], [5, 6], [6, 7]])
    test = torch.tensor([[0, 7]])
    dense = torch.eye(8)
    dense[4] = dense[0]
    sparse = dense.to_sparse_csr()
    features = csr(sparse.values(), sparse.col_indices(), sparse.crow_indices(), 8)
    known = torch.cat([train, test])
    hardest = hard_negatives(test, train, known, features, 8, 6)[0, :3, 1].tolist()
    assert sorted(hardest) == [2, 3, 4]
    assert hard_negatives(test, train, known, None, 8, 2)[0, 0].tolist() == [0, 2]


def test_a_node_with_too_few_candidates_is_refused():
    star = torch.tensor([[0, v] for v in range(1, 6)])
    with pytest.raises(ValueError, match="2 negatives of a kept node need as many candidates, a node has 0"):
        hard_negatives(star[:1], star[1:], star, None, 6, 4)
    with pytest.raises(ValueError, match="user 0 has all 6 items"):
        random_negatives(star[:1], star, 6, 4, seed=0)
