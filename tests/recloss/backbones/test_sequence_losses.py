"""The losses of sequential recommendation on SASRec, at every position: they fall, and mean what they mean on pairs."""

import copy
import math

import pytest
import torch

from recloss import backbones, losses
from recloss.evaluation import evaluate
from recloss.sequences import Sequences, Windows
from recloss.training import FitSettings, fit

N_ITEMS, LENGTH, K = 12, 6, 3
SETTINGS = FitSettings(
    lr=0.01, epochs=6, batch_size=8, negatives=6, valid_every=1, patience=99, metric="ndcg_5", cutoffs=(5,), seed=3
)


def planted(n_users: int = 24) -> tuple[Sequences, Sequences]:
    """Users walk the ring of items by steps of one, now and then two, from where they start."""
    lists = [[(start + t + t // 4) % N_ITEMS for t in range(5 + start % 6)] for start in range(n_users)]
    return of([items[:-1] for items in lists]), of([items[-1:] for items in lists])


def of(lists: list[list[int]]) -> Sequences:
    items = torch.tensor([item for items in lists for item in items])
    return Sequences(items, torch.tensor([0, *map(len, lists)]).cumsum(0), N_ITEMS)


TRAIN, VALID = planted()
PAIRS = TRAIN.interactions()


def sasrec(**params) -> backbones.SASRec:
    return backbones.build_sequential("sasrec", {"dim": 8, "length": LENGTH, "dropout": 0.0} | params, TRAIN, 0)


def built(name: str, **params) -> losses.Loss:
    sizes = {"n_users": TRAIN.n_users, "n_items": N_ITEMS, "n_pairs": len(PAIRS), "n_negatives": SETTINGS.negatives}
    return losses.build(name, params, **sizes, seed=0)


def trained(backbone, loss, **options):
    windows = Windows(TRAIN, positions="all", length=LENGTH, batch_size=SETTINGS.batch_size, seed=SETTINGS.seed)
    valid = VALID.interactions()
    return fit(backbone, loss, PAIRS, valid, SETTINGS, positives=windows, hidden=PAIRS.without(valid), **options)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("bce", {}),
        ("gbce", {"t": 0.75}),
        ("sl", {"tau": 0.2}),
        ("slatk", {"tau": 0.2, "k": K, "refresh": 2}),
        ("talos", {"tau": 0.2, "k": K}),
        ("psl", {"tau": 0.2}),
        ("ccl", {"margin": 0.3}),
        ("drrl", {"gamma_star": 2.0, "c": 2.0}),
    ],
)
def test_the_loss_falls_and_the_next_item_rises(name, params):
    loss = built(name, **params)
    init = "normal" if loss.similarity == "cosine" else "xavier_normal"
    backbone, valid = sasrec(init=init, dim=16), VALID.interactions()
    before = evaluate(backbone, loss.similarity, valid, [PAIRS.without(valid)], (5,)).mean()["ndcg_5"]
    result = trained(backbone, loss)
    first, last = result.history[0], result.history[-1]
    assert last.loss < first.loss - 0.05 * abs(first.loss)
    assert last.metrics["ndcg_5"] > before + 0.1


def test_bce_is_half_the_sum_of_the_means_over_positives_and_over_negatives():
    """SASRec's loss is that sum; a factor of two moves nothing under Adam."""
    backbone, seen = sasrec(), []

    class Watched(losses.BCE):
        def compute(self, batch):
            seen.append((batch.pos.detach(), batch.neg.detach(), super().compute(batch)))
            return seen[-1][2]

    trained(backbone, Watched())
    windows = Windows(TRAIN, positions="all", length=LENGTH, batch_size=SETTINGS.batch_size, seed=SETTINGS.seed)
    steps = -(-TRAIN.n_users // SETTINGS.batch_size)
    assert sum(len(pos) for pos, _, _ in seen[:steps]) == len(windows), "a row per position, none for padding"
    for pos, neg, value in seen:
        positives = sum(math.log1p(math.exp(-p)) for p in pos.tolist()) / len(pos)
        negatives = [math.log1p(math.exp(n)) for row in neg.tolist() for n in row]
        assert float(value.detach()) == pytest.approx((positives + sum(negatives) / len(negatives)) / 2, rel=1e-5)


@pytest.mark.parametrize("kind", ["exact", "monte_carlo"])
def test_thresholds_are_those_of_the_users_state_after_the_training_sequence(kind):
    """One user after the other, from cosines of the state of that user's own history."""
    backbone, seen = sasrec(init="normal", dropout=0.3), []

    class Watched(losses.SLatK):
        def on_epoch_start(self, context):
            super().on_epoch_start(context)
            drawn = context.negatives(torch.arange(TRAIN.n_users), 7, "threshold")
            seen.append((context.epoch, copy.deepcopy(backbone), self.thresholds.clone(), drawn))

    trained(backbone, Watched(TRAIN.n_users, N_ITEMS, tau=0.2, k=K, threshold=kind, refresh=2, samples=7))
    assert [epoch for epoch, *_ in seen] == [1, 2, 3, 4, 5, 6]
    assert not seen[0][2].any()
    for before, (epoch, model, thresholds, drawn) in zip([None, *seen], seen, strict=False):
        if epoch % 2:
            assert before is None or torch.equal(thresholds, before[2]), "kept between refreshes"
            continue
        model = model.eval()
        for user in range(TRAIN.n_users):
            items = TRAIN.items[TRAIN.offsets[user] : TRAIN.offsets[user + 1]]
            state = model.states(items[None, -LENGTH:])[0, -1]
            cosines = torch.cosine_similarity(state[None], model.item[:N_ITEMS]).tolist()
            positives = set(items.tolist())
            others = drawn[user].tolist() if kind == "monte_carlo" else set(range(N_ITEMS)) - positives
            assert not positives & set(others)
            scores = [cosines[i] for i in positives] + [cosines[i] for i in others]
            assert float(thresholds[user]) == pytest.approx(sorted(scores)[-K], abs=1e-5)
