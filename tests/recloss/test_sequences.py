"""Sequences of users' items, and the training rows cut from them."""

from collections import Counter

import pytest
import torch

from recloss.sequences import Sequences, Windows

LISTS = [[3, 1, 4, 1, 5, 0, 2, 6], [], [2], [5, 5], [0, 1, 2, 3]]
"""Of five users over seven items; items come again."""


def made(lists=LISTS, n_items=7) -> Sequences:
    offsets = torch.tensor([0, *(len(items) for items in lists)]).cumsum(0)
    return Sequences(torch.tensor([item for items in lists for item in items], dtype=torch.int64), offsets, n_items)


def lists_of(sequences: Sequences) -> list[list[int]]:
    bounds = zip(sequences.offsets.tolist(), sequences.offsets.tolist()[1:], strict=False)
    return [sequences.items[first:last].tolist() for first, last in bounds]


def test_rows_in_any_order_become_sequences_in_the_order_of_time():
    rows = [(u, i, t) for u, items in enumerate(LISTS) for t, i in enumerate(items)]
    shuffle = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    user, item, time = (torch.tensor([rows[k][c] for k in shuffle]) for c in range(3))
    sequences = Sequences.from_rows(user, item, time, 5, 7)
    assert lists_of(sequences) == LISTS
    assert (sequences.n_users, sequences.n_items, len(sequences)) == (5, 7, 15)
    assert sequences.lengths.tolist() == [8, 0, 1, 2, 4]
    assert sequences.user.tolist() == [0] * 8 + [2] + [3] * 2 + [4] * 4


def test_rows_of_one_time_keep_the_order_they_come_in():
    user, item = torch.tensor([1, 0, 1, 0, 1]), torch.tensor([4, 3, 2, 1, 0])
    assert lists_of(Sequences.from_rows(user, item, torch.zeros(5), 3, 5)) == [[3, 1], [4, 2, 0], []]


def test_one_after_the_other():
    first, second = made([[1, 2], [], [3]]), made([[5], [6, 0], []])
    assert lists_of(first.followed_by(second)) == [[1, 2, 5], [6, 0], [3]]
    assert lists_of(first) == [[1, 2], [], [3]]


def test_interactions_are_the_distinct_pairs():
    pairs = made().interactions()
    expected = [(u, i) for u, items in enumerate(LISTS) for i in sorted(set(items))]
    assert list(zip(pairs.user.tolist(), pairs.item.tolist(), strict=True)) == expected
    assert (pairs.n_users, pairs.n_items) == (5, 7)


@pytest.mark.parametrize("width", [1, 3, 10])
def test_windows_are_the_last_items_padded_on_the_left(width):
    users, ends = zip(*((u, end) for u, items in enumerate(LISTS) for end in range(len(items) + 1)), strict=True)
    found = made().windows(torch.tensor(users), torch.tensor(ends), width)
    for user, end, row in zip(users, ends, found.tolist(), strict=True):
        assert row == ([7] * width + LISTS[user][:end])[-width:]


def test_windows_of_nobody_are_padding():
    nothing = made([[], []])
    assert nothing.windows(torch.tensor([0, 1]), torch.tensor([0, 0]), 2).tolist() == [[7, 7], [7, 7]]


@pytest.mark.parametrize(
    ("items", "offsets", "message"),
    [
        ([1, 7], [0, 2], r"items must lie in 0\.\.6, got 1\.\.7"),
        ([1, -1], [0, 2], r"items must lie in 0\.\.6, got -1\.\.1"),
        ([1, 2], [0, 1], "offsets must ascend from 0 to the number of items, 2"),
        ([1, 2], [0, 2, 1, 2], "offsets must ascend"),
        ([1, 2], [], "offsets must ascend"),
    ],
)
def test_what_is_no_sequence_is_refused(items, offsets, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Sequences(torch.tensor(items), torch.tensor(offsets, dtype=torch.int64), 7)


def test_a_user_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"^users must lie in 0\.\.1, got 2"):
        Sequences.from_rows(torch.tensor([0, 2]), torch.tensor([1, 1]), torch.zeros(2), 2, 3)


def expected_rows(positions: str, length: int) -> list[tuple[int, int, int, int]]:
    """(user, item, place, end), by a loop over users and places."""
    rows = []
    for user, items in enumerate(LISTS):
        last = len(items) - 1
        for place in range(1, len(items)):
            if positions == "sliding":
                rows.append((user, items[place], place, place))
            elif place == last or (positions == "all" and place > last - length):
                rows.append((user, items[place], place, last))
    return rows


@pytest.mark.parametrize("positions", ["all", "sliding", "last"])
@pytest.mark.parametrize("length", [1, 3, 20])
@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_a_pass_has_every_row_once_and_a_batch_whole_windows(positions, length, batch_size):
    windows = Windows(made(), positions=positions, length=length, batch_size=batch_size, seed=5)
    expected = expected_rows(positions, length)
    assert len(windows) == len(expected)
    users, items, cut = windows.rows()
    assert list(zip(users.tolist(), items.tolist(), *cut.T.tolist(), strict=True)) == expected
    batches = [list(zip(u.tolist(), i.tolist(), *w.T.tolist(), strict=True)) for u, i, w in windows(1, 0)]
    assert Counter(row for batch in batches for row in batch) == Counter(expected)
    of_all = [(row[0], row[3]) for batch in batches for row in batch]
    for batch in batches[:-1]:
        assert len({(row[0], row[3]) for row in batch}) == batch_size
    for batch in batches:
        for window in {(row[0], row[3]) for row in batch}:
            assert of_all.count(window) == sum((row[0], row[3]) == window for row in batch)


def test_the_order_is_a_function_of_seed_epoch_and_pass():
    many = made([[1, 2, 3]] * 50, 7)

    def order(seed, epoch, number):
        windows = Windows(many, positions="last", length=3, batch_size=100, seed=seed)
        return next(iter(windows(epoch, number)))[0].tolist()

    assert order(1, 1, 0) == order(1, 1, 0)
    assert len({tuple(order(*given)) for given in [(1, 1, 0), (2, 1, 0), (1, 2, 0), (1, 1, 1)]}) == 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"positions": "first"}, "positions must be one of all, sliding, last, got 'first'"),
        ({"length": 0}, "length must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"sequences": made([[], [1]])}, "no user has two items: there is nothing to train on"),
    ],
)
def test_what_cannot_be_cut_is_refused(wrong, message):
    given = {"sequences": made(), "positions": "all", "length": 3, "batch_size": 2, "seed": 0}
    with pytest.raises(ValueError, match=f"^{message}"):
        Windows(**given | wrong)
