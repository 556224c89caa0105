"""NDCG of graded lists: by hand, against two established evaluators, ties, and queries without a relevant document."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from recloss.ranking import Lists, evaluate, ndcg, scorers
from recloss.ranking.metrics import PLACES, scored
from recloss.ties import item_order

CUTOFFS = (1, 3, 5, 10)


def lists(grades_of, n_features=1):
    grades = torch.tensor([g for one in grades_of for g in one], dtype=torch.float32)
    offsets = torch.tensor([0, *(len(one) for one in grades_of)]).cumsum(0)
    return Lists(torch.zeros(len(grades), n_features), grades, offsets)


def test_by_hand():
    found = ndcg(torch.tensor([3.0, 2, 1, 9, 8]), lists([[0, 2, 1], [1, 0]]), [1, 2, 5])
    assert found.users.tolist() == [0, 1]
    discount = [1, 1 / math.log2(3), 1 / 2]
    full = (3 * discount[1] + 1 * discount[2]) / (3 * discount[0] + 1 * discount[1])
    assert found.values["ndcg_1"].tolist() == [0, 1]
    assert found.values["ndcg_2"][0] == pytest.approx(3 * discount[1] / (3 + discount[1]), rel=1e-12)
    assert found.values["ndcg_5"].tolist() == pytest.approx([full, 1], rel=1e-12)


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_agrees_with_scikit_learn_fed_with_gains(seed):
    rng = np.random.default_rng(seed)
    grades_of = [rng.integers(0, 5, rng.integers(2, 15)) for _ in range(6)]
    grades_of[0][0] = 1
    scores = torch.tensor(rng.permutation(sum(map(len, grades_of))), dtype=torch.float32)
    found = ndcg(scores, lists(grades_of), CUTOFFS)
    pieces = dict(enumerate(scores.split([len(g) for g in grades_of])))
    assert found.users.tolist() == [q for q, g in enumerate(grades_of) if g.max() > 0]
    for place, q in enumerate(found.users.tolist()):
        for k in CUTOFFS:
            expected = ndcg_score([2.0 ** grades_of[q] - 1], [pieces[q].numpy()], k=k)
            assert float(found.values[f"ndcg_{k}"][place]) == pytest.approx(expected, rel=1e-12)


def test_agrees_with_trec_eval_fed_with_gains():
    pytrec_eval = pytest.importorskip("pytrec_eval")
    rng = np.random.default_rng(5)
    grades_of = [rng.integers(0, 4, n) for n in (4, 12, 30, 7)]
    scores = torch.tensor(rng.permutation(53), dtype=torch.float32)
    names = [[f"d{i}" for i in range(len(g))] for g in grades_of]
    qrel = {str(q): {d: int(2**y - 1) for d, y in zip(names[q], g, strict=True)} for q, g in enumerate(grades_of)}
    pieces = scores.split([len(g) for g in grades_of])
    run = {str(q): dict(zip(names[q], map(float, s), strict=True)) for q, s in enumerate(pieces)}
    expected = pytrec_eval.RelevanceEvaluator(qrel, {"ndcg_cut.1,3,5,10"}).evaluate(run)
    found = ndcg(scores, lists(grades_of), CUTOFFS)
    for place, q in enumerate(found.users.tolist()):
        for k in CUTOFFS:
            assert float(found.values[f"ndcg_{k}"][place]) == pytest.approx(expected[str(q)][f"ndcg_cut_{k}"], abs=1e-9)


def test_queries_without_a_relevant_document_are_treated_as_asked():
    given = lists([[0, 0], [1, 0], [], [0]])
    scores = torch.tensor([1.0, 2, 1, 2, 3])
    kept = 1 / math.log2(3)
    for rule, users, values in (
        ("left out", [1], [kept]),
        ("one", [0, 1, 3], [1, kept, 1]),
        ("zero", [0, 1, 3], [0, kept, 0]),
    ):
        found = ndcg(scores, given, [5], rule)
        assert found.users.tolist() == users, rule
        assert found.values["ndcg_5"].tolist() == pytest.approx(values), rule
    assert ndcg(scores, given, [5]).mean() == {"ndcg_5": pytest.approx(kept)}


def test_equal_scores_are_no_better_than_chance_even_in_sorted_data():
    rng = np.random.default_rng(0)
    grades_of = [-np.sort(-rng.integers(0, 5, 12)) for _ in range(2000)]
    given = lists(grades_of)
    found = ndcg(torch.zeros(len(given)), given, [5]).mean()["ndcg_5"]
    chance = ndcg(torch.tensor(rng.random(len(given))), given, [5]).mean()["ndcg_5"]
    assert found == pytest.approx(chance, abs=0.01)
    assert found < 0.6


def test_equal_scores_rank_in_the_order_of_the_items_hash():
    given = lists([[0, 1, 2, 3, 0, 1]])
    order = item_order(6)
    by_hash = torch.empty(6)
    by_hash[order] = torch.arange(6, 0, -1).float()
    tied, explicit = (ndcg(scores, given, [1, 3, 6]).mean() for scores in (torch.full((6,), 7.0), by_hash))
    assert tied == explicit


def test_a_scorer_sees_all_documents_of_each_query_whatever_the_blocks(lists_of, monkeypatch):
    given = lists_of([3, 40, 0, 1, 17, 5])
    scorer = scorers.build("selfattention", {}, given, seed=0)
    whole = scored(scorer, given)
    monkeypatch.setattr("recloss.ranking.metrics.PLACES", 20)
    torch.testing.assert_close(scored(scorer, given), whole, rtol=1e-5, atol=1e-6)
    assert evaluate(scorer, given, [5]).users.tolist() == ndcg(whole, given, [5]).users.tolist()
    assert scorer.training, "as it was"
    assert PLACES > 20


@pytest.mark.parametrize(
    ("scores", "cutoffs", "rule", "message"),
    [
        ([1.0], [5], "left out", r"\(1,\) scores of 2 documents"),
        ([1.0, 2], [0, 5], "left out", r"every K must be at least 1, got \[0, 5\]"),
        ([1.0, 2], [5], "skip", "no_relevant must be one of left out, one, zero, got 'skip'"),
        ([1.0, 2], [5], "left out", "no query has a relevant document"),
    ],
)
def test_mistakes_are_named(scores, cutoffs, rule, message):
    with pytest.raises(ValueError, match=message):
        ndcg(torch.tensor(scores), lists([[0, 0]]), cutoffs, rule)


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(FloatingPointError, match="not finite"):
        ndcg(torch.tensor([1.0, math.nan]), lists([[0, 1]]), [5])
