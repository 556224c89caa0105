"""Any loss that needs a top-K threshold trains with any estimator of it, on data with planted groups."""

import inspect
import math
from dataclasses import replace

import pytest
import torch

from recloss import losses
from recloss.backbones import MF
from recloss.context import Context
from recloss.interactions import Interactions
from recloss.losses import LOSSES
from recloss.losses.base import ThresholdLoss
from recloss.similarity import prepare
from recloss.thresholds import THRESHOLDS, build_threshold
from recloss.training import FitSettings, fit

K, N_NEGATIVES = 5, 8
WITH_A_THRESHOLD = [name for name, cls in LOSSES.items() if issubclass(cls, ThresholdLoss)]
SETTINGS = FitSettings(
    lr=0.05, epochs=5, batch_size=128, negatives=N_NEGATIVES, valid_every=1, patience=9, metric="ndcg_5", cutoffs=(5,)
)


def planted(n_users: int = 40, n_items: int = 30) -> tuple[Interactions, Interactions]:
    """Users like the items of their group of three; every fifth of those is for validation."""
    generator = torch.Generator().manual_seed(0)
    liked = torch.rand(n_users, n_items, generator=generator) < 0.05
    liked |= (torch.arange(n_users)[:, None] % 3 == torch.arange(n_items) % 3) & (
        torch.rand(n_users, n_items, generator=generator) < 0.8
    )
    user, item = liked.nonzero(as_tuple=True)
    held_out = torch.arange(len(user)) % 5 == 0
    train, valid = (Interactions(user[rows], item[rows], n_users, n_items) for rows in (~held_out, held_out))
    return train, valid


def build(name: str, train: Interactions, **params: object) -> ThresholdLoss:
    sizes = {"n_users": train.n_users, "n_items": train.n_items, "n_pairs": len(train), "n_negatives": N_NEGATIVES}
    return losses.build(name, {"k": K, "threshold_lr": 0.01, "samples": 20} | params, **sizes, seed=0)


def all_scores(backbone: MF, similarity: str) -> torch.Tensor:
    user, item = (prepare(table.detach(), similarity) for table in backbone.embed())
    return user @ item.T


def kth_best(scores: torch.Tensor, k: int = K) -> torch.Tensor:
    return scores.sort(1, descending=True).values[:, k - 1]


def kth_of_positives_and(drawn: torch.Tensor, train: Interactions, scores: torch.Tensor) -> torch.Tensor:
    values = []
    for u, row in enumerate(scores.tolist()):
        candidates = [row[i] for i in train.item[train.user == u].tolist() + drawn[u].tolist()]
        values.append(sorted(candidates, reverse=True)[K - 1])
    return torch.tensor(values)


def test_there_are_losses_with_a_threshold():
    assert {"slatk", "talos"} <= set(WITH_A_THRESHOLD)


@pytest.mark.parametrize("name", WITH_A_THRESHOLD)
def test_every_argument_of_the_estimators_is_the_losss(name):
    parameters = inspect.signature(LOSSES[name]).parameters
    assert {"k", "threshold", "threshold_lr", "refresh", "samples"} <= parameters.keys()
    assert parameters["threshold"].default in THRESHOLDS


