"""Full-ranking evaluation against sorting every user's items in plain Python."""

import math

import pytest
import torch
from torch import nn

from recloss.backbones import MF, Backbone
from recloss.evaluation import evaluate
from recloss.interactions import Interactions
from recloss.randomness import row_states
from recloss.ties import item_order

pytestmark = pytest.mark.usefixtures("kernels")


class Tables(Backbone):
    """Fixed embeddings."""

    def __init__(self, user: torch.Tensor, item: torch.Tensor) -> None:
        super().__init__()
        self.user, self.item = nn.Parameter(user), nn.Parameter(item)
        self.flags: list[bool] = []

    def embed(self):
        self.flags.append(self.training)
        return self.user, self.item


def splits(n_users: int, n_items: int, seed: int, shares=(0.3, 0.1, 0.1)) -> list[Interactions]:
    """Disjoint interactions by share; user 0 has none in the last."""
    drawn = torch.rand(n_users, n_items, generator=torch.Generator().manual_seed(seed))
    found, low = [], 0.0
    for share in shares:
        chosen = (drawn >= low) & (drawn < low + share)
        if share is shares[-1]:
            chosen[0] = False
        found.append(Interactions(*chosen.nonzero(as_tuple=True), n_users, n_items))
        low += share
    return found


def tied_tables(n_users: int, n_items: int, seed: int = 0) -> Tables:
    """Small integers: exact scores with many ties."""
    generator = torch.Generator().manual_seed(seed)
    return Tables(*(torch.randint(-1, 2, (n, 3), generator=generator).float() for n in (n_users, n_items)))


def as_sets(interactions: Interactions) -> list[set[int]]:
    rows: list[set[int]] = [set() for _ in range(interactions.n_users)]
    for user, item in zip(interactions.user.tolist(), interactions.item.tolist(), strict=True):
        rows[user].add(item)
    return rows


def naive(scores: list[list[float]], relevant: Interactions, hidden: list[Interactions], cutoffs: list[int]):
    """Users with relevant items, and per metric their values, from a full sort by (score, tie order)."""
    place = {item: rank for rank, item in enumerate(item_order(relevant.n_items).tolist())}
    wanted, masks = as_sets(relevant), [as_sets(h) for h in hidden]
    users = [u for u, items in enumerate(wanted) if items]
    values: dict[str, list[float]] = {}
    for u in users:
        candidates = [i for i in range(relevant.n_items) if not any(mask[u] & {i} for mask in masks)]
        ranking = sorted(candidates, key=lambda i: (-scores[u][i], place[i]))
        for k in cutoffs:
            ranks = [rank for rank, item in enumerate(ranking[:k], 1) if item in wanted[u]]
            ideal = sum(1 / math.log2(1 + rank) for rank in range(1, min(k, len(wanted[u])) + 1))
            row = {
                "precision": len(ranks) / k,
                "recall": len(ranks) / len(wanted[u]),
                "ndcg": sum(1 / math.log2(1 + rank) for rank in ranks) / ideal,
                "hit_rate": float(bool(ranks)),
                "mrr": 1 / ranks[0] if ranks else 0.0,
            }
            for metric, value in row.items():
                values.setdefault(f"{metric}_{k}", []).append(value)
    return users, values


def assert_as_naive(found, expected):
    users, values = expected
    assert found.users.tolist() == users
    assert list(found.values) == list(values)
    for name in values:
        torch.testing.assert_close(found.values[name], torch.tensor(values[name], dtype=torch.float64), msg=name)


@pytest.mark.parametrize("cutoffs", [[5], [1, 3, 10], [40], [7, 40]])
@pytest.mark.parametrize("masks", [0, 1, 2])
def test_against_a_full_sort_with_many_ties(masks, cutoffs):
    train, valid, test = splits(30, 40, seed=1)
    hidden = [train, valid][:masks]
    backbone = tied_tables(30, 40)
    scores = (backbone.user @ backbone.item.T).tolist()
    expected = naive(scores, test, hidden, cutoffs)
    assert 0 not in expected[0]
    for users_per_block in (1, 3, 256):
        assert_as_naive(evaluate(backbone, "dot", test, hidden, cutoffs, users_per_block), expected)


