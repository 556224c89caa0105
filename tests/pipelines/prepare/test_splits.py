from fractions import Fraction
from math import ceil

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.prepare import splits as to
from pipelines.prepare.draws import draws
from pipelines.prepare.splits import POOL, TEST, TRAIN, VALID

LOGS = st.dictionaries(
    st.tuples(st.integers(0, 6), st.integers(0, 9)), st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1
)
"""(user, item) -> (timestamp, split), with many equal timestamps."""


def block(log, *names):
    """A block of ``LOGS`` rows, sorted; ``names``: timestamp, split."""
    users, items = zip(*sorted(log), strict=True) if log else ((), ())
    values = {"user": pa.array(users, pa.int32()), "item": pa.array(items, pa.int32())}
    for name in names:
        at = ("timestamp", "split").index(name)
        values[name] = pa.array([log[pair][at] for pair in sorted(log)], (pa.int64(), pa.int8())[at])
    return pa.table(values)


def drawn(seed, pair):
    return int(draws(seed, np.array([pair[0]], np.int32), np.array([pair[1]], np.int32))[0])


def placed(out):
    """Pair -> split."""
    rows = out.to_pydict()
    return dict(zip(zip(rows["user"], rows["item"], strict=True), rows["split"], strict=True))


def of_users(pairs):
    return {user: sorted(pair for pair in pairs if pair[0] == user) for user, _ in pairs}


# --- sizes


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (1, (1, 0, 0)),
        (2, (1, 0, 1)),
        (3, (1, 1, 1)),
        (5, (3, 1, 1)),
        (6, (3, 1, 2)),
        (8, (5, 1, 2)),
        (10, (7, 1, 2)),
        (11, (7, 1, 3)),
        (14, (9, 2, 3)),
        (20, (14, 2, 4)),
        (41, (28, 4, 9)),
    ],
)
def test_sizes_of_the_parts_of_a_user(n, expected):
    test = to.size_of_test(n, 0.2)
    valid = to.size_of_valid(n - test, 0.1, "ceil")
    assert (n - test - valid, valid, test) == expected


@pytest.mark.parametrize(("n", "valid"), [(1, 0), (2, 1), (3, 1), (19, 1), (20, 2), (29, 2), (30, 3), (100, 10)])
def test_validation_rounded_down_is_at_least_one(n, valid):
    assert to.size_of_valid(n, 0.1, "int") == valid


