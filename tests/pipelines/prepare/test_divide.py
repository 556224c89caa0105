from collections import Counter
from fractions import Fraction
from itertools import pairwise
from math import ceil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipelines.prepare import divide as division
from pipelines.prepare.clean import Cleaned
from pipelines.prepare.divide import divide, popularity_picks
from pipelines.prepare.engines import LocalEngine
from pipelines.prepare.rank import ranked
from pipelines.prepare.splits import SPLITS, TEST, TRAIN, VALID
from pipelines.prepare.steps import Steps
from pipelines.settings import PrepareSettings
from recloss.errors import InputError

ENGINE = LocalEngine(1)
PAIRS = st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=12)
RAW = Path("log.csv")


def cleaned(pairs, cuts=(), **columns):
    """A log with sorted ``pairs`` of ids (numbers), in blocks cut before the users ``cuts``."""
    pairs = sorted(pairs)
    ids = [sorted(set(side)) for side in zip(*pairs, strict=True)]
    codes = [[ids[side].index(pair[side]) for pair in pairs] for side in (0, 1)]
    values = {"user": pa.array(codes[0], pa.int32()), "item": pa.array(codes[1], pa.int32())}
    values |= {name: pa.array([given[pair] for pair in pairs], pa.int64()) for name, given in columns.items()}
    if "split" in values:
        values["split"] = values["split"].cast(pa.int8())
    whole = pa.table(values)
    edges = [0, *sorted({codes[0].index(user) for user in cuts if user in codes[0]} - {0}), len(pairs)]
    blocks = [whole[a:b] for a, b in pairwise(edges)]
    degrees = [np.bincount(side, minlength=len(own)) for side, own in zip(codes, ids, strict=True)]
    texts = [pa.array(map(str, own), pa.string()) for own in ids]
    return Cleaned(blocks, *texts, degrees, ("user", "item", *columns), [])


def divided(log, **settings):
    """Pair of ids -> split, the steps, and ids."""
    steps = Steps(RAW, lambda _: None)
    out = divide(ENGINE, log, PrepareSettings(**settings), RAW, steps.note)
    users, items = (list(map(int, side.to_pylist())) for side in (out.users, out.items))
    rows = [row for block in ENGINE.tables(out.blocks) for row in block.to_pylist()]
    found = {(users[row["user"]], items[row["item"]]): row["split"] for row in rows}
    assert len(found) == len(rows)
    for side, degree in enumerate(out.degrees):
        counts = Counter((split, pair[side]) for pair, split in found.items())
        names = (users, items)[side]
        assert {(s, names[k]): n for s, of in enumerate(degree.tolist()) for k, n in enumerate(of) if n} == counts
    assert out.sizes == {split: list(found.values()).count(code) for code, split in enumerate(SPLITS)}
    return found, steps.done, (users, items)


def succeeds(function, *arguments, **settings):
    try:
        return function(*arguments, **settings)
    except InputError as error:
        if "would be empty" not in str(error) and "every item keeps one" not in str(error):
            raise
        assume(False)


# --- rank


