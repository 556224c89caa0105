from collections import Counter
from fractions import Fraction
from itertools import pairwise
from math import ceil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.prepare import noise as do
from pipelines.prepare.divide import counted
from pipelines.prepare.draws import draws
from pipelines.prepare.engines import LocalEngine
from pipelines.prepare.noise import add_noise
from pipelines.prepare.splits import POOL, TEST, TRAIN, VALID
from pipelines.prepare.steps import Steps
from pipelines.settings import Noise
from recloss.errors import InputError

ENGINE = LocalEngine(1)
RAW = Path("log.csv")
USERS, ITEMS = 6, 14
LOGS = st.dictionaries(
    st.tuples(st.integers(0, USERS - 1), st.integers(0, ITEMS - 1)), st.sampled_from([TRAIN, VALID, TEST]), min_size=1
)
"""(user, item) -> split."""


def blocks_of(log, cuts=()):
    rows = [(*pair, log[pair], 10 * pair[0] + pair[1]) for pair in sorted(log)]
    columns = zip(("user", "item", "split", "timestamp"), zip(*rows, strict=True), strict=True)
    types = {"user": pa.int32(), "item": pa.int32(), "split": pa.int8(), "timestamp": pa.int64()}
    whole = pa.table({name: pa.array(values, types[name]) for name, values in columns})
    users = whole["user"].to_pylist()
    edges = sorted({0, len(users), *(users.index(cut) for cut in cuts if cut in users)})
    return [whole[a:b] for a, b in pairwise(edges)]


def noisy(log, cuts=(), **settings):
    """Rows (user, item, split, timestamp) after the noise, in order, and the step."""
    ids = [pa.array(map(str, range(n))) for n in (USERS, ITEMS)]
    steps = Steps(RAW, lambda _: None)
    out = add_noise(ENGINE, counted(ENGINE, blocks_of(log, cuts), *ids), Noise(**settings), RAW, steps.note)
    rows = [tuple(row.values()) for block in out.blocks for row in block.to_pylist()]
    names = out.blocks[0].column_names
    rows = [
        tuple(dict(zip(names, row, strict=True))[n] for n in ("user", "item", "split", "timestamp")) for row in rows
    ]
    assert out.sizes.get("pool", 0) == sum(split == POOL for *_, split, _ in rows)
    return rows, steps.done[0]


def literal_false_positives(log, ratio, seed):
    """The definition, one draw at a time."""
    added = set()
    for user in {user for user, _ in log}:
        known = {item for other, item in log if other == user}
        left = [item for item in range(ITEMS) if item not in known]
        n = sum(other == user and split == TRAIN for (other, _), split in log.items())
        chosen, t = [], 0
        while len(chosen) < ceil(Fraction(str(ratio)) * n):
            drawn = int(draws(seed, np.array([user], np.int32), np.array([t], np.int32))[0])
            t += 1
            if (item := left[drawn * len(left) >> 64]) not in chosen:
                chosen.append(item)
        added |= {(user, item) for item in chosen}
    return added


@given(LOGS, st.sets(st.integers(0, USERS - 1)), st.sampled_from([0.05, 0.2, 0.5]), st.integers(0, 9))
def test_false_positives_are_those_of_the_literal_loop(log, cuts, ratio, seed):
    known, train = Counter(user for user, _ in log), Counter(u for (u, _), split in log.items() if split == TRAIN)
    short = sum(ceil(Fraction(str(ratio)) * n) > ITEMS - known[user] for user, n in train.items())
    settings = {"kind": "false_positives", "ratio": ratio, "seed": seed}
    if short:
        with pytest.raises(InputError, match=rf"log\.csv: noise false_positives of ratio .*: {short} users have"):
            noisy(log, cuts, **settings)
        return
    rows, step = noisy(log, cuts, **settings)
    assert rows == sorted(rows, key=lambda row: row[:2])
    added = literal_false_positives(log, ratio, do.stream(seed, "false positives"))
    before = {(*pair, split, 10 * pair[0] + pair[1]) for pair, split in log.items()}
    assert set(rows) == before | {(*pair, TRAIN, None) for pair in added}
    assert len(rows) == len(log) + len(added)
    assert step["train"] == sum(train.values()) + len(added)


