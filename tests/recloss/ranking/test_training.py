"""Training on lists: the same bits from the same seed, resumed or not; slates; errors; better than the best feature."""

import dataclasses

import pytest
import torch

from recloss.checkpoints import load_checkpoint
from recloss.loop import DivergedError, FitSettings
from recloss.ranking import Lists, evaluate, fit_lists, losses, ndcg, scorers

SETTINGS = FitSettings(
    lr=0.01, epochs=6, batch_size=8, valid_every=1, patience=9, metric="ndcg_5", cutoffs=(1, 5), seed=4
)


@pytest.fixture
def data(lists_of):
    lengths = torch.randint(1, 20, (40,), generator=torch.Generator().manual_seed(0)).tolist()
    return lists_of([*lengths, 0], seed=1), lists_of(lengths[:15], seed=2)


def trained(data, name="selfattention", loss="listmle", settings=SETTINGS, **options):
    train, valid = data
    scorer, module = scorers.build(name, {}, train, settings.seed), losses.build(loss, {})
    result = fit_lists(scorer, module, train, valid, settings, slate=10, **options)
    return result, scorer


def bits(scorer):
    return torch.cat([p.detach().flatten() for p in scorer.parameters()])


def outcome(result):
    return [(v.epoch, v.loss, v.metrics) for v in result.history], result.best_epoch, result.best


def test_the_same_seed_gives_the_same_bits_and_another_others(data):
    (one, a), (same, b), (_, c) = (
        trained(data, settings=dataclasses.replace(SETTINGS, seed=seed)) for seed in (4, 4, 5)
    )
    assert outcome(one) == outcome(same)
    assert torch.equal(bits(a), bits(b))
    assert not torch.equal(bits(a), bits(c))


@pytest.mark.parametrize("name", ["mlp", "selfattention"])
def test_a_resumed_run_equals_an_uninterrupted_one(data, name, tmp_path):
    """Slates, dropout and the order of equal grades in ListMLE are drawn; all of it is replayed."""
    uninterrupted, expected = trained(data, name)

    def stop(validation):
        if validation.epoch == 3:
            raise KeyboardInterrupt

    file = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        trained(data, name, checkpoint=file, on_validation=stop)
    torch.rand(7)
    resumed, scorer = trained(data, name, checkpoint=file)
    assert outcome(resumed) == outcome(uninterrupted)
    assert torch.equal(bits(scorer), bits(expected))


def test_modules_hold_the_best_validated_state(data):
    result, scorer = trained(data)
    assert evaluate(scorer, data[1], (1, 5)).mean()["ndcg_5"] == result.best
    assert result.best == max(v.metrics["ndcg_5"] for v in result.history)


def test_each_epoch_sees_each_query_once_and_other_slates(data, monkeypatch):
    train, _ = data
    seen, at = [], Lists.at
    monkeypatch.setattr(Lists, "at", lambda self, places: (seen.append(places), at(self, places))[1])
    trained(data, settings=dataclasses.replace(SETTINGS, epochs=2, valid_every=2))
    batches = [p for p in seen if p.shape[1] <= 10][: 2 * 5]
    queries = [train.query[p[:, 0]] for p in batches]
    for epoch in (queries[:5], queries[5:]):
        assert torch.cat(epoch).sort().values.tolist() == list(range(40)), "the empty query is left out"
    assert torch.cat(queries[:5]).tolist() != torch.cat(queries[5:]).tolist()
    drawn = [{int(p) for b in part for p in b.flatten() if p >= 0} for part in (batches[:5], batches[5:])]
    assert drawn[0] != drawn[1]


class Echo(scorers.ListScorer):
    """Scores a document by its first feature."""

    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.ones(()))

    def forward(self, features, present):
        return features[:, :, 0] * self.factor


class Compared(losses.ListLoss):
    """Keeps the scores and grades of each batch."""

    title = "compared"

    def __init__(self):
        super().__init__()
        self.batches = []

    def compute(self, scores, grades):
        self.batches.append((scores.detach(), grades))
        return 0 * scores.sum()


def test_a_loss_gets_each_document_s_score_beside_its_grade_whatever_the_lengths():
    grades = torch.arange(1.0, 301)
    lengths = torch.tensor([1, 70, 3, 9, 40, 17, 2, 100, 8, 50])
    given = Lists(grades[:, None], grades, torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]))
    loss = Compared()
    fit_lists(Echo(), loss, given, given, dataclasses.replace(SETTINGS, epochs=1, batch_size=5, lr=1e-9), slate=60)
    present = torch.cat([g[g >= 0] for _, g in loss.batches])
    assert len(present) == int(lengths.clamp(max=60).sum())
    for scores, expected in loss.batches:
        torch.testing.assert_close(scores[expected >= 0], expected[expected >= 0])


def test_learns_more_than_its_best_feature(lists_of):
    train, valid = lists_of([12] * 120, seed=1), lists_of([12] * 60, seed=2)
    settings = dataclasses.replace(SETTINGS, epochs=15, batch_size=16, patience=20)
    best_feature = ndcg(valid.features[:, 0], valid, [5]).mean()["ndcg_5"]
    for loss in ("sl", "neuralndcg"):
        result, _ = trained((train, valid), "mlp", loss, settings)
        assert result.best > best_feature + 0.02, loss


def test_a_loss_that_is_not_finite_is_named(data):
    train, valid = data
    scorer = scorers.build("mlp", {}, train, 0)
    torch.nn.init.constant_(scorer.network[0].weight, torch.inf)
    with pytest.raises(DivergedError, match="the loss is nan in epoch 1, step 1"):
        fit_lists(scorer, losses.build("sl", {}), train, valid, SETTINGS)


def test_a_checkpoint_of_other_settings_is_refused(data, tmp_path):
    file = tmp_path / "checkpoint.pt"
    trained(data, checkpoint=file)
    assert set(load_checkpoint(file)) >= {"backbone", "loss", "optimizer", "progress", "settings"}
    with pytest.raises(ValueError, match="another lr"):
        trained(data, settings=dataclasses.replace(SETTINGS, lr=1.0), checkpoint=file)


def test_what_cannot_work_is_refused(data, lists_of):
    train, valid = data
    scorer, loss = scorers.build("mlp", {}, train, 0), losses.build("sl", {})
    with pytest.raises(ValueError, match="slate must be at least 2, got 1"):
        fit_lists(scorer, loss, train, valid, SETTINGS, slate=1)
    with pytest.raises(ValueError, match="the training lists have no document"):
        fit_lists(scorer, loss, train.of(torch.tensor([40])), valid, SETTINGS)
