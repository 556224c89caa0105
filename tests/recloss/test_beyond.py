"""Metrics beyond accuracy against plain loops over users, items and counts."""

import math
from collections import Counter

import pytest
import torch

from recloss.beyond import coverage, gini, popularity_groups, self_information
from recloss.evaluation import evaluate, evaluate_scores
from recloss.interactions import Interactions
from recloss.ties import item_order

pytestmark = pytest.mark.usefixtures("kernels")

N_USERS, N_ITEMS = 50, 30


def drawn(seed: int = 0) -> tuple[Interactions, Interactions, torch.Tensor]:
    """Training of unequal popularity with unseen items, test, and scores with ties that favour the popular."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.linspace(0, 0.7, N_ITEMS)
    train = torch.rand(N_USERS, N_ITEMS, generator=generator) < share
    train[:, :3] = False
    train[7] = True
    train[7, 11], train[7, 29] = False, False
    test = ~train & (torch.rand(N_USERS, N_ITEMS, generator=generator) < 0.15)
    test[:4] = False
    test[7, 11] = True
    scores = torch.randint(0, 3, (N_USERS, N_ITEMS), generator=generator) + (6 * share).round()
    return as_interactions(train), as_interactions(test), scores


def as_interactions(chosen: torch.Tensor) -> Interactions:
    return Interactions(*chosen.nonzero(as_tuple=True), *chosen.shape)


def as_lists(interactions: Interactions) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in range(interactions.n_users)]
    for user, item in zip(interactions.user.tolist(), interactions.item.tolist(), strict=True):
        rows[user].append(item)
    return rows


def naive_groups(train: Interactions) -> list[str]:
    counts = Counter(train.item.tolist())
    places = {item: place for place, item in enumerate(item_order(train.n_items).tolist())}
    groups, before = [""] * train.n_items, 0
    for item in sorted(range(train.n_items), key=lambda item: (-counts[item], places[item])):
        groups[item] = "head" if before < 0.5 * len(train) else "mid" if before < 0.8 * len(train) else "tail"
        before += counts[item]
    return groups


def naive(train: Interactions, test: Interactions, scores: torch.Tensor, cutoffs: list[int]):
    """Per-user values (NaN where there is nothing to measure), and the values of the catalogue."""
    counts, groups = Counter(train.item.tolist()), naive_groups(train)
    places = {item: place for place, item in enumerate(item_order(train.n_items).tolist())}
    seen, wanted = as_lists(train), as_lists(test)
    users: dict[str, list] = {}
    catalogue = {}
    for k in cutoffs:
        recommended: Counter = Counter()
        for user in range(N_USERS):
            if not wanted[user]:
                continue
            candidates = [item for item in range(N_ITEMS) if item not in seen[user]]
            top = sorted(candidates, key=lambda item: (-scores[user, item].item(), places[item]))[:k]
            recommended.update(top)
            surprise = [-math.log2(max(1, counts[item]) / N_USERS) for item in top]
            users.setdefault(f"novelty_{k}", []).append(sum(surprise) / len(top))
            for group in ("head", "mid", "tail"):
                relevant = [item for item in wanted[user] if groups[item] == group]
                found = len(set(relevant) & set(top)) / len(relevant) if relevant else math.nan
                users.setdefault(f"recall_{group}_{k}", []).append(found)
        lengths = [recommended[item] for item in range(N_ITEMS)]
        differences = sum(abs(a - b) for a in lengths for b in lengths)
        catalogue[f"coverage_{k}"] = len(recommended) / N_ITEMS
        catalogue[f"gini_{k}"] = differences / (2 * N_ITEMS * sum(lengths))
    return users, catalogue


@pytest.mark.parametrize("users_per_block", [1, 7, 64])
@pytest.mark.parametrize("cutoffs", [[5], [1, 3, 30]])
def test_against_plain_loops(cutoffs, users_per_block):
    train, test, scores = drawn()
    users, catalogue = naive(train, test, scores, cutoffs)
    found = evaluate_scores(lambda block: scores[block], test, [train], cutoffs, users_per_block, popularity=train)
    assert any(math.isnan(value) for column in users.values() for value in column)
    means = found.mean()
    for name, column in users.items():
        assert found.values[name].tolist() == pytest.approx(column, rel=1e-12, abs=1e-12, nan_ok=True), name
        known = [value for value in column if not math.isnan(value)]
        assert means[name] == pytest.approx(sum(known) / len(known), rel=1e-12), name
    assert found.catalogue == pytest.approx(catalogue, rel=1e-12)
    assert {name: means[name] for name in catalogue} == found.catalogue


def test_accuracy_is_what_it_is_without():
    train, test, scores = drawn(1)
    without = evaluate_scores(lambda block: scores[block], test, [train], [5])
    found = evaluate_scores(lambda block: scores[block], test, [train], [5], popularity=train)
    assert without.catalogue == {}
    assert list(without.values) == ["precision_5", "recall_5", "ndcg_5", "hit_rate_5", "mrr_5"]
    assert all(torch.equal(found.values[name], without.values[name]) for name in without.values)
    assert found.mean().items() >= without.mean().items()


def test_a_backbone_is_measured_as_its_scores_are():
    from recloss.backbones import MF

    train, test, _ = drawn(2)
    backbone = MF(N_USERS, N_ITEMS, dim=3)
    user, item = (table.detach() for table in backbone.embed())
    by_backbone = evaluate(backbone, "dot", test, [train], [4], popularity=train)
    by_scores = evaluate_scores(lambda block: user[block] @ item.T, test, [train], [4], popularity=train)
    assert by_backbone.mean() == by_scores.mean()


def test_scores_are_not_written_to():
    train, _, scores = drawn()
    before, everything = scores.clone(), as_interactions(torch.ones(N_USERS, N_ITEMS, dtype=torch.bool))
    evaluate_scores(lambda block: scores[block[0] : block[-1] + 1], everything, [train], [5], 10)
    assert torch.equal(scores, before)


def test_a_metric_that_nobody_has_is_left_out_of_the_means():
    train = as_interactions(torch.tensor([[True, False, False], [True, False, False]]))
    test = as_interactions(torch.tensor([[False, True, False], [False, False, False]]))
    found = evaluate_scores(lambda block: torch.ones(len(block), 3), test, [train], [1], popularity=train)
    assert found.values["recall_head_1"].isnan().all()
    assert not {"recall_head_1", "recall_mid_1"} & found.mean().keys()
    assert "recall_tail_1" in found.mean()


def test_popularity_groups_by_hand():
    counts = [1, 5, 2, 0, 2]  # 10 interactions: 5 | 2 + 2 (before: 5 and 7) | 1 (before: 9) and 0
    user = torch.cat([torch.arange(count) for count in counts])
    train = Interactions(user, torch.arange(5).repeat_interleave(torch.tensor(counts)), 5, 5)
    assert popularity_groups(train).tolist() == [2, 0, 1, 2, 1]
    assert self_information(train).tolist() == pytest.approx(
        [math.log2(5), 0, -math.log2(0.4), math.log2(5), -math.log2(0.4)]
    )


def test_equally_popular_items_stand_in_tie_order():
    train = as_interactions(torch.ones(2, 10, dtype=torch.bool))
    order = item_order(10).tolist()
    groups = popularity_groups(train).tolist()
    assert [groups[item] for item in order] == [0] * 5 + [1] * 3 + [2] * 2
    assert groups != sorted(groups)


def test_coverage_and_gini_of_extremes():
    assert gini(torch.tensor([3, 3, 3, 3])) == 0
    assert gini(torch.tensor([0, 0, 7, 0])) == pytest.approx(3 / 4)
    assert coverage(torch.tensor([0, 0, 7, 1])) == 0.5


def test_scores_of_the_wrong_shape_or_not_finite_are_errors():
    train, test, scores = drawn()
    with pytest.raises(ValueError, match=r"the model gave \(30, 43\) scores, expected \(43, 30\)"):
        evaluate_scores(lambda block: scores[block].T, test, [train], [5])
    with pytest.raises(FloatingPointError, match="the scores are not finite"):
        evaluate_scores(lambda block: scores[block] / 0, test, [train], [5])
    with pytest.raises(ValueError, match=r"every K must lie in 1\.\.30"):
        evaluate_scores(lambda block: scores[block], test, [train], [31])