def test_against_a_full_sort_of_cosines():
    train, _, test = splits(30, 40, seed=2)
    generator = torch.Generator().manual_seed(3)
    backbone = Tables(torch.randn(30, 4, generator=generator), 10 * torch.randn(40, 4, generator=generator))
    scores = torch.cosine_similarity(backbone.user[:, None], backbone.item[None], dim=2).tolist()
    expected = naive(scores, test, [train], [5])
    found = evaluate(backbone, "cosine", test, [train], [5])
    assert_as_naive(found, expected)
    assert found.mean() == pytest.approx({name: sum(v) / len(v) for name, v in expected[1].items()}, rel=1e-12)
    by_dot = evaluate(backbone, "dot", test, [train], [5]).mean()
    assert by_dot != found.mean(), "norms of the items decide when the similarity is dot"


def test_users_with_fewer_candidates_than_k():
    """All but a few items are hidden; those few fill the head of the ranking, nothing else is a hit."""
    train, _, test = splits(25, 20, seed=4, shares=(0.85, 0.0, 0.12))
    backbone = tied_tables(25, 20)
    expected = naive((backbone.user @ backbone.item.T).tolist(), test, [train], [5, 20])
    assert_as_naive(evaluate(backbone, "dot", test, [train], [5, 20]), expected)
    assert set(expected[1]["recall_20"]) == {1.0}


def test_a_hidden_item_is_never_a_hit():
    """Not even where it is relevant too and the candidates do not fill the top K."""
    hidden = Interactions(torch.zeros(3, dtype=torch.int64), torch.tensor([0, 1, 2]), 1, 5)
    relevant = Interactions(torch.zeros(2, dtype=torch.int64), torch.tensor([2, 3]), 1, 5)
    backbone = Tables(torch.ones(1, 1), torch.tensor([[5.0], [4.0], [3.0], [2.0], [1.0]]))
    found = evaluate(backbone, "dot", relevant, [hidden], [2, 5]).mean()
    assert (found["recall_2"], found["recall_5"]) == (0.5, 0.5)


def test_blocks_of_users_change_no_bit():
    train, _, test = splits(70, 50, seed=5)
    generator = torch.Generator().manual_seed(6)
    backbone = Tables(torch.randn(70, 8, generator=generator), torch.randn(50, 8, generator=generator))
    whole = evaluate(backbone, "cosine", test, [train], [10])
    for users_per_block in (1, 3, 64):
        found = evaluate(backbone, "cosine", test, [train], [10], users_per_block)
        assert all(torch.equal(found.values[name], whole.values[name]) for name in whole.values)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("collapsed", [False, True])
def test_a_constant_scorer_earns_no_more_than_chance(collapsed, similarity):
    """Also one whose items share a random vector, which matrix products round differently by column."""
    n_users, n_items, k = 4000, 103, 10
    generator = torch.Generator().manual_seed(7)
    relevant = torch.stack([torch.randperm(n_items, generator=generator)[:4] for _ in range(n_users)])
    test = Interactions(torch.arange(n_users).repeat_interleave(4), relevant.flatten(), n_users, n_items)
    user, item = torch.randn(n_users, 5, generator=generator), torch.randn(1, 5, generator=generator)
    scorer = Tables(user * collapsed, item.repeat(n_items, 1) * collapsed)
    nothing = evaluate(scorer, similarity, test, [], [k]).mean()
    assert nothing["recall_10"] == pytest.approx(k / n_items, abs=5 * math.sqrt(0.09 / (4 * n_users)))
    assert nothing["precision_10"] == pytest.approx(4 / n_items, abs=0.003)


