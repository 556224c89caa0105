"""What `diagnose` tells of a model, against loops over training pairs and users."""

import json
import math

import numpy as np
import pytest
import torch

from pipelines.prepare import load
from pipelines.settings import ResourceSettings, make_trial
from pipelines.train import journal, tasks, validations
from pipelines.train.diagnostics import diagnose, top_share
from pipelines.train.folder import DIAGNOSTICS, TEST_USERS
from pipelines.train.scoring import score_test
from pipelines.train.tasks.pairs import build, training_splits
from pipelines.train.trial import train_trial
from recloss.losses import LOSSES
from recloss.sampling import Sampler
from recloss.training import Validation

N = 6
SMALL = {"train.epochs": 4, "train.valid_every": 2, "train.batch_size": 64, "backbone.dim": 8, "optim.lr": 0.1}
CUT = {"protocol.cutoffs": [5], "protocol.metric": "ndcg_5"}


class Known(Sampler):
    """Negatives that a loop can name: a function of the user alone."""

    name = "known"

    def sample(self, users, positions, n, key, batch=None):
        return self.of(users, n)

    def of(self, users, n):
        return (users[:, None] * 7 + torch.arange(n) * 3) % self.train.n_items

    def log_q(self, users, items):
        return torch.zeros_like(items, dtype=torch.float32)


def setup(prepared, loss, **dotted):
    negatives = {"train.negatives": 1 if loss == "bpr" else N}
    dotted = {key.replace("__", "."): value for key, value in dotted.items()}
    trial = make_trial(load(prepared).fingerprint, "mf", loss, SMALL | CUT | negatives | dotted)
    train, _ = training_splits(prepared, trial.data)
    model, criterion = build(trial, train)
    return trial, model, criterion, train, Known(train)


def pairs(train):
    return list(zip(train.user.tolist(), train.item.tolist(), strict=True))


def scores(model, similarity):
    with torch.no_grad():
        u, v = (table.double().numpy() for table in model.embed())
    if similarity == "cosine":
        u, v = (table / np.linalg.norm(table, axis=1, keepdims=True) for table in (u, v))
    return u @ v.T


def largest(values):
    """Share of the 5 % largest, by sorting."""
    ordered = sorted(values, reverse=True)
    return sum(ordered[: max(1, round(0.05 * len(ordered)))]) / sum(ordered)


def test_gradient_shares_and_scores_of_sl_by_a_loop_over_all_pairs(prepared):
    trial, model, loss, train, sampler = setup(prepared, "sl", loss__tau=0.3)
    found, s = diagnose(trial, model, loss, train, sampler), scores(model, "cosine")
    positive, negative, of_negative = [], [], []
    for user, item in pairs(train):
        own = [s[user, j] for j in sampler.of(torch.tensor([user]), N)[0].tolist()]
        total = sum(math.exp(x / 0.3) for x in own)
        positive.append(s[user, item])
        negative += own
        of_negative += [math.exp(x / 0.3) / total / 0.3 for x in own]
    assert (found["pairs"], found["negatives"]) == (len(positive), len(negative))
    assert found["gradient"]["negative"] == pytest.approx(largest(of_negative), rel=1e-5)
    assert found["gradient"]["positive"] == pytest.approx(largest([1.0] * len(positive)), rel=1e-5)
    for kind, values in (("positive", positive), ("negative", negative)):
        edges = found["scores"]["edges"]
        counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]  # found in float32
        assert found["scores"][kind]["counts"] == counts.tolist()
        levels = np.quantile(values, found["scores"]["quantile_levels"], method="nearest")
        np.testing.assert_allclose(found["scores"][kind]["quantiles"], levels, atol=1e-5)


def test_gradients_of_bpr_with_its_batches_of_different_size(prepared):
    trial, model, loss, train, sampler = setup(prepared, "bpr", train__batch_size=50)
    assert len(train) % 50
    found, s = diagnose(trial, model, loss, train, sampler), scores(model, "dot")
    force = []
    for user, item in pairs(train):
        j = int(sampler.of(torch.tensor([user]), 1)[0, 0])
        force.append(1 / (1 + math.exp(s[user, item] - s[user, j])))
    assert found["gradient"]["negative"] == pytest.approx(largest(force), rel=1e-5)
    assert found["gradient"]["positive"] == pytest.approx(largest(force), rel=1e-5)


def test_the_negatives_of_a_loss_over_all_items_are_all_but_the_positive(prepared):
    trial, model, loss, train, sampler = setup(prepared, "sl", loss__over="all", loss__tau=0.3)
    found, s = diagnose(trial, model, loss, train, sampler), scores(model, "cosine")
    of_negative = []
    for user, item in pairs(train):
        terms = [math.exp(s[user, j] / 0.3) for j in range(train.n_items) if j != item]
        of_negative += [term / sum(terms) / 0.3 for term in terms]
    assert found["negatives"] == len(of_negative) == len(train) * (train.n_items - 1)
    assert found["gradient"]["negative"] == pytest.approx(largest(of_negative), rel=1e-5)


