from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.prepare import blocks as do

PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)))


def block(pairs, **columns):
    users, items = zip(*pairs, strict=True) if pairs else ((), ())
    coded = {"user": pa.array(users, pa.int32()), "item": pa.array(items, pa.int32())}
    return pa.table(coded | {name: pa.array(values) for name, values in columns.items()})


def as_read(pairs, number=0, **columns):
    """A block as an engine reads it."""
    users, items = zip(*pairs, strict=True) if pairs else ((), ())
    coded = {
        side: pa.array(ids, pa.string()).dictionary_encode() for side, ids in zip(do.SIDES, (users, items), strict=True)
    }
    table = pa.table(coded | {name: pa.array(values) for name, values in columns.items()})
    return table.append_column("number", pa.array([number] * len(pairs), pa.int32()))


def rows(table):
    return list(zip(*table.to_pydict().values(), strict=True))


# --- from ids to indices

READ = as_read(
    [("b", "x"), ("a", "y"), ("b", "x"), (None, None)],
    number=7,
    rating=[1.0, 3.0, 4.0, None],
    refused=[None, None, None, "log, line 4: no"],
)


def test_occurrences_are_counted_before_and_after_the_rating_filter():
    assert rows(do.occurrences(READ, 2.0)) == [
        (7, 0, "b", 2, 1),
        (7, 0, "a", 1, 1),
        (7, 1, "x", 2, 1),
        (7, 1, "y", 1, 1),
    ]
    assert do.occurrences(READ, None)["kept"].to_pylist() == [2, 1, 2, 1]


def test_ids_of_refused_rows_do_not_occur():
    table = as_read([("b", "x"), ("", "y")], rating=[1.0, 2.0], refused=[None, "log, line 2: user is empty"])
    assert do.occurrences(table, None)["id"].to_pylist() == ["b", "x"]
    assert rows(do.encode(table, {0: (0, 0)}, np.array([4], np.int32), np.array([5], np.int32))) == [(4, 5, 1.0)]


def test_encode_takes_the_indices_of_its_own_block():
    users, items = np.array([-1, 30, 20], np.int32), np.array([-1, -1, 50, 60], np.int32)
    coded = do.encode(READ, {3: (0, 0), 7: (1, 2)}, users, items)
    assert rows(coded) == [(30, 50, 1.0), (20, 60, 3.0), (30, 50, 4.0)]
    assert [coded.schema.field(side).type for side in do.SIDES] == [pa.int32(), pa.int32()]


def test_a_block_joined_of_two_has_one_dictionary():
    joined = pa.concat_tables([as_read([("b", "x"), ("a", "x")], 4), as_read([("c", "y"), ("b", "z")], 5)])
    found = do.occurrences(joined, None)
    assert rows(found)[:3] == [(4, 0, "b", 2, 2), (4, 0, "a", 1, 1), (4, 0, "c", 1, 1)]
    coded = do.encode(joined, {4: (0, 0)}, np.arange(3, dtype=np.int32), np.arange(3, dtype=np.int32))
    assert rows(coded) == [(0, 0), (1, 0), (2, 1), (0, 2)]


def test_refused_rows_are_counted_and_the_first_told():
    table = as_read([("a", "x")] * 150, refused=[f"line {n}" if n % 10 else None for n in range(150)])
    assert do.refused(table).to_pydict() == {"count": [135], "messages": [[f"line {n}" for n in range(112) if n % 10]]}
    assert do.refused(READ.slice(0, 3))["count"].to_pylist() == [0]


# --- one interaction per pair