def test_false_positives_that_take_several_rounds_are_those_of_the_literal_loop():
    log = {(0, item): TRAIN for item in range(8)}
    for seed in range(40):
        rows, _ = noisy(log, kind="false_positives", ratio=0.5, seed=seed)
        added = literal_false_positives(log, 0.5, do.stream(seed, "false positives"))
        assert {row[:2] for row in rows if row[3] is None} == added


def test_false_positives_of_nearly_the_whole_catalogue():
    log = {(0, item): TRAIN for item in range(ITEMS - 4)}
    rows, _ = noisy(log, kind="false_positives", ratio=0.4)
    assert [item for _, item, *_ in rows] == list(range(ITEMS)), "every item that was left"


def test_false_positives_are_uniform_over_what_is_left():
    log = {(0, item): split for item, split in zip(range(0, 14, 3), [TRAIN, VALID, TEST, TRAIN, TRAIN], strict=True)}
    counts = Counter()
    for seed in range(600):
        rows, _ = noisy(log, kind="false_positives", ratio=0.5, seed=seed)
        counts.update(item for _, item, _, time in rows if time is None)
    assert set(counts) == {item for item in range(14) if item % 3}
    share = np.array(list(counts.values())) / 600
    assert abs(share - 2 / 9).max() < 4 * (2 / 9 * 7 / 9 / 600) ** 0.5


@given(LOGS, st.sets(st.integers(0, USERS - 1)), st.sampled_from([0.1, 0.5]), st.booleans(), st.integers(0, 9))
def test_the_pool_are_the_smallest_draws_of_all_of_train(log, cuts, ratio, keep, seed):
    settings = {"kind": "false_negative_pool", "ratio": ratio, "seed": seed, "keep_as_positive": keep}
    train = {pair for pair, split in log.items() if split == TRAIN}
    size = int(Fraction(str(ratio)) * len(train))
    if not size:
        with pytest.raises(
            InputError, match=rf"log\.csv: noise false_negative_pool: .* of {len(train)} pairs are none"
        ):
            noisy(log, cuts, **settings)
        return
    rows, step = noisy(log, cuts, **settings)
    users, items = (np.array(side, np.int32) for side in zip(*sorted(train), strict=True))
    drawn = draws(do.stream(seed, "false negative pool"), users, items).tolist()
    pool = {pair for _, pair in sorted(zip(drawn, sorted(train), strict=True))[:size]}
    after = Counter(row[:3] for row in rows)
    expected = Counter({(*pair, split): 1 for pair, split in log.items() if keep or pair not in pool})
    assert after == expected + Counter({(*pair, POOL): 1 for pair in pool})
    assert all(time == 10 * user + item for user, item, _, time in rows)
    for code in (TRAIN, POOL):
        part = [row[:2] for row in rows if row[2] == code]
        assert part == sorted(part)
    assert (step["pool"], step["train"]) == (size, len(train) - (0 if keep else size))
    left = {user for user, _, split, _ in rows if split == TRAIN}
    assert step["users_without_train"] == USERS - len(left)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (do.false_positives, {"n_items": 5, "ratio": 0.1, "seed": 0}),
        (do.train_draws, {"seed": 0}),
        (do.pooled, {"end": (0, 0, 0), "seed": 0, "keep_as_positive": True}),
        (do.pooled, {"end": (0, 0, 0), "seed": 0, "keep_as_positive": False}),
    ],
)
def test_blocks_without_rows(function, arguments):
    assert function(blocks_of({(0, 0): TRAIN})[0][:0], **arguments).num_rows == 0