def test_thresholds_by_sorting_every_users_scores(prepared):
    trial, model, loss, train, sampler = setup(prepared, "talos", loss__k=5)
    with torch.no_grad():
        loss.threshold.value.copy_(torch.linspace(0.1, 0.9, train.n_users))
    found, s = diagnose(trial, model, loss, train, sampler)["threshold"], scores(model, "cosine")
    exact = np.array([sorted(row, reverse=True)[4] for row in s.tolist()])
    estimated = np.linspace(0.1, 0.9, train.n_users)
    assert (found["k"], found["users"]) == (5, train.n_users)
    assert found["mean_absolute_error"] == pytest.approx(np.abs(estimated - exact).mean(), rel=1e-5)
    assert found["mean_error"] == pytest.approx((estimated - exact).mean(), rel=1e-5)
    assert found["correlation"] == pytest.approx(np.corrcoef(exact, estimated)[0, 1], abs=1e-5)
    inside = (np.clip(x, found["edges"][0], found["edges"][-1]) for x in (estimated, exact))
    assert found["joint"] == np.histogram2d(*inside, [found["edges"]] * 2)[0].tolist()


@pytest.mark.parametrize(("name", "settings"), [("ccl", {"loss__margin": 0.1}), ("drrl", {"loss__beta_init": 0.1})])
def test_negatives_up_to_the_margin_have_no_gradient(prepared, name, settings):
    trial, model, loss, train, sampler = setup(prepared, name, **settings)
    found, s = diagnose(trial, model, loss, train, sampler), scores(model, "cosine")
    own = [s[u, j] for u, _ in pairs(train) for j in sampler.of(torch.tensor([u]), N)[0].tolist()]
    share = sum(score <= 0.1 for score in own) / len(own)
    assert 0 < share < 1
    assert found["gradient"]["zero_negatives"] == pytest.approx(share)
    assert "threshold" not in found


def test_thresholds_that_do_not_vary_have_no_correlation_and_unused_ones_are_not_told(prepared):
    assert diagnose(*setup(prepared, "talos", loss__k=5))["threshold"]["correlation"] is None
    assert "threshold" not in diagnose(*setup(prepared, "talos", loss__k=5, loss__variant="no_quantile"))
    assert "threshold" not in diagnose(*setup(prepared, "sl"))


@pytest.mark.parametrize("name", [n for n, cls in LOSSES.items() if "soft_targets" not in cls.needs])
def test_every_loss_can_be_diagnosed_and_is_left_as_it_was(prepared, name):
    k = {"loss__k": 5} if "k" in make_trial("0" * 64, "mf", name, {}).loss.params else {}
    trial, model, loss, train, sampler = setup(prepared, name, **k)
    before = {key: value.clone() for module in (model, loss) for key, value in module.state_dict().items()}
    drawn = torch.random.get_rng_state()
    text = json.dumps(diagnose(trial, model, loss, train, sampler), allow_nan=False)
    assert len(text) < 50_000
    assert torch.equal(drawn, torch.random.get_rng_state())
    assert (model.training, loss.training) == (True, True)
    for key, value in {k: v for module in (model, loss) for k, v in module.state_dict().items()}.items():
        assert torch.equal(value, before[key]), key


def test_the_top_share_takes_one_sample_at_least_and_knows_no_share_of_nothing():
    assert top_share(torch.tensor([1.0, 3.0]), 0.05) == 0.75
    assert top_share(torch.ones(40), 0.05) == 0.05
    assert top_share(torch.zeros(40), 0.05) is None


def test_scores_on_test_are_the_same_bits_without_the_diagnosis(prepared, tmp_path, monkeypatch):
    trial, *_ = setup(prepared, "talos", loss__k=5)
    metrics = []
    for name in ("with", "without"):
        folder = tmp_path / name
        train_trial(trial, prepared, folder, ResourceSettings(), lambda validation: None)
        if name == "without":
            monkeypatch.setattr(tasks.pairs, "diagnose", lambda *given: {})
        metrics.append(score_test(trial, prepared, folder))
    assert metrics[0] == metrics[1]
    assert (tmp_path / "with" / TEST_USERS).read_bytes() == (tmp_path / "without" / TEST_USERS).read_bytes()
    found = json.loads((tmp_path / "with" / DIAGNOSTICS).read_text())
    assert found["threshold"]["mean_absolute_error"] < 1
    assert sorted(path.suffix for path in (tmp_path / "with").iterdir()) == [".json", ".jsonl", ".parquet", ".pt"]


def test_the_mean_threshold_of_each_validation_is_in_the_journal_and_the_models_is_the_best_epochs(prepared, tmp_path):
    trial, *_ = setup(prepared, "talos", loss__k=5)
    train_trial(trial, prepared, tmp_path, ResourceSettings(), lambda validation: None)
    events = journal.read(tmp_path)
    told = {e["epoch"]: e["metrics"]["train/threshold"] for e in events if e["event"] == "valid"}
    best = torch.load(tmp_path / "model.pt", weights_only=True)["loss"]["threshold.value"]
    assert len(set(told.values())) == 2
    assert told[events[-1]["best_epoch"]] == float(best.mean())


@pytest.mark.parametrize("thresholds", [(), (0.25, 0.0)])
def test_a_validation_comes_back_from_its_event(thresholds):
    validation = Validation(5, 0.1, {"ndcg_5": 0.2}, 3.0, 4.0, *thresholds)
    event = validations.event(validation)
    assert validations.from_event(event) == validation
    told = {name: value for name, value in event["metrics"].items() if "threshold" in name}
    assert told == dict(zip(("train/threshold", "train/threshold_error"), thresholds, strict=False))
