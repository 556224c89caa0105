"""Segments and Interactions against Python lists and sets."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recloss.interactions import Interactions, Segments

N_USERS, N_ITEMS = 5, 6
quick = settings(deadline=None, derandomize=True, max_examples=60)
ragged = st.lists(st.lists(st.integers(-8, 8), max_size=5), min_size=1, max_size=6)
pairs = st.sets(st.tuples(st.integers(0, N_USERS - 1), st.integers(0, N_ITEMS - 1)))


def segments(rows: list[list[int]]) -> Segments:
    values = torch.tensor([x for row in rows for x in row], dtype=torch.float64)
    return Segments(values, torch.tensor([0, *itertools.accumulate(map(len, rows))]))


def build(of: list[tuple[int, int]]) -> Interactions:
    user, item = (torch.tensor([pair[side] for pair in of], dtype=torch.int64) for side in (0, 1))
    return Interactions(user, item, N_USERS, N_ITEMS)


@quick
@given(ragged)
def test_segments_know_their_rows_lengths_and_sums(rows):
    found = segments(rows)
    assert found.lengths.tolist() == [len(row) for row in rows]
    assert found.rows.tolist() == [b for b, row in enumerate(rows) for _ in row]
    assert found.sum().tolist() == [float(sum(row)) for row in rows]
    doubled = found.with_values(2 * found.values)
    assert doubled.sum().tolist() == [2.0 * sum(row) for row in rows]
    assert doubled.lengths.tolist() == found.lengths.tolist()


def test_the_sum_of_segments_hands_its_gradient_to_each_entry():
    rows = segments([[1, 2], [], [3]])
    values = rows.values.clone().requires_grad_()
    (rows.with_values(values).sum() * torch.tensor([2.0, 5.0, 7.0])).sum().backward()
    assert values.grad.tolist() == [2.0, 2.0, 7.0]


@quick
@given(pairs, st.randoms(use_true_random=False))
def test_interactions_are_the_sorted_set_of_pairs_in_any_order_given(wanted, random):
    shuffled = sorted(wanted)
    random.shuffle(shuffled)
    found = build(shuffled)
    assert list(zip(found.user.tolist(), found.item.tolist(), strict=True)) == sorted(wanted)
    assert len(found) == len(wanted)
    per_user = [[i for u, i in sorted(wanted) if u == user] for user in range(N_USERS)]
    assert found.degrees.tolist() == [len(items) for items in per_user]
    assert found.offsets.tolist() == [0, *itertools.accumulate(map(len, per_user))]


@quick
@given(pairs, st.lists(st.integers(0, N_USERS - 1), max_size=7))
def test_of_gives_the_items_of_each_asked_user_repeated_or_not(wanted, users):
    rows = build(sorted(wanted)).of(torch.tensor(users, dtype=torch.int64))
    expected = [[i for u, i in sorted(wanted) if u == user] for user in users]
    cuts = rows.offsets.tolist()
    assert [rows.values[a:b].tolist() for a, b in itertools.pairwise(cuts)] == expected
    assert rows.rows.tolist() == [b for b, items in enumerate(expected) for _ in items]


@quick
@given(pairs)
def test_contains_answers_for_every_pair_in_any_shape(wanted):
    found = build(sorted(wanted))
    users, items = torch.meshgrid(torch.arange(N_USERS), torch.arange(N_ITEMS), indexing="ij")
    expected = [[(u, i) in wanted for i in range(N_ITEMS)] for u in range(N_USERS)]
    assert found.contains(users, items).tolist() == expected
    assert found.contains(users.flatten(), items.flatten()).tolist() == list(itertools.chain(*expected))
    assert found.contains(users[:, :1], items).tolist() == expected


@pytest.mark.parametrize(
    ("user", "item", "message"),
    [
        ([0, 5], [0, 1], r"user indices must lie in 0\.\.4, got 0\.\.5"),
        ([-1, 2], [0, 1], r"user indices must lie in 0\.\.4, got -1\.\.2"),
        ([0, 1], [0, 6], r"item indices must lie in 0\.\.5, got 0\.\.6"),
        ([0, 1], [-2, 3], r"item indices must lie in 0\.\.5, got -2\.\.3"),
        ([0, 1, 0], [4, 1, 4], r"a \(user, item\) pair occurs more than once"),
    ],
)
def test_bad_pairs_are_refused(user, item, message):
    with pytest.raises(ValueError, match=message):
        Interactions(torch.tensor(user), torch.tensor(item), N_USERS, N_ITEMS)


def test_moved_interactions_are_the_same():
    found = build([(0, 1), (3, 2), (3, 5)])
    moved = found.to(torch.device("cpu"))
    assert moved.of(torch.tensor([3, 0])).values.tolist() == [2, 5, 1]
    assert (moved.n_users, moved.n_items, len(moved)) == (N_USERS, N_ITEMS, 3)
    assert build([(0, 1)]).to(torch.device("meta")).keys.device.type == "meta"


def test_narrow_integer_indices_do_not_overflow():
    user, item = torch.tensor([200, 3], dtype=torch.uint8), torch.tensor([30_000, 7], dtype=torch.int16)
    found = Interactions(user, item, 201, 32_000)
    assert found.keys.tolist() == [3 * 32_000 + 7, 200 * 32_000 + 30_000]
    assert found.item.tolist() == [7, 30_000]


@pytest.mark.parametrize(
    ("user", "item"),
    [([0, 1, 1], [0]), ([[0]], [[0]]), ([0.5], [0]), ([0], [1.0])],
    ids=["lengths", "2-d", "user", "item"],
)
def test_pairs_that_are_not_integers_of_one_length_are_refused(user, item):
    with pytest.raises(ValueError, match="user and item must be integers of one shape"):
        Interactions(torch.tensor(user), torch.tensor(item), 3, 3)


@quick
@given(pairs)
def test_interactions_from_their_own_arrays_are_the_same(of):
    made = build(sorted(of))
    again = Interactions.from_arrays(made.keys, made.user, made.item, made.degrees, made.offsets, N_ITEMS)
    assert vars(again).keys() == vars(made).keys()
    assert again.keys is made.keys
    assert (again.n_users, again.n_items) == (N_USERS, N_ITEMS)
    users = torch.tensor([3, 0])
    assert torch.equal(again.of(users).values, made.of(users).values)


@quick
@given(pairs, st.randoms())
def test_places_are_those_in_the_sorted_list(of, random):
    made, listed = build(list(of)), sorted(of)
    asked = random.sample(listed, len(listed))
    users, items = (torch.tensor([pair[side] for pair in asked], dtype=torch.int64) for side in (0, 1))
    assert made.places(users, items).tolist() == [listed.index(pair) for pair in asked]
