"""Matrix factorisation: its tables, and how they start."""

import math

import pytest
import torch

from recloss.backbones import MF


def test_embeddings_are_the_trained_tables_themselves():
    backbone = MF(4, 3, dim=2)
    user, item = backbone.embed()
    assert (user.shape, item.shape) == ((4, 2), (3, 2))
    (user.sum() * 2 + item.sum() * 3).backward()
    assert backbone.user.grad.tolist() == [[2.0, 2.0]] * 4
    assert backbone.item.grad.tolist() == [[3.0, 3.0]] * 3
    assert set(backbone.state_dict()) == {"user", "item"}
    assert backbone.auxiliary_loss(torch.tensor([0]), torch.tensor([1])) is None


@pytest.mark.parametrize(
    ("init", "deviation", "largest"),
    [
        ("normal", 1.0, math.inf),
        ("xavier_normal", math.sqrt(2 / (2000 + 50)), math.inf),
        ("xavier_uniform", math.sqrt(2 / (2000 + 50)), math.sqrt(6 / (2000 + 50))),
    ],
)
def test_tables_start_from_the_stated_law(init, deviation, largest):
    torch.manual_seed(0)
    user, item = (table.detach() for table in MF(2000, 2000, dim=50, init=init).embed())
    for table in (user, item):
        assert float(table.std()) == pytest.approx(deviation, rel=0.01)
        assert float(table.mean()) == pytest.approx(0, abs=5 * deviation / math.sqrt(table.numel()))
        assert float(table.abs().max()) <= largest
    kurtosis = float((user / user.std()).pow(4).mean())
    assert kurtosis == pytest.approx(1.8 if init == "xavier_uniform" else 3.0, rel=0.05)
    assert not torch.equal(user, item)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="init must be one of normal, xavier_normal, xavier_uniform, got 'zeros'"):
        MF(4, 3, init="zeros")
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        MF(4, 3, dim=0)
