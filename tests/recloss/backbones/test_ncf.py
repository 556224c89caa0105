"""The NCF-style towers against their formula written out."""

import pytest
import torch

from recloss import backbones
from recloss.backbones import NCF


def tower(state: dict[str, torch.Tensor], side: str) -> torch.Tensor:
    """Embedding plus MLP, row by row and layer by layer."""
    rows = []
    for embedding in state[side]:
        hidden = embedding
        for layer in range(0, sum(key.startswith(f"{side}_mlp") for key in state), 2):
            weight, bias = state[f"{side}_mlp.{layer}.weight"], state[f"{side}_mlp.{layer}.bias"]
            hidden = torch.stack([(w * hidden).sum() + b for w, b in zip(weight, bias, strict=True)]).clamp(min=0)
        rows.append(embedding + hidden)
    return torch.stack(rows)


@pytest.mark.parametrize("hidden", [(32, 16, 8), (3,), ()])
def test_values_and_gradients_against_the_formula(hidden, double):
    torch.manual_seed(0)
    backbone = NCF(4, 3, dim=6, hidden=hidden)
    state = dict(backbone.named_parameters())
    weight = torch.randn(7, 6)
    found = torch.cat(backbone.embed())
    expected = torch.cat([tower(state, "user"), tower(state, "item")])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    by_backbone = torch.autograd.grad((found.sigmoid() * weight).sum(), list(state.values()))
    by_oracle = torch.autograd.grad((expected.sigmoid() * weight).sum(), list(state.values()))
    assert all(bool(grad.any()) for grad in by_backbone), "every layer is trained"
    for left, right in zip(by_backbone, by_oracle, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-12)


def test_derivatives_by_differences(differentiates):
    assert differentiates(NCF(2, 2, dim=3, hidden=(2,)))


def test_sizes_of_the_layers():
    shapes = [tuple(p.shape) for name, p in NCF(3, 2).user_mlp.named_parameters() if name.endswith("weight")]
    assert shapes == [(32, 64), (16, 32), (8, 16), (64, 8)]


def test_the_towers_are_separate():
    backbone = NCF(3, 2, dim=4)
    user, item = (table.detach().clone() for table in backbone.embed())
    with torch.no_grad():
        backbone.user_mlp[-2].bias += 10
    moved, still = backbone.embed()
    assert bool((moved > user + 5).all())
    assert torch.equal(still, item)


def test_an_mlp_of_zeros_leaves_the_embeddings():
    backbone = NCF(3, 2, dim=4)
    for mlp in (backbone.user_mlp, backbone.item_mlp):
        torch.nn.utils.vector_to_parameters(torch.zeros(sum(p.numel() for p in mlp.parameters())), mlp.parameters())
    user, item = backbone.embed()
    assert torch.equal(user, backbone.user)
    assert torch.equal(item, backbone.item)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"^hidden must be sizes of at least 1, got \[32, 0\]"):
        NCF(3, 2, hidden=(32, 0))
    with pytest.raises(ValueError, match="^dim must be at least 1, got 0"):
        NCF(3, 2, dim=0)


def test_a_trial_takes_the_sizes_as_a_list():
    pytest.importorskip("pydantic")
    from pipelines.settings import component
    from recloss.errors import InputError
    from recloss.interactions import Interactions

    params = component("backbone", "ncf", {"hidden": [5, 2], "dim": 3}, "--set").params
    assert params["hidden"] == [5, 2]
    train = Interactions(torch.tensor([0]), torch.tensor([1]), 1, 2)
    assert backbones.build("ncf", params, train, seed=0).item_mlp[2].weight.shape == (2, 5)
    for hidden in ([5, 0], 5, [2.5], "ab"):
        with pytest.raises(InputError, match="hidden"):
            component("backbone", "ncf", {"hidden": hidden}, "--set")


def test_training_learns(learns):
    learns("ncf", lr=0.05, epochs=10)
