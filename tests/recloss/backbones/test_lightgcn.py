"""LightGCN against the golden toy graph and a dense-matrix oracle."""

import copy

import pytest
import torch
import torch.nn.functional as F

from recloss.backbones import LightGCN
from recloss.graph import normalised_adjacency
from recloss.interactions import Interactions


@pytest.fixture
def double():
    """float64 as the default, as the goldens are."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def some_interactions(n_users: int = 12, n_items: int = 9, seed: int = 0) -> Interactions:
    """User 3 and item 4 have no neighbours."""
    linked = torch.rand(n_users, n_items, generator=torch.Generator().manual_seed(seed)) < 0.3
    linked[3] = False
    linked[:, 4] = False
    return Interactions(*linked.nonzero(as_tuple=True), n_users, n_items)


def oracle(train: Interactions, user: torch.Tensor, item: torch.Tensor, layers: int) -> torch.Tensor:
    """Mean of E, AE, ..., A^L E with a dense A built edge by edge."""
    n, users = train.n_users + train.n_items, train.user.tolist()
    neighbours = torch.zeros(n, n)
    for u, i in zip(users, train.item.tolist(), strict=True):
        neighbours[u, train.n_users + i] = neighbours[train.n_users + i, u] = 1
    degree = neighbours.sum(1)
    degree[degree == 0] = 1
    adjacency = neighbours / degree[:, None].sqrt() / degree[None, :].sqrt()
    every_layer = [torch.cat([user, item])]
    for _ in range(layers):
        every_layer.append(adjacency @ every_layer[-1])
    return torch.stack(every_layer).mean(0)


def toy(case) -> tuple[Interactions, LightGCN]:
    edges = torch.tensor(case["edges_user_item"])
    train = Interactions(edges[:, 0], edges[:, 1], case["num_users"], case["num_items"])
    backbone = LightGCN(train, dim=2, layers=2)
    start = torch.tensor(case["E0(users then items)"])
    backbone.user.data, backbone.item.data = start[: case["num_users"]].clone(), start[case["num_users"] :].clone()
    return train, backbone


def test_golden_adjacency_pooling_and_cosines(golden, double):
    case = golden("graph")
    train, backbone = toy(case)
    near = {"rtol": 1e-9, "atol": 1e-12}
    torch.testing.assert_close(normalised_adjacency(train).to_dense(), torch.tensor(case["norm_adj"]), **near)
    user, item = backbone.embed()
    torch.testing.assert_close(torch.cat([user, item]), torch.tensor(case["lightgcn_mean_0..2"]), **near)
    cosines = F.normalize(user, dim=1) @ F.normalize(item, dim=1).T
    torch.testing.assert_close(cosines, torch.tensor(case["lightgcn_cosine_scores"]), **near)


def test_golden_in_float32(golden):
    case = golden("graph")
    _, backbone = toy(case)
    expected = torch.tensor(case["lightgcn_mean_0..2"])
    torch.testing.assert_close(torch.cat(backbone.embed()), expected, rtol=2e-5, atol=1e-6)


def test_golden_single_layers_follow_from_the_means(golden, double):
    case = golden("graph")
    train, backbone = toy(case)
    sums = []
    for layers in (1, 2):
        deeper = LightGCN(train, dim=2, layers=layers)
        deeper.load_state_dict(backbone.state_dict())
        sums.append(torch.cat(deeper.embed()) * (layers + 1))
    torch.testing.assert_close(sums[0] - torch.tensor(case["E0(users then items)"]), torch.tensor(case["E1"]))
    torch.testing.assert_close(sums[1] - sums[0], torch.tensor(case["E2"]))


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_values_and_gradients_against_a_dense_matrix(layers, double):
    train = some_interactions()
    torch.manual_seed(0)
    backbone = LightGCN(train, dim=5, layers=layers)
    weight = torch.randn(train.n_users + train.n_items, 5)
    found = torch.cat(backbone.embed())
    expected = oracle(train, backbone.user, backbone.item, layers)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    tables = (backbone.user, backbone.item)
    by_backbone = torch.autograd.grad((found.sigmoid() * weight).sum(), tables)
    by_oracle = torch.autograd.grad((expected.sigmoid() * weight).sum(), tables)
    for left, right in zip(by_backbone, by_oracle, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


def test_nodes_without_neighbours_keep_their_own_share():
    train = some_interactions()
    backbone = LightGCN(train, dim=4, layers=2)
    user, item = backbone.embed()
    torch.testing.assert_close(user[3], backbone.user[3] / 3)
    torch.testing.assert_close(item[4], backbone.item[4] / 3)
    assert bool(torch.isfinite(user).all() and torch.isfinite(item).all())


def test_a_graph_without_any_edge():
    nothing = torch.zeros(0, dtype=torch.int64)
    backbone = LightGCN(Interactions(nothing, nothing, 2, 3), dim=4, layers=1)
    user, item = backbone.embed()
    torch.testing.assert_close(torch.cat([user, item]), torch.cat([backbone.user, backbone.item]) / 2)
    (user.sum() + item.sum()).backward()
    assert backbone.user.grad.unique().tolist() == [0.5]


def test_the_adjacency_is_symmetric_and_holds_each_training_pair_twice():
    train = some_interactions()
    adjacency = normalised_adjacency(train)
    dense = adjacency.to_dense()
    assert torch.equal(dense, dense.T)
    assert len(adjacency.values()) == 2 * len(train)
    users, items = dense[: train.n_users, train.n_users :].nonzero(as_tuple=True)
    assert list(zip(users.tolist(), items.tolist(), strict=True)) == list(
        zip(train.user.tolist(), train.item.tolist(), strict=True)
    )
    assert float(dense[: train.n_users, : train.n_users].abs().sum()) == 0
    assert float(torch.linalg.eigvalsh(dense).abs().max()) == pytest.approx(1, abs=1e-5)


def test_state_holds_the_tables_and_no_graph():
    backbone = LightGCN(some_interactions(), dim=4)
    assert set(backbone.state_dict()) == {"user", "item"}
    assert {name for name, _ in backbone.named_parameters()} == {"user", "item"}
    other = LightGCN(some_interactions(), dim=4)
    other.load_state_dict(backbone.state_dict())
    assert all(torch.equal(left, right) for left, right in zip(other.embed(), backbone.embed(), strict=True))


def test_two_runs_give_the_same_bits():
    train = some_interactions(400, 300)
    runs = []
    for _ in range(3):
        torch.manual_seed(0)
        backbone = LightGCN(train, dim=64, layers=3)
        user, item = backbone.embed()
        (user.sigmoid().sum() + item.sigmoid().square().sum()).backward()
        runs.append((user.detach(), item.detach(), backbone.user.grad, backbone.item.grad))
    for other in runs[1:]:
        assert all(torch.equal(left, right) for left, right in zip(runs[0], other, strict=True))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="layers must be at least 1, got 0"):
        LightGCN(some_interactions(), layers=0)
    with pytest.raises(ValueError, match="init must be one of"):
        LightGCN(some_interactions(), init="ones")


def test_a_copy_embeds_the_same():
    train = Interactions(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2, 3)
    backbone = LightGCN(train, dim=4)
    for mine, copied in zip(backbone.embed(), copy.deepcopy(backbone).embed(), strict=True):
        assert torch.equal(mine, copied)
