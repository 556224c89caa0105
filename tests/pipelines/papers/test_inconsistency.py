"""The simulation of the Talos paper's table 1.1, against its definitions written as loops."""

import math

import pytest
import torch

from pipelines.commands import run
from pipelines.papers.inconsistency import (
    ITEMS,
    POSITIVES,
    REFERENCES,
    auc,
    dcg,
    dcg_at_k,
    hits,
    inconsistent,
    llpauc,
    rankings,
)


def by_loops(ranking, name):
    places = [place for place, relevant in enumerate(ranking) if relevant]
    negatives = [place for place, relevant in enumerate(ranking) if not relevant]
    if name == "NDCG":
        return sum(1 / math.log2(place + 2) for place in places)
    if name == "NDCG@20":
        return sum(1 / math.log2(place + 2) for place in places if place < 20)
    if name == "LLPAUC":
        places = places[: math.ceil(len(places) / 2)]
        negatives = negatives[: math.ceil(len(negatives) / 2)]
    return sum(p < n for p in places for n in negatives)


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_by_its_definition(name):
    drawn = rankings(1, 199, 20, seed=3)
    expected = [by_loops(ranking, name) for pair in drawn.tolist() for ranking in pair]
    assert REFERENCES[name](drawn).flatten().tolist() == pytest.approx(expected, rel=1e-12)


def test_the_rankings_of_the_papers_figure():
    """Talos, figure 1: positives at 1, 4, 5, 8, 9 of 10, and at 1, 4, 6, 7, 8."""
    shown = torch.zeros(2, 10, dtype=torch.float64)
    shown[0, [0, 3, 4, 7, 8]] = 1
    shown[1, [0, 3, 5, 6, 7]] = 1
    ideal = dcg(torch.tensor([1.0] * 5 + [0.0] * 5))
    assert (auc(shown) / 25).tolist() == pytest.approx([0.52, 0.56])
    assert (dcg(shown) / ideal).tolist() == pytest.approx([0.8255, 0.8261], abs=5e-5)


def test_two_rankings_of_a_pair_have_as_many_positives():
    drawn = rankings(1, 199, 500, seed=0)
    assert drawn.shape == (500, 2, ITEMS)
    n = drawn.sum(-1)
    assert torch.equal(n[:, 0], n[:, 1])
    assert (int(n.min()), int(n.max())) == (1, 199)
    assert torch.equal(drawn, rankings(1, 199, 500, seed=0))


@pytest.mark.parametrize(
    ("one", "other", "strict", "with_ties"),
    [
        ([0, 30], [21, 22], 0.0, 0.0),  # more hits and a larger NDCG
        ([19, 199], [20, 21], 1.0, 1.0),  # a hit more, a smaller AUC
        ([0, 1], [2, 3], 0.0, 1.0),  # as many hits, a larger AUC
        ([0, 1], [0, 1], 0.0, 0.0),
    ],
)
def test_when_a_pair_is_inconsistent(one, other, strict, with_ties):
    pair = torch.zeros(1, 2, ITEMS, dtype=torch.float64)
    pair[0, 0, one] = 1
    pair[0, 1, other] = 1
    assert (inconsistent(pair, auc, False), inconsistent(pair, auc, True)) == (strict, with_ties)


def test_what_the_paper_concludes_holds_under_every_reading():
    for bounds in POSITIVES.values():
        drawn = rankings(*bounds, 2_000, seed=1)
        for ties in (False, True):
            of_auc, of_ndcg, of_ndcg_at_k = (inconsistent(drawn, metric, ties) for metric in (auc, dcg, dcg_at_k))
            assert of_auc > of_ndcg > of_ndcg_at_k


def test_hits_and_lower_left_pairs_of_a_small_ranking():
    ranking = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0])
    assert float(hits(ranking)) == 3
    assert float(llpauc(ranking)) == 3  # positives at 0 and 2, negatives at 1 and 3


def test_the_report_stands_without_any_run(tmp_path, capsys):
    assert run(["paper", "report", "talos/table-1.1", "--storage", str(tmp_path / "none")]) == 0
    text = capsys.readouterr().out
    assert "| NDCG@20 | 17.5 to 22.6 |" in text
    assert "not expected to match" in text
    assert not (tmp_path / "none").exists()