@pytest.mark.parametrize("kind", THRESHOLDS)
@pytest.mark.parametrize("name", WITH_A_THRESHOLD)
def test_it_trains_with_any_estimator(name, kind):
    train, valid = planted()
    backbone, loss = MF(train.n_users, train.n_items, dim=8), build(name, train, threshold=kind, refresh=2)
    assert isinstance(loss.threshold, THRESHOLDS[kind])
    after: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def keep(validation):
        scores, value = all_scores(backbone, loss.similarity), loss.threshold.value.detach().clone()
        after[validation.epoch] = scores, value
        assert validation.threshold == pytest.approx(float(value.mean()), abs=1e-6)
        assert validation.threshold_error == pytest.approx(float((value - kth_best(scores)).abs().mean()), abs=1e-6)

    result = fit(backbone, loss, train, valid, SETTINGS, on_validation=keep)
    assert all(math.isfinite(validation.loss) for validation in result.history)
    value = after[5][1]
    assert bool((value != 0).all())
    if kind in ("exact", "monte_carlo"):
        assert torch.equal(after[1][1], torch.zeros(train.n_users)), "the first refresh is in epoch 2"
        assert torch.equal(value, after[4][1]), "none is in epoch 5"
    if kind == "exact":
        torch.testing.assert_close(value, kth_best(after[3][0]), rtol=0, atol=1e-6)
    elif kind == "monte_carlo":
        drawn = Context(4, train, tuple).negatives(torch.arange(train.n_users), 20, "threshold")
        torch.testing.assert_close(value, kth_of_positives_and(drawn, train, after[3][0]), rtol=0, atol=1e-6)
    else:
        assert not torch.equal(value, after[4][1])


def test_margins_that_estimate_no_top_k_threshold_have_no_error():
    train, valid = planted()
    loss, means = losses.LOSSES["drrl"](train.n_users), []
    fit(
        MF(train.n_users, train.n_items, dim=8), loss, train, valid, SETTINGS,
        on_validation=lambda validation: means.append((validation, float(loss.beta.mean()))),
    )  # fmt: skip
    assert len({mean for _, mean in means}) == SETTINGS.epochs
    assert all(validation.threshold == pytest.approx(mean) for validation, mean in means)
    assert {validation.threshold_error for validation, _ in means} == {None}


@pytest.mark.parametrize("kind", THRESHOLDS)
def test_the_estimator_decides_the_gradient_of_the_model_only_through_its_thresholds(kind):
    """With the same thresholds, SL@K's gradient is the same whichever estimator they come from."""
    train, _ = planted()
    generator = torch.Generator().manual_seed(4)
    thresholds = torch.rand(train.n_users, generator=generator) - 0.5
    users = torch.arange(12)
    gradients = []
    for other in ("exact", kind):
        loss = build("slatk", train, threshold=other)
        loss.threshold.value.data.copy_(thresholds)
        scores = torch.linspace(-0.9, 0.9, 12 * 9).view(12, 9).requires_grad_()
        fields = {"user": users, "positives": train.of(users).with_values(torch.zeros(len(train.of(users).values)))}
        batch = losses.Batch(scores[:, 0], scores[:, 1:], **{name: fields[name] for name in loss.needs})
        loss(batch).backward()
        gradients.append(scores.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)


def test_the_order_of_the_estimators_errors_after_training():
    """Exact has none, the learned thresholds are nearer than where they started, and few samples are biased low for
    users with fewer than K positives: the more samples, the nearer the exact threshold they come."""
    train, valid = planted()
    k = 12
    backbone, loss = MF(train.n_users, train.n_items, dim=8), build("talos", train, k=k, threshold_lr=0.03)
    fit(backbone, loss, train, valid, replace(SETTINGS, epochs=60, valid_every=60, batch_size=len(train)))
    scores = all_scores(backbone, "cosine")
    exact = kth_best(scores, k)
    context = Context(1, train, lambda: (scores, torch.eye(train.n_items)))
    poor = train.degrees < k - 2
    assert int(poor.sum()) > 20

    def error(value):
        return (value - exact).abs().mean().item()

    def estimate(kind, samples=1):
        estimator = build_threshold(kind, train.n_users, train.n_items, k=k, lr=1.0, refresh=1, samples=samples)
        estimator.on_epoch_start(context)
        return estimator.value

    assert error(estimate("exact")) < 1e-6
    assert error(loss.threshold.value.detach()) < 0.5 * error(torch.zeros_like(exact))
    few, more = (estimate("monte_carlo", samples) for samples in (2, 8))
    assert (few < exact)[poor].float().mean().item() > 0.8
    assert (few - exact)[poor].mean().item() < -0.2
    assert 0 < error(more) < error(few)