def test_a_constant_scorer_gains_nothing_from_items_numbered_by_popularity():
    """Users like the items with the smallest, or the largest, indices; chance decides which of them come first."""
    n_users, n_items, k, recalls = 10, 1000, 100, []
    for low in range(0, n_items, 20):
        liked = torch.arange(low, low + 20).repeat(n_users)
        test = Interactions(torch.arange(n_users).repeat_interleave(20), liked, n_users, n_items)
        scorer = Tables(torch.ones(n_users, 1), torch.ones(n_items, 1))
        recalls.append(evaluate(scorer, "dot", test, [], [k]).mean()["recall_100"])
    deviation = math.sqrt(0.09 / 20)
    assert max(recalls) < 0.1 + 4.5 * deviation
    assert max(recalls[0], recalls[-1]) < 0.1 + 3 * deviation
    assert sum(recalls) / len(recalls) == pytest.approx(0.1, rel=1e-12)


def test_the_tie_order_is_a_fixed_shuffle_by_hash():
    order = item_order(1000).tolist()
    assert sorted(order) == list(range(1000))
    states = row_states(0x7265636C6F7373, torch.arange(1000)).tolist()
    assert order == sorted(range(1000), key=lambda item: states[item])
    inside = [item for item in order if item < 300]
    assert item_order(300).tolist() == inside, "more items leave the order of the old ones"
    assert item_order(8).tolist() == [3, 4, 7, 5, 2, 1, 0, 6]


@pytest.mark.parametrize("training", [True, False])
def test_the_backbone_is_scored_in_eval_mode_and_keeps_its_flag(training):
    _, _, test = splits(5, 20, seed=8)
    backbone = tied_tables(5, 20).train(training)
    evaluate(backbone, "dot", test, [], [3])
    assert backbone.flags == [False]
    assert backbone.training == training


def test_no_gradient_is_kept():
    _, _, test = splits(5, 20, seed=8)
    found = evaluate(tied_tables(5, 20), "dot", test, [], [3])
    assert not any(values.requires_grad for values in found.values.values())


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_embeddings_that_are_not_finite_are_an_error(similarity, bad, side):
    _, _, test = splits(5, 20, seed=8)
    backbone = tied_tables(5, 20)
    (backbone.user, backbone.item)[side].data[2, 1] = bad
    with pytest.raises(FloatingPointError, match="not finite"):
        evaluate(backbone, similarity, test, [], [3])


def test_impossible_requests_are_named():
    _, _, test = splits(5, 20, seed=8)
    nothing = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"every K must lie in 1\.\.20 \(the catalogue\), got \[3, 21\]"):
        evaluate(tied_tables(5, 20), "dot", test, [], [3, 21])
    with pytest.raises(ValueError, match="no user has a relevant item"):
        evaluate(tied_tables(5, 20), "dot", Interactions(nothing, nothing, 5, 20), [], [3])
    with pytest.raises(ValueError, match="unknown similarity 'l2'"):
        evaluate(tied_tables(5, 20), "l2", test, [], [3])


def test_a_backbone_of_another_catalogue_and_a_cut_off_of_zero_are_refused():
    _, _, test = splits(5, 20, seed=8)
    with pytest.raises(ValueError, match="the backbone embeds 5 users, 30 items, the interactions are of 5 and 20"):
        evaluate(MF(5, 30, dim=2), "dot", test, [], [3])
    with pytest.raises(ValueError, match=r"every K must lie in 1\.\.20 \(the catalogue\), got \[0\]"):
        evaluate(MF(5, 20, dim=2), "dot", test, [], [0])


def test_a_part_that_is_frozen_in_evaluation_mode_stays_so():
    _, _, test = splits(5, 20, seed=8)
    backbone = MF(5, 20, dim=2)
    backbone.frozen = torch.nn.Dropout().eval()
    evaluate(backbone, "dot", test, [], [3])
    assert backbone.training
    assert not backbone.frozen.training
