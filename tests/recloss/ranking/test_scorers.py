"""Scorers: padding, the order of documents, the scale of features, construction."""

import pytest
import torch

from recloss.errors import InputError
from recloss.ranking import Lists, scorers
from recloss.ranking.scorers import SCORERS, build
from recloss.ranking.scorers.base import Scale

NAMES = list(SCORERS)


@pytest.fixture
def train(lists_of):
    return lists_of([9, 4, 1, 6])


@pytest.mark.parametrize("name", NAMES)
def test_padded_lists_are_scored_as_unpadded_ones(name, train):
    scorer = build(name, {}, train, seed=0).eval()
    places = train.places(torch.arange(4))
    features, present = train.at(places)[0], places >= 0
    features[~present] = 1e3
    padded = scorer(features, present)
    for q in range(4):
        n = int(present[q].sum())
        alone = scorer(features[q : q + 1, :n], present[q : q + 1, :n])[0]
        torch.testing.assert_close(padded[q, :n], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_scores_move_with_their_documents(name, train):
    scorer = build(name, {}, train, seed=0).eval()
    features, _ = train.padded(torch.tensor([0]))
    present, order = torch.ones(1, 9, dtype=torch.bool), torch.randperm(9)
    moved = scorer(features[:, order], present)
    torch.testing.assert_close(moved, scorer(features, present)[:, order], rtol=1e-5, atol=1e-6)


def test_self_attention_sees_the_list_and_the_mlp_does_not(train):
    features, _ = train.padded(torch.tensor([0]))
    present = torch.ones(1, 9, dtype=torch.bool)
    other = features.clone()
    other[0, 8] += 1
    for name, sees in (("mlp", False), ("selfattention", True)):
        scorer = build(name, {}, train, seed=0).eval()
        same = torch.equal(scorer(features, present)[0, :8], scorer(other, present)[0, :8])
        assert same != sees, name


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_list_among_others_gives_no_nan(name, train):
    scorer = build(name, {}, train, seed=0)
    features, _ = train.padded(torch.tensor([0, 1]))
    present = torch.zeros(2, 9, dtype=torch.bool)
    present[1, :4] = True
    scorer(features, present)[1, :4].sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in scorer.parameters())


def test_features_are_scaled_by_the_training_documents(train):
    scale = Scale(train, "standard")
    scaled = scale(train.features)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(scaled.std(0, correction=0), torch.ones(5), atol=1e-5, rtol=0)
    assert set(scale.state_dict()) == {"mean", "factor"}


def test_a_feature_that_is_constant_in_training_gives_0_everywhere():
    features = torch.tensor([[0.1, 5], [0.1, 7], [0.1, 9]])
    scale = Scale(Lists(features, torch.zeros(3), torch.tensor([0, 3])), "standard")
    assert scale(torch.tensor([[123.0, 7]])).tolist() == [[0, 0]]


def test_the_logarithm_keeps_signs_and_comes_before_the_scale():
    features = torch.tensor([[-100.0], [0], [1e6]])
    scale = Scale(Lists(features, torch.zeros(3), torch.tensor([0, 3])), "log")
    logs = torch.tensor([-101.0, 1, 1e6 + 1]).abs().log() * torch.tensor([-1, 1, 1])
    expected = (logs - logs.mean()) / logs.std(correction=0)
    torch.testing.assert_close(scale(features)[:, 0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_carries_the_scale_to_other_data(name, train, lists_of):
    scorer = build(name, {}, train, seed=0).eval()
    other = build(name, {}, lists_of([30], seed=7), seed=3).eval()
    other.load_state_dict(scorer.state_dict())
    features, present = torch.randn(1, 4, 5), torch.ones(1, 4, dtype=torch.bool)
    assert torch.equal(scorer(features, present), other(features, present))


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_determines_the_scorer_and_leaves_the_global_generator(name, train):
    state = torch.get_rng_state()
    one, same, other = (build(name, {}, train, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert any(not torch.equal(one[k], other[k]) for k in one)


def test_sizes_of_the_self_attention():
    train = Lists(torch.zeros(1, 46), torch.zeros(1), torch.tensor([0, 1]))
    shapes = {name: tuple(p.shape) for name, p in build("selfattention", {}, train, 0).named_parameters()}
    assert shapes["embed.weight"] == (96, 46)
    assert shapes["blocks.1.network.0.weight"] == (384, 96)
    assert shapes["blocks.0.qkv.weight"] == (288, 96)
    assert "blocks.2.qkv.weight" not in shapes


def test_a_linear_scorer_is_linear(train):
    scorer = build("mlp", {"layers": 0}, train, seed=0)
    weight, bias = scorer.network[0].weight[0], scorer.network[0].bias
    features, _ = train.padded(torch.tensor([1]))
    scaled = (features - train.features.mean(0)) / train.features.std(0, correction=0)
    found = scorer(features, torch.ones(1, 4, dtype=torch.bool))
    torch.testing.assert_close(found, scaled @ weight + bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("mlp", {"width": 0}, "width must be at least 1, got 0"),
        ("mlp", {"layers": -1}, "layers must be at least 0"),
        ("mlp", {"dropout": 1.0}, r"dropout must lie in \[0, 1\)"),
        ("mlp", {"scaling": "sqrt"}, "scaling must be one of standard, log, got 'sqrt'"),
        ("selfattention", {"heads": 5}, r"heads must divide dim \(96\), got 5"),
        ("selfattention", {"blocks": 0}, "blocks must be at least 1"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(name, params, message, train):
    with pytest.raises(ValueError, match=message):
        build(name, params, train, seed=0)


def test_names():
    assert scorers.get("MLP") is scorers.MLP
    with pytest.raises(InputError, match=r"unknown backbone over lists 'selfattn'; did you mean 'selfattention'\?"):
        scorers.get("selfattn")
