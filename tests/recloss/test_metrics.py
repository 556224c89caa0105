"""Metrics against goldens and plain loops over users."""

import math

import pytest
import torch

from recloss.errors import InputError
from recloss.metrics import METRICS, metric_name, mrr, ndcg, parse_metric, precision, recall


def by_hand(metric: str, hits: list[bool], n_relevant: int, k: int) -> float:
    ranks = [rank for rank, hit in enumerate(hits[:k], start=1) if hit]
    ideal = sum(1 / math.log2(1 + rank) for rank in range(1, min(k, n_relevant) + 1))
    return {
        "precision": len(ranks) / k,
        "recall": len(ranks) / n_relevant,
        "ndcg": sum(1 / math.log2(1 + rank) for rank in ranks) / ideal,
        "hit_rate": float(bool(ranks)),
        "mrr": 1 / ranks[0] if ranks else 0.0,
    }[metric]


def at_ranks(ranks: list[int], length: int) -> torch.Tensor:
    return torch.tensor([[rank in ranks for rank in range(1, length + 1)]])


@pytest.mark.parametrize("metric", METRICS)
def test_against_plain_loops(metric):
    generator = torch.Generator().manual_seed(0)
    hits = torch.rand(60, 12, generator=generator) < torch.rand(60, 1, generator=generator)
    hits[0] = False
    hits[1] = True
    n_relevant = hits.sum(1) + torch.randint(0, 3, (60,), generator=generator)
    n_relevant.clamp_(min=1)
    for k in (1, 2, 5, 12):
        found = METRICS[metric](hits, n_relevant, k)
        expected = [by_hand(metric, h, n, k) for h, n in zip(hits.tolist(), n_relevant.tolist(), strict=True)]
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)
        assert bool(((found >= 0) & (found <= 1 + 1e-12)).all())


def test_golden_metrics_at_5(golden):
    case = golden("metrics_K5")
    hits, n_relevant = torch.tensor(case["hits_top5"]).bool(), torch.tensor(case["num_test_items"])
    for metric, function in (("precision", precision), ("recall", recall), ("ndcg", ndcg)):
        found = function(hits, n_relevant, 5)
        per_user = [row[metric] for row in case["per_user"]]
        torch.testing.assert_close(found, torch.tensor(per_user, dtype=torch.float64), rtol=1e-9, atol=0)
        assert float(found.mean()) == pytest.approx(case[metric], rel=1e-9)
    assert float(mrr(hits, n_relevant, 5).mean()) == pytest.approx(case["mrr_standard(first hit, mean over users)"])


@pytest.mark.parametrize("ranking", ["r1", "r2"])
def test_golden_of_figure_1a(ranking, golden):
    case = golden("metric_fig1a")
    ranks = case["inputs"][f"ranking{ranking[1]}_positive_ranks"]
    n_relevant = torch.tensor([len(ranks)])
    for k, key in ((5, "ndcg5"), (20, "ndcg")):
        found = float(ndcg(at_ranks(ranks, 20), n_relevant, k))
        assert found == pytest.approx(case[f"{ranking}_{key}"], rel=1e-9)


@pytest.mark.parametrize("ranking", ["ranking1_as_drawn", "ranking1_matching_printed_numbers", "ranking2"])
def test_golden_of_talos_figure_1(ranking, golden):
    case = golden("figure1")[ranking]
    hits, n_relevant = at_ranks(case["positions"], 10), torch.tensor([5])
    assert float(precision(hits, n_relevant, 5)) == pytest.approx(case["P@5"], rel=1e-9)
    assert float(ndcg(hits, n_relevant, 10)) == pytest.approx(case["NDCG"], rel=1e-9)


def test_golden_of_several_hits_takes_the_first_for_mrr(golden):
    case = golden("metric_mrr_multi_hit")
    hits = at_ranks(case["inputs"]["hit_ranks"], 20)
    assert float(mrr(hits, torch.tensor([2]), case["inputs"]["K"])) == pytest.approx(case["mrr_first_hit"], rel=1e-12)


def test_a_perfect_ranking_has_ndcg_1_whatever_the_number_of_relevant_items():
    for n_relevant in (1, 3, 5, 9):
        hits = torch.arange(5)[None] < n_relevant
        assert float(ndcg(hits, torch.tensor([n_relevant]), 5)) == pytest.approx(1, rel=1e-12)


def test_hits_beyond_the_cut_off_do_not_count():
    hits = at_ranks([3], 6)
    for metric, function in METRICS.items():
        assert float(function(hits, torch.tensor([1]), 2)) == 0, metric


def test_names_at_a_cut_off_are_parsed_back():
    for metric in METRICS:
        assert parse_metric(metric_name(metric, 50)) == (metric, 50)
    assert metric_name("hit_rate", 20) == "hit_rate_20"
    assert parse_metric("mrr") == ("mrr", None)


@pytest.mark.parametrize("name", ["ndgc_20", "ndcg", "ndcg@20", "ndcg_", "_20", "ndcg_-1", "ndcg_1.5", "ndcg_²"])
def test_a_name_that_is_no_metric_is_refused_with_those_there_are(name):
    with pytest.raises(InputError, match=r"^unknown metric .*accepted: hit_rate_20, mrr_20, ndcg_20"):
        parse_metric(name)
