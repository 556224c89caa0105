from collections import Counter
from fractions import Fraction
from math import ceil

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.prepare import blocks as do


def block(pairs, **columns):
    users, items = zip(*pairs, strict=True) if pairs else ((), ())
    coded = {"user": pa.array(users, pa.int32()), "item": pa.array(items, pa.int32())}
    return pa.table(coded | {name: pa.array(values) for name, values in columns.items()})


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
    assert do.sizes(n, 0.2, 0.1) == expected


@given(n=st.integers(1, 10**7), test=st.integers(1, 999), valid=st.integers(1, 999))
def test_sizes_round_up_exactly_and_leave_one_for_training(n, test, valid):
    train, n_valid, n_test = do.sizes(n, test / 1000, valid / 1000)
    assert train + n_valid + n_test == n
    assert train >= 1
    assert n_test == min(ceil(Fraction(test * n, 1000)), n - 1)
    assert n_valid == min(ceil(Fraction(valid * (n - n_test), 1000)), n - n_test - 1)


def test_draws_are_splitmix64():
    # the first output of the published generator (java.util.SplittableRandom, xoshiro's seeder) for the seed 0
    assert int(do._mix(np.array(0, np.uint64))) == 0xE220A8397B1DCDAF

    def mix(x):
        x = (x + 0x9E3779B97F4A7C15) % 2**64
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        return x ^ x >> 31

    users, items = np.array([0, 7, 2**31 - 1], np.int32), np.array([5, 0, 2**31 - 1], np.int32)
    expected = [mix(mix(mix(42) + u) + i) for u, i in zip(users.tolist(), items.tolist(), strict=True)]
    assert do.draws(42, users, items).tolist() == expected


def test_draws_are_uniform():
    users, items = (grid.ravel().astype(np.int32) for grid in np.meshgrid(np.arange(300), np.arange(300)))
    drawn = do.draws(0, users, items) / 2.0**64
    assert abs(drawn.mean() - 0.5) < 0.004  # four standard errors
    assert abs(np.corrcoef(drawn, users)[0, 1]) < 0.014
    assert abs(np.corrcoef(drawn, do.draws(1, users, items))[0, 1]) < 0.014
    assert len(np.unique(drawn)) == len(drawn)


def test_split_takes_the_smallest_draws_of_each_user_for_test_then_valid():
    pairs = [(user, item) for user, n in enumerate([14, 1, 5, 20]) for item in range(n)]
    out = do.split(block(pairs), 0.2, 0.1, seed=3)
    for user, (n, test, valid) in enumerate([(14, 3, 2), (1, 0, 0), (5, 1, 1), (20, 4, 2)]):
        draws = do.draws(3, np.full(n, user, np.int32), np.arange(n, dtype=np.int32))
        expected = np.zeros(n, int)
        order = np.argsort(draws)
        expected[order[:test]], expected[order[test : test + valid]] = 2, 1
        assert out["split"].to_numpy()[out["user"].to_numpy() == user].tolist() == expected.tolist()


def test_split_depends_on_the_seed():
    pairs = [(0, item) for item in range(40)]
    assert do.split(block(pairs), 0.2, 0.1, seed=0) != do.split(block(pairs), 0.2, 0.1, seed=1)


def test_distinct_keeps_the_earliest_then_the_lowest_rated():
    pairs = [(1, 2), (0, 5), (1, 2), (0, 5), (1, 1)]
    out = do.distinct(block(pairs, rating=[5.0, 4.0, 1.0, 3.0, 2.0], timestamp=[10, 7, 20, 7, 9]))
    assert out.to_pydict() == {
        "user": [0, 1, 1],
        "item": [5, 1, 2],
        "rating": [3.0, 2.0, 5.0],
        "timestamp": [7, 9, 10],
    }


@given(st.lists(st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1)), max_size=30), st.randoms())
def test_distinct_is_the_sorted_set(pairs, random):
    repeated = pairs + random.choices(pairs, k=10) if pairs else []
    random.shuffle(repeated)
    out = do.distinct(block(repeated))
    assert list(zip(*out.to_pydict().values(), strict=True)) == sorted(set(pairs))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5))))
def test_tally_counts_users_and_items(pairs):
    counted = {(row["side"], row["key"]): row["count"] for row in do.tally(block(pairs)).to_pylist()}
    expected = Counter((side, pair[side]) for pair in pairs for side in (0, 1))
    assert counted == expected


def test_encode_and_renumber():
    ids = pa.table({"user": ["b", "a", "b"], "item": ["x", "y", "y"], "timestamp": [1, 2, 3]})
    coded = do.encode(ids, pa.array(["a", "b"]), pa.array(["y", "x"]))
    assert coded.to_pydict() == {"user": [1, 0, 1], "item": [1, 0, 0], "timestamp": [1, 2, 3]}
    assert coded.schema.field("user").type == pa.int32()
    new = do.renumber(coded, np.array([9, 8], np.int32), np.array([7, 6], np.int32))
    assert new.to_pydict() == {"user": [8, 9, 8], "item": [6, 7, 7], "timestamp": [1, 2, 3]}


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (do.tally, {}),
        (do.at_least, {"min_rating": 3}),
        (do.distinct, {}),
        (do.keep, {"users": np.zeros(0, bool), "items": np.zeros(0, bool)}),
        (do.renumber, {"users": np.zeros(0, np.int32), "items": np.zeros(0, np.int32)}),
        (do.split, {"test_ratio": 0.2, "valid_ratio": 0.1, "seed": 0}),
    ],
)
def test_blocks_without_rows(function, arguments):
    assert function(block([], rating=pa.array([], pa.float64())), **arguments).num_rows == 0