CONTENT = {"timestamp": [10, 7, 20, 7, 9, 7], "position": [0, 1, 2, 1, 0, 1], "rating": [5.0, 4.0, 1.0, 3.0, 2.0, 3.5]}
REPEATED = [(1, 2), (0, 5), (1, 2), (0, 5), (1, 1), (0, 5)]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ("any", [(0, 5, 7, 1, 3.0), (1, 1, 9, 0, 2.0), (1, 2, 10, 0, 5.0)]),
        ("first", [(0, 5, 7, 1, 3.0), (1, 1, 9, 0, 2.0), (1, 2, 10, 0, 5.0)]),
        ("last", [(0, 5, 7, 1, 4.0), (1, 1, 9, 0, 2.0), (1, 2, 20, 2, 1.0)]),
    ],
)
def test_distinct_keeps_by_time_then_place_then_rating(keep, expected):
    assert rows(do.distinct(block(REPEATED, **CONTENT), keep)) == expected


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 2), st.integers(0, 2)), max_size=40),
    st.sampled_from(["any", "first", "last"]),
    st.randoms(),
)
def test_distinct_is_the_end_of_the_sorted_content(content, keep, random):
    random.shuffle(content)
    pairs = [row[:2] for row in content]
    columns = {"timestamp": [row[2] for row in content], "rating": [float(row[3]) for row in content]}
    best = {}
    for row in sorted(content, reverse=keep != "last"):
        best[row[:2]] = row
    assert rows(do.distinct(block(pairs, **columns), keep)) == sorted(best.values())


@given(st.lists(st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1)), max_size=30), st.randoms())
def test_distinct_of_pairs_is_the_sorted_set(pairs, random):
    repeated = pairs + random.choices(pairs, k=10) if pairs else []
    random.shuffle(repeated)
    assert rows(do.distinct(block(repeated))) == sorted(set(pairs))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)), max_size=30))
def test_ordered_keeps_all_and_sorts_by_pair_then_split(content):
    table = block([row[:2] for row in content], split=pa.array([row[2] for row in content], pa.int8()))
    assert rows(do.ordered(table)) == sorted(content)


# --- counts and the k-core


def counted(table):
    found = [((row["side"], row["key"]), row["count"]) for row in table.to_pylist()]
    assert len(dict(found)) == len(found), "a key twice"
    return dict(found)


def degrees(pairs):
    return Counter((side, pair[side]) for pair in pairs for side in (0, 1))


@given(PAIRS, st.sampled_from([0, 10**6]))
def test_tally_counts_users_and_items(pairs, start):
    pairs = [(user + start, item) for user, item in pairs]
    assert counted(do.tally(block(pairs))) == degrees(pairs)


@given(PAIRS, st.sets(st.integers(0, 5)), st.integers(0, 4))
def test_core_pass_drops_unmarked_items_then_users_with_too_little(pairs, marked, k):
    pairs = sorted(set(pairs))
    items = np.isin(np.arange(6), list(marked))
    left = [pair for pair in pairs if pair[1] in marked]
    enough = {user for user, n in Counter(user for user, _ in left).items() if n >= k}
    assert counted(do.core_pass(block(pairs), items, k)) == degrees([pair for pair in left if pair[0] in enough])


# --- the others


@given(PAIRS, st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_by_group_gives_every_row_to_the_group_of_its_key(pairs, groups):
    table = block(pairs, place=list(range(len(pairs))))
    parts = do.by_group(do.grouped(table, "item", np.array(groups, np.uint16)), 4)
    assert [rows(part) for part in parts] == [
        [(*pair, place) for place, pair in enumerate(pairs) if groups[pair[1]] == group] for group in range(4)
    ]


def test_keep_at_least_and_renumber():
    table = block([(0, 1), (1, 0), (2, 1)], rating=[1.0, 2.0, 3.0])
    assert rows(do.keep(table, np.array([True, True, False]), np.array([False, True]))) == [(0, 1, 1.0)]
    assert rows(do.at_least(table, 2)) == [(1, 0, 2.0), (2, 1, 3.0)]
    new = do.renumber(table, np.array([9, 8, 7], np.int32), np.array([6, 5], np.int32))
    assert rows(new) == [(9, 5, 1.0), (8, 6, 2.0), (7, 5, 3.0)]


NOTHING = np.zeros(0, np.int32)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (do.tally, {}),
        (do.at_least, {"min_rating": 3}),
        (do.distinct, {}),
        (do.distinct, {"keep": "last"}),
        (do.ordered, {}),
        (do.core_pass, {"items": NOTHING.astype(bool), "k": 2}),
        (do.grouped, {"key": "user", "groups": NOTHING.astype(np.uint16)}),
        (do.keep, {"users": NOTHING.astype(bool), "items": NOTHING.astype(bool)}),
        (do.renumber, {"users": NOTHING, "items": NOTHING}),
    ],
)
def test_blocks_without_rows(function, arguments):
    assert function(block([], rating=pa.array([], pa.float64())), **arguments).num_rows == 0