@given(n=st.integers(1, 10**7), test=st.integers(1, 999), valid=st.integers(1, 999))
def test_sizes_are_exact_and_leave_one_for_training(n, test, valid):
    n_test = to.size_of_test(n, test / 1000)
    assert n_test == min(-(-test * n // 1000), n - 1)
    kept = (1000 - test) * n // 1000  # int((1 - test_ratio) * n), the other paper's rule
    assert n - n_test == max(kept, 1)
    rest = n - n_test
    assert to.size_of_valid(rest, valid / 1000, "ceil") == min(ceil(Fraction(valid * rest, 1000)), rest - 1)
    assert to.size_of_valid(rest, valid / 1000, "int") == min(max(valid * rest // 1000, 1), rest - 1)


@given(st.lists(st.integers(0, 20)))
def test_sizes_of_many(lengths):
    assert to.sizes_of(np.array(lengths, np.int64), lambda n: 3 * n).tolist() == [3 * n for n in lengths]


# --- iid


@given(LOGS, st.integers(0, 2**64), st.sampled_from(["ceil", "int"]))
def test_iid_takes_the_smallest_draws_of_each_user_for_test_then_valid(log, seed, rounding):
    found = placed(to.iid(block(log), 0.4, 0.3, rounding, seed))
    expected = {}
    for pairs in of_users(log).values():
        n_test = to.size_of_test(len(pairs), 0.4)
        n_valid = to.size_of_valid(len(pairs) - n_test, 0.3, rounding)
        order = sorted(pairs, key=lambda pair: (drawn(seed, pair), pair))
        expected |= dict.fromkeys(order, TRAIN) | dict.fromkeys(order[:n_test], TEST)
        expected |= dict.fromkeys(order[n_test : n_test + n_valid], VALID)
    assert found == expected


def test_iid_depends_on_the_seed():
    log = dict.fromkeys(((0, item) for item in range(40)), (0, 0))
    assert to.iid(block(log), 0.2, 0.1, "ceil", 0) != to.iid(block(log), 0.2, 0.1, "ceil", 1)


@pytest.mark.parametrize("values", [1, 3, 2**62])
def test_draws_that_are_equal_or_nearly_so_are_ordered_by_draw_then_item(monkeypatch, values):
    monkeypatch.setattr(to, "draws", lambda seed, users, items: items.astype(np.uint64) * 7 % values)
    log = dict.fromkeys(((user, item) for user in range(3) for item in range(10 + user)), (0, 0))
    found = placed(to.iid(block(log), 0.3, 0.3, "ceil", 0))
    for pairs in of_users(log).values():
        order = sorted(pairs, key=lambda pair: (pair[1] * 7 % values, pair[1]))
        splits = [found[pair] for pair in order]
        assert splits == sorted(splits, key=[TEST, VALID, TRAIN].index)


@given(LOGS, st.integers(0, 100))
def test_validation_is_taken_from_train_alone(log, seed):
    found = placed(to.validation(block(log, "split"), 0.3, "ceil", seed))
    for pairs in of_users(log).values():
        train = sorted((p for p in pairs if log[p][1] == TRAIN), key=lambda pair: (drawn(seed, pair), pair))
        n_valid = to.size_of_valid(len(train), 0.3, "ceil") if train else 0
        for pair in pairs:
            assert found[pair] == (VALID if pair in train[:n_valid] else log[pair][1])


# --- temporal, leave last


@given(LOGS, st.data())
def test_temporal_compares_whole_keys(log, data):
    keys = sorted((time, *pair) for pair, (time, _) in log.items())
    test = data.draw(st.sampled_from(keys))
    left_out = data.draw(st.sampled_from(keys[: keys.index(test) + 1]))
    found = placed(to.temporal(block(log, "timestamp"), left_out, test))
    assert found == {key[1:]: TRAIN for key in keys if key < left_out} | {k[1:]: TEST for k in keys if k >= test}


@given(LOGS, st.integers(1, 3), st.integers(1, 3), st.integers(0, 100))
def test_leave_last_orders_each_user_by_time_then_draw(log, test, valid, seed):
    out = to.leave_last(block(log, "timestamp"), "timestamp", test, valid, seed)
    expected, tied = {}, 0
    for pairs in of_users(log).values():
        order = sorted(pairs, key=lambda pair: (log[pair][0], drawn(seed, pair), pair))
        expected |= dict.fromkeys(pairs, TRAIN)
        if len(pairs) > test + valid:
            parts = order[: -test - valid], order[-test - valid : -test], order[-test:]
            expected |= dict.fromkeys(parts[1], VALID) | dict.fromkeys(parts[2], TEST)
            times = [{log[pair][0] for pair in part} for part in parts]
            tied += bool(times[0] & times[1] or times[1] & times[2])
    assert placed(out) == expected
    assert to.cut_by_ties(out, "timestamp").to_pydict() == {"users": [tied]}


# --- popularity


@given(LOGS, st.integers(0, 100), st.data())
def test_picked_are_the_first_of_each_item_in_the_order_of_the_draws(log, seed, data):
    of_items = {item: sorted(pair for pair in log if pair[1] == item) for _, item in log}
    picks = np.array([data.draw(st.integers(0, len(of_items.get(item, [])))) for item in range(10)])
    last = to.last_picked(block(log), picks, seed)
    values, users = np.zeros(10, np.uint64), np.full(10, -1, np.int32)
    values[last["item"].to_numpy()], users[last["item"].to_numpy()] = last["draw"].to_numpy(), last["user"].to_numpy()
    found = placed(to.popularity(block(log), values, users, seed))
    for item, pairs in of_items.items():
        order = sorted(pairs, key=lambda pair: (drawn(seed, pair), pair))
        assert [found[pair] for pair in order] == [TEST] * picks[item] + [TRAIN] * (len(pairs) - picks[item])


def test_equal_draws_are_ordered_by_user(monkeypatch):
    monkeypatch.setattr(to, "draws", lambda seed, users, items: np.zeros(len(users), np.uint64))
    log = dict.fromkeys([(0, 0), (1, 0), (2, 0), (1, 1)], (0, 0))
    picks = np.array([2, 0])
    assert to.last_picked(block(log), picks, 0).to_pydict() == {"item": [0], "draw": [0], "user": [1]}
    found = placed(to.popularity(block(log), np.zeros(2, np.uint64), np.array([1, -1], np.int32), 0))
    assert found == {(0, 0): TEST, (1, 0): TEST, (2, 0): TRAIN, (1, 1): TRAIN}


# --- given, and what all use


def test_repeats_are_counted_by_kind_with_an_example():
    columns = {
        "user": [0, 0, 1, 1, 1, 2, 3, 3],
        "item": [1, 2, 4, 4, 4, 0, 5, 5],
        "split": [TRAIN, TEST, TRAIN, TRAIN, TEST, TRAIN, TRAIN, TEST],
    }
    types = {"user": pa.int32(), "item": pa.int32(), "split": pa.int8()}
    found = to.repeats(pa.table({name: pa.array(values, types[name]) for name, values in columns.items()}))
    assert found.to_pylist() == [
        {"split": TRAIN, "again": TRAIN, "count": 1, "user": 1, "item": 4},
        {"split": TRAIN, "again": TEST, "count": 2, "user": 1, "item": 4},
    ]


@given(LOGS)
def test_tally_counts_the_splits_of_users_and_items(log):
    counted = {(r["side"], r["split"], r["key"]): r["count"] for r in to.tally(block(log, "split")).to_pylist()}
    expected = {}
    for pair, (_, split) in log.items():
        for side in (0, 1):
            expected[side, split, pair[side]] = expected.get((side, split, pair[side]), 0) + 1
    assert counted == expected


@given(LOGS)
def test_only_drops_test_interactions_of_what_is_not_marked(log):
    users, items = np.arange(7) % 2 == 0, np.arange(10) % 3 == 0
    found = placed(to.only(block(log, "split"), users, items))
    assert found == {p: split for p, (_, split) in log.items() if split != TEST or (users[p[0]] and items[p[1]])}


@given(LOGS, st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(0, 9)))
def test_before_is_lexicographic(log, key):
    columns = [block(log, "timestamp")[name].to_numpy() for name in ("timestamp", "user", "item")]
    assert to.before(columns, key).tolist() == [row < key for row in zip(*columns, strict=True)]


NOTHING = {"users": np.zeros(0, bool), "items": np.zeros(0, bool)}


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (to.iid, {"test_ratio": 0.2, "valid_ratio": 0.1, "rounding": "ceil", "seed": 0}),
        (to.validation, {"valid_ratio": 0.1, "rounding": "ceil", "seed": 0}),
        (to.temporal, {"left_out": (0, 0, 0), "test": (0, 0, 0)}),
        (to.leave_last, {"time": "timestamp", "test": 1, "valid": 1, "seed": 0}),
        (to.popularity, {"last": np.zeros(0, np.uint64), "last_user": np.zeros(0, np.int32), "seed": 0}),
        (to.last_picked, {"picks": np.zeros(0, np.int64), "seed": 0}),
        (to.repeats, {}),
        (to.tally, {}),
        (to.only, NOTHING),
        (to.pairs, {}),
    ],
)
def test_blocks_without_rows(function, arguments):
    assert function(block({}, "timestamp", "split"), **arguments).num_rows == 0


def test_a_split_column_is_replaced():
    assert placed(to.with_split(block({(0, 1): (0, TRAIN)}, "split"), np.array([POOL]))) == {(0, 1): POOL}
