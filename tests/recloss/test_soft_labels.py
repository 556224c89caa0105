"""Label propagation against a golden, loops and the fixed point; soft labels of chosen rows."""

import math

import pytest
import torch

from recloss.interactions import Segments
from recloss.soft_labels import ClusterLabels, SoftLabels, propagate


def dense(labels: ClusterLabels, n_items: int) -> torch.Tensor:
    found = labels.of(torch.arange(len(labels)))
    table = torch.zeros(len(labels), n_items, dtype=labels.weights.dtype)
    table[found.items.rows, found.items.values] = found.weights
    return table


def test_golden(golden):
    case = golden("desorec_label_propagation")
    inputs = case["inputs"]
    vectors = torch.tensor(inputs["user_embeddings_one_cluster"], dtype=torch.float64)
    labels, clusters = torch.tensor(inputs["labels"]), torch.zeros(5, dtype=torch.int64)
    for iterations in (1, 2, 20):
        found = propagate(vectors, labels, clusters, tau=0.5, alpha=0.5, iterations=iterations)
        assert found.items.values.tolist() == inputs["label_columns"]
        expected = torch.tensor(case[f"iter_{iterations}"], dtype=torch.float64)
        torch.testing.assert_close(found.weights.view(5, 3), expected, rtol=1e-9, atol=1e-12)
    difference = found.weights.view(5, 3) - torch.tensor(case["fixed_point"], dtype=torch.float64)
    assert 0 < float(difference.abs().max()) <= 0.5**20


CLUSTERS = torch.tensor([3, 0, 3, 3, 1, 0, 3, 4, 4, 3])
"""Of ten rows: 3 has five of them, 0 and 4 two, 1 one, 2 none."""


def random_case():
    generator = torch.Generator().manual_seed(3)
    vectors = torch.randn(10, 4, generator=generator, dtype=torch.float64)
    return vectors, torch.tensor([2, 5, 2, 7, 1, 5, 3, 0, 6, 7]), CLUSTERS


def by_loops(vectors, labels, clusters, tau, alpha, iterations, n_items):
    n = len(labels)
    start = [[float(j == labels[a]) for j in range(n_items)] for a in range(n)]
    d = [row[:] for row in start]
    for _ in range(iterations):
        step = []
        for a in range(n):
            mates = [b for b in range(n) if b != a and clusters[b] == clusters[a]]
            pull = {b: math.exp(-math.dist(vectors[a].tolist(), vectors[b].tolist()) / tau) for b in mates}
            total = sum(pull.values())
            spread = [sum(pull[b] / total * d[b][j] for b in mates) for j in range(n_items)]
            mixed = [alpha * x + (1 - alpha) * y for x, y in zip(spread, start[a], strict=True)]
            step.append(mixed if mates else start[a])
        d = step
    return torch.tensor(d, dtype=torch.float64)


@pytest.mark.parametrize(("tau", "alpha", "iterations"), [(1.0, 0.5, 20), (0.05, 0.5, 3), (3.0, 0.9, 7)])
def test_against_loops(tau, alpha, iterations):
    case = random_case()
    found = dense(propagate(*case, tau=tau, alpha=alpha, iterations=iterations), 9)
    expected = by_loops(*case, tau, alpha, iterations, 9)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found.sum(1), torch.ones(10, dtype=torch.float64))
    assert bool((found.gather(1, case[1][:, None]) >= 1 - alpha - 1e-12).all())
    assert found[4].tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0], "the one row of a cluster"


def test_the_fixed_point_is_half_to_the_number_of_iterations_away():
    vectors, labels, clusters = random_case()
    found = dense(propagate(vectors, labels, clusters, tau=0.7), 9)
    for cluster in (0, 3, 4):
        own = (clusters == cluster).nonzero()[:, 0]
        distance = (vectors[own][:, None] - vectors[own][None]).square().sum(2).sqrt()
        A = (-distance / 0.7).fill_diagonal_(-torch.inf).softmax(1)
        start = torch.nn.functional.one_hot(labels[own], 9).double()
        fixed = 0.5 * torch.linalg.solve(torch.eye(len(own), dtype=torch.float64) - 0.5 * A, start)
        assert float((found[own] - fixed).abs().max()) <= 0.5**20


def test_far_neighbours_at_a_small_temperature_do_not_underflow():
    vectors = torch.tensor([[0.0], [1e3], [3e3]])
    found = propagate(vectors, torch.tensor([0, 1, 2]), torch.zeros(3, dtype=torch.int64), tau=0.01)
    torch.testing.assert_close(found.weights.view(3, 3).sum(1), torch.ones(3))


def test_rows_of_a_batch_repeat_and_keep_their_order():
    labels = propagate(*random_case(), tau=1.0)
    rows = torch.tensor([4, 9, 0, 9])
    found = labels.of(rows)
    assert found.items.lengths.tolist() == [1, 3, 3, 3]
    assert found.items.values.tolist() == [1, 2, 3, 7, 2, 3, 7, 2, 3, 7]
    table = dense(labels, 9)
    torch.testing.assert_close(found.weights, table[rows][found.items.rows, found.items.values])
    assert len(labels.weights) == 5 * 3 + 2 * 1 + 1 + 2 * 2


def test_placed_among_more_rows_the_others_have_none():
    labels = propagate(*random_case(), tau=1.0)
    rows = torch.tensor([12, 3, 4, 5, 6, 7, 8, 9, 10, 11])
    placed = labels.placed(rows, 14)
    found = placed.of(torch.tensor([12, 0, 11, 13]))
    assert found.items.lengths.tolist() == [3, 0, 3, 0]
    expected = labels.of(torch.tensor([0, 9]))
    assert torch.equal(found.items.values, expected.items.values)
    assert torch.equal(found.weights, expected.weights)
    assert len(placed) == 14
    rows[0] = 11  # two rows of one pair
    assert torch.equal(labels.placed(rows, 14).of(torch.tensor([11])).weights, labels.of(torch.tensor([9])).weights)


def test_the_own_weight_apart_from_the_others():
    soft = SoftLabels(
        Segments(torch.tensor([4, 2, 2, 3]), torch.tensor([0, 2, 2, 4])), torch.tensor([0.3, 0.7, 0.9, 0.1])
    )
    own, others = soft.split(torch.tensor([2, 2, 5]))
    assert own.tolist() == pytest.approx([0.7, 0, 0])
    assert others.tolist() == pytest.approx([0.3, 0, 0.9, 0.1])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tau": 0}, "tau must be a number above 0, got 0"),
        ({"alpha": 1}, r"alpha must be a number in \(0, 1\), got 1"),
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"labels": torch.tensor([1])}, r"labels and clusters must have shape \(10,\).* got \(1,\) and \(10,\)"),
    ],
)
def test_what_is_refused(wrong, message):
    vectors, labels, clusters = random_case()
    with pytest.raises(ValueError, match=f"^{message}"):
        propagate(**{"vectors": vectors, "labels": labels, "clusters": clusters, "tau": 1.0} | wrong)