@given(
    st.lists(
        st.tuples(st.one_of(st.integers(0, 3), st.integers(0, 2**63 - 1)), st.integers(0, 4), st.integers(0, 5)),
        min_size=1,
        unique=True,
    ),
    st.integers(1, 5),
)
def test_ranked_is_the_sorted_row(keys, n):
    table = pa.table(
        {name: pa.array(of) for name, of in zip(("t", "user", "item"), zip(*keys, strict=True), strict=True)}
    )
    blocks = [table[at::1][: -(-len(keys) // n)] for at in range(0, len(keys), -(-len(keys) // n))]
    assert [ranked(ENGINE, blocks, "t", rank) for rank in range(len(keys))] == sorted(keys)


# --- temporal


@given(PAIRS, st.sets(st.integers(0, 7)), st.sampled_from([0.2, 0.35]), st.sampled_from([0.0, 0.2]), st.data())
def test_temporal_is_one_cut_of_the_sorted_log(pairs, cuts, test_ratio, gap_ratio, data):
    time = {pair: data.draw(st.integers(0, 4)) for pair in sorted(pairs)}
    settings = {"split": "temporal", "test_ratio": test_ratio, "gap_ratio": gap_ratio, "valid_ratio": 0.3}
    found, steps, ids = succeeds(divided, cleaned(pairs, cuts, timestamp=time), **settings)
    order = sorted(pairs, key=lambda pair: (time[pair], pair))
    n_test = ceil(Fraction(str(test_ratio)) * len(pairs))
    n_train = len(pairs) - ceil((Fraction(str(test_ratio)) + Fraction(str(gap_ratio))) * len(pairs))
    train, test = order[:n_train], order[len(pairs) - n_test :]
    seen = [{pair[side] for pair in train} for side in (0, 1)]
    known = {pair for pair in test if pair[0] in seen[0] and pair[1] in seen[1]}
    assert {pair for pair, split in found.items() if split == TEST} == known
    assert {pair for pair, split in found.items() if split != TEST} == set(train)
    assert [set(side) for side in ids] == seen
    sizes = Counter(user for user, _ in train)
    assert Counter(u for (u, _), split in found.items() if split == VALID) == Counter(
        {user: min(ceil(Fraction("0.3") * n), n - 1) for user, n in sizes.items() if n > 1}
    )
    assert steps[0]["left_out"] == len(pairs) - n_test - n_train
    assert steps[0]["test_from"] == time[test[0]]
    assert steps[1]["dropped_test"] == n_test - len(known)
    assert steps[1]["dropped_users"] == len({u for u, _ in pairs}) - len(seen[0])
    assert steps[1]["dropped_items"] == len({i for _, i in pairs}) - len(seen[1])


def test_temporal_needs_something_before_the_test_interactions():
    log = cleaned({(0, 0), (0, 1)}, timestamp={(0, 0): 1, (0, 1): 2})
    with pytest.raises(InputError, match=r"log\.csv: the train split would be empty, there are too few interactions"):
        divided(log, split="temporal", test_ratio=0.9)


# --- leave last


@given(PAIRS, st.sets(st.integers(0, 7)), st.data())
def test_leave_last_by_position_where_there_is_no_time(pairs, cuts, data):
    position = {pair: data.draw(st.integers(0, 50)) for pair in sorted(pairs)}
    log = cleaned(pairs, cuts, position=position)
    found, steps, _ = succeeds(divided, log, split="leave_last", test_last=2)
    for user in {user for user, _ in pairs}:
        of_user = sorted(((position[p], found[p]) for p in pairs if p[0] == user), key=lambda row: row)
        n = len(of_user)
        expected = [TRAIN] * (n - 3) + [VALID, TEST, TEST] if n > 3 else [TRAIN] * n
        assert sorted(split for _, split in of_user) == expected
        if len({place for place, _ in of_user}) == n:
            assert [split for _, split in of_user] == expected
    short = sum(n <= 3 for n in Counter(user for user, _ in pairs).values())
    assert steps[0]["users_too_short"] == short
    assert steps[0]["order"].startswith("position, equal ones by")


def test_leave_last_counts_the_users_whose_cut_is_a_tie():
    time = {(user, item): 5 if user < 3 else item for user in range(5) for item in range(4)}
    _, steps, _ = divided(cleaned(time, timestamp=time), split="leave_last")
    assert steps[0]["users_cut_by_ties"] == 3
    assert steps[0]["users_too_short"] == 0


# --- popularity


@given(PAIRS, st.sets(st.integers(0, 7)), st.sampled_from([0.1, 0.2, 0.4]), st.integers(0, 5))
def test_popularity_moves_the_asked_for_part_and_leaves_every_item_and_user_something(pairs, cuts, ratio, seed):
    settings = {"split": "popularity", "test_ratio": ratio, "split_seed": seed}
    found, steps, (users, items) = succeeds(divided, cleaned(pairs, cuts), **settings)
    assert steps[0]["test"] == ceil(Fraction(str(ratio)) * len(pairs))
    rest = {pair for pair, split in found.items() if split != TEST}
    assert {item for _, item in rest} == {item for _, item in pairs} == set(items)
    assert {user for user, _ in rest} == set(users)
    dropped = pairs - set(found)
    assert {user for user, _ in dropped}.isdisjoint(users)
    assert steps[1]["dropped_test"] == len(dropped) == steps[0]["test"] - steps[1]["test"]
    again, _, _ = divided(cleaned(pairs), **settings)
    assert again == found, "whatever the blocks"


def literal_popularity(pairs, wanted, random):
    """The definition, one pick at a time."""
    of_item = {}
    for user, item in sorted(pairs):
        of_item.setdefault(item, []).append(user)
    test = set()
    while len(test) < wanted:
        item = random.choice([item for item, users in of_item.items() if len(users) > 1])
        users = of_item[item]
        test.add((users.pop(random.integers(len(users))), item))
    return test


def test_popularity_has_the_distribution_of_the_literal_loop():
    pairs = {(user, item) for item, n in enumerate([9, 5, 3, 2, 1]) for user in range(9 - n, 9)}
    wanted, runs, random = 8, 3000, np.random.default_rng(0)
    spare = np.array([8, 4, 2, 1, 0])
    literal, ours = Counter(), Counter()
    for run in range(runs):
        loop = Counter(item for _, item in literal_popularity(pairs, wanted, random))
        literal[tuple(loop[item] for item in range(5))] += 1
        ours[tuple(popularity_picks(spare, wanted, run).tolist())] += 1
    assert set(ours) <= {key for key in ours if sum(key) == wanted and all(np.array(key) <= spare)}
    kinds = [kind for kind in literal if literal[kind] + ours[kind] >= 20]
    chi2 = sum((literal[kind] - ours[kind]) ** 2 / (literal[kind] + ours[kind]) for kind in kinds)
    freedom = len(kinds) - 1
    assert freedom > 10
    assert chi2 < freedom + 4 * (2 * freedom) ** 0.5  # four standard deviations


def test_which_of_an_items_users_are_picked_is_uniform():
    pairs = {(user, item) for user in range(6) for item in range(3)}
    counts = Counter()
    for seed in range(400):
        found, _, _ = divided(cleaned(pairs), split="popularity", test_ratio=0.3, split_seed=seed)
        counts.update(pair for pair, split in found.items() if split == TEST)
    share = np.array([counts[pair] / 400 for pair in sorted(pairs)])
    assert abs(share - share.mean()).max() < 4 * (share.mean() * (1 - share.mean()) / 400) ** 0.5


def test_validation_does_not_depend_on_which_were_picked_for_test():
    """With one stream for both, what is left of rarely used items would hardly ever become validation."""
    pairs = {(user, item) for user in range(60) for item in range(10)} | {(user, 10 + user // 3) for user in range(60)}
    rare = Counter()
    for seed in range(20):
        found, _, _ = divided(cleaned(pairs), split="popularity", split_seed=seed)
        rare.update(part for (_, item), part in found.items() if item >= 10 and part != TEST)
    share = rare[VALID] / rare.total()
    assert abs(share - 1 / 9) < 4 * (1 / 9 * 8 / 9 / rare.total()) ** 0.5  # one of about 9 that each user has left


def test_picks_do_not_depend_on_how_many_are_drawn_at_a_time_where_none_is_in_vain(monkeypatch):
    spare = np.full(50, 1000)
    whole = popularity_picks(spare, 500, 3)
    monkeypatch.setattr(division, "PICKS_AT_ONCE", 7)
    assert popularity_picks(spare, 500, 3).tolist() == whole.tolist()
    assert whole.sum() == 500


def test_popularity_that_asks_for_too_much():
    with pytest.raises(InputError, match=r"log\.csv: test_ratio 0.5 asks for 2 test interactions, but .* there are 1;"):
        divided(cleaned({(0, 0), (1, 0), (1, 1)}), split="popularity", test_ratio=0.5)


# --- given


def test_given_splits_stay_as_they_are():
    split = {(0, 0): TRAIN, (0, 1): VALID, (1, 3): TEST, (2, 2): TRAIN, (2, 3): TEST}
    found, steps, _ = divided(cleaned(split, split=split), split="given")
    assert found == split
    assert steps[0]["validation"] == "given"


@given(PAIRS, st.data())
def test_a_validation_split_that_is_not_given_is_cut_from_train(pairs, data):
    split = {pair: data.draw(st.sampled_from([TRAIN, TEST])) for pair in sorted(pairs)}
    found, steps, _ = succeeds(divided, cleaned(pairs, split=split), split="given", rounding="int")
    assert {pair for pair in pairs if found[pair] == TEST} == {pair for pair in pairs if split[pair] == TEST}
    train = Counter(user for (user, _), part in split.items() if part == TRAIN)
    valid = Counter(user for (user, _), part in found.items() if part == VALID)
    assert valid == Counter({user: min(max(n // 10, 1), n - 1) for user, n in train.items() if n > 1})
    assert steps[0]["validation"] == "cut from train"


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (
            [TRAIN, TEST],
            "1 pairs are in two splits and 0 are repeated in one, such as user '8' and item '5' in train and",
        ),
        ([TEST, TEST], "0 pairs are in two splits and 1 are repeated in one, such as user '8' and item '5' in test;"),
    ],
)
def test_a_repeated_pair_of_a_given_split_is_refused(splits, message):
    log = cleaned({(7, 4): 0, (8, 5): 0}, split={(7, 4): TRAIN, (8, 5): splits[0]})
    again = log.blocks[0][1:].set_column(2, "split", pa.array([splits[1]], pa.int8()))
    log.blocks[0] = pa.concat_tables([log.blocks[0], again])
    with pytest.raises(InputError, match=message):
        divided(log, split="given")


# --- all


@given(PAIRS, st.sets(st.integers(0, 7)), st.sampled_from(["iid", "temporal", "leave_last", "popularity"]), st.data())
def test_splits_partition_the_log_whatever_the_blocks(pairs, cuts, split, data):
    time = {pair: data.draw(st.integers(0, 9)) for pair in sorted(pairs)}
    found, steps, ids = succeeds(divided, cleaned(pairs, cuts, timestamp=time), split=split)
    dropped = steps[1]["dropped_test"] if len(steps) > 1 else 0
    assert set(found) <= pairs
    assert len(found) + dropped == len(pairs)
    trained = {user for (user, _), part in found.items() if part == TRAIN}
    assert trained == set(ids[0]), "every user has something in train"
    assert divided(cleaned(pairs, timestamp=time), split=split)[0] == found


@pytest.mark.parametrize("split", ["iid", "leave_last"])
def test_a_split_that_would_be_empty(split):
    log = cleaned({(0, 0), (1, 0)}, timestamp={(0, 0): 0, (1, 0): 1})
    with pytest.raises(InputError, match=r"log\.csv: the valid split would be empty, the users have too few"):
        divided(log, split=split)
