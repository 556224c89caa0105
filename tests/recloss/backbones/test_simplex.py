"""SimpleX-style history pooling against sums written out."""

import pytest
import torch

from recloss.backbones import SimpleX
from recloss.interactions import Interactions


def oracle(train: Interactions, backbone: SimpleX, gate: float) -> torch.Tensor:
    """Users one by one, their items looked up pair by pair."""
    pairs = list(zip(train.user.tolist(), train.item.tolist(), strict=True))
    rows = []
    for user in range(train.n_users):
        items = [backbone.item[i] for u, i in pairs if u == user]
        mean = sum(items) / len(items) if items else torch.zeros(backbone.item.shape[1])
        rows.append(gate * backbone.user[user] + (1 - gate) * (backbone.history.weight * mean).sum(1))
    return torch.stack(rows)


@pytest.mark.parametrize("gate", [0.0, 0.3, 0.5, 1.0])
def test_values_and_gradients_against_the_formula(gate, small, double):
    torch.manual_seed(0)
    backbone = SimpleX(small, dim=5, gate=gate)
    weights = torch.randn(12, 5), torch.randn(9, 5)
    user, item = backbone.embed()
    expected = oracle(small, backbone, gate)
    torch.testing.assert_close(user, expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(item, backbone.item)
    parameters = list(backbone.parameters())
    grads = [
        torch.autograd.grad((u.sigmoid() * weights[0]).sum() + (i.sigmoid() * weights[1]).sum(), parameters)
        for u, i in ((user, item), (expected, backbone.item))
    ]
    for left, right in zip(*grads, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


def test_derivatives_by_differences(differentiates):
    train = Interactions(torch.tensor([0, 0, 1]), torch.tensor([0, 2, 2]), 3, 3)
    assert differentiates(SimpleX(train, dim=2, gate=0.4))


def test_a_hand_computed_user():
    train = Interactions(torch.tensor([0, 0]), torch.tensor([0, 2]), 2, 3)
    backbone = SimpleX(train, dim=2, gate=0.25)
    with torch.no_grad():
        backbone.user.copy_(torch.tensor([[4.0, 8.0], [1.0, 2.0]]))
        backbone.item.copy_(torch.tensor([[1.0, 0.0], [100.0, 100.0], [3.0, 2.0]]))
        backbone.history.weight.copy_(torch.tensor([[0.0, 4.0], [8.0, 0.0]]))
    user, item = backbone.embed()
    assert user.tolist() == [[1.0 + 3.0, 2.0 + 12.0], [0.25, 0.5]], "the mean (2, 1) maps to (4, 16)"
    assert torch.equal(item, backbone.item)


def test_a_gate_of_1_is_a_free_embedding_and_a_user_without_history_keeps_its_share(small):
    free = SimpleX(small, dim=4, gate=1)
    assert torch.equal(free.embed()[0], free.user)
    backbone = SimpleX(small, dim=4, gate=0.3)
    torch.testing.assert_close(backbone.embed()[0][3], 0.3 * backbone.user[3])


def test_state_holds_parameters_and_no_matrix(small):
    backbone = SimpleX(small, dim=4)
    assert set(backbone.state_dict()) == {"user", "item", "history.weight"}
    assert {name for name, _ in backbone.named_parameters()} == {"user", "item", "history.weight"}


def test_a_user_of_many_items_costs_one_row_of_the_matrix():
    train = Interactions(torch.zeros(50, dtype=torch.int64), torch.arange(50), 1000, 50)
    backbone = SimpleX(train, dim=4)
    assert sum(buffer.numel() for buffer in backbone.buffers()) == 2 * 2 * len(train) + (1000 + 1) + (50 + 1)


@pytest.mark.parametrize("gate", [-0.1, 1.5, float("nan")])
def test_bad_arguments_are_named(gate, small):
    with pytest.raises(ValueError, match="^gate must lie in 0..1, got"):
        SimpleX(small, gate=gate)


def test_training_learns(learns):
    learns("simplex", lr=0.03, epochs=4)
