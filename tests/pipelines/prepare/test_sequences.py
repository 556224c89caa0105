"""Task sequence from the raw log to the prepared dataset, against plain loops over the raw lines."""

import gzip
import json
from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipelines.commands import run as recloss
from pipelines.prepare import engines, folder, load, prepare, sequences
from pipelines.prepare.inspect import inspect
from pipelines.prepare.readers import streams
from pipelines.prepare.shown import shown
from pipelines.prepare.verify import verify
from pipelines.prepare.verify_order import Places
from pipelines.prepare.words import differences
from pipelines.settings import Columns, PrepareSettings, parse
from recloss.errors import InputError

RATED = Columns(rating="rating", timestamp="timestamp")
SPLITS = ("train", "valid", "test")


def settings(**given):
    return PrepareSettings(task="sequence", **given)


def timed(**given):
    return settings(columns=RATED, **given)


def write_log(path, rows, header="user,item,rating,timestamp"):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{','.join(map(str, row))}\n" for row in [header.split(","), *rows]))
    return path


def some_rows(n=900, users=40, items=30, times=60, seed=0):
    """Skewed (user, item, rating, time) in no order, with repeated pairs, some of them at one time."""
    draw = np.random.default_rng(seed)
    columns = (
        draw.beta(1, 2, n) * users,
        draw.beta(1, 2, n) * items,
        draw.integers(1, 6, n),
        draw.integers(0, times, n),
    )
    return list(zip(*(column.astype(int).tolist() for column in columns), strict=True))


def ids(path, side):
    return pq.read_table(path / f"{side}.parquet")["id"].to_pylist()


def rows_of(path, split):
    """(user id, position, item id) of a split, in the order of its shards."""
    users, items = ids(path, "users"), ids(path, "items")
    tables = [pq.read_table(file) for file in sorted((path / split).iterdir())]
    table = pa.concat_tables(tables).to_pydict() if tables else {"user": [], "position": [], "item": []}
    places = zip(table["user"], table["position"], table["item"], strict=True)
    return [(users[user], position, items[item]) for user, position, item in places]


def sequences_of(path):
    """User id -> (training, validation, test items), which also says that positions go on from split to split."""
    found = {user: ([], [], []) for user in ids(path, "users")}
    for part, split in enumerate(SPLITS):
        rows = rows_of(path, split)
        assert rows == sorted(rows, key=lambda row: (ids(path, "users").index(row[0]), row[1]))
        for user, position, item in rows:
            assert position == sum(map(len, found[user]))
            found[user][part].append(item)
    return found


def expected(rows, min_rating=None, keep="all", k_users=1, k_items=1, test=1, valid=1):
    """The same by loops, of (user, item, rating, time) in the order of the log."""
    rows = [row for row in rows if min_rating is None or row[2] >= min_rating]
    rows = sorted(rows, key=lambda row: row[3])  # stable
    if keep != "all":
        rows = {(user, item): None for user, item, *_ in (rows if keep != "last" else rows[::-1])}
        rows = [(*pair, 0, 0) for pair in (list(rows) if keep != "last" else list(rows)[::-1])]
    while True:
        users, items = Counter(row[0] for row in rows), Counter(row[1] for row in rows)
        left = [row for row in rows if users[row[0]] >= k_users and items[row[1]] >= k_items]
        if left == rows:
            break
        rows = left
    whole = defaultdict(list)
    for user, item, *_ in rows:
        whole[str(user)].append(str(item))
    cut = {}
    for user, own in whole.items():
        n = len(own)
        cut[user] = (
            (own, [], []) if n <= test + valid else (own[: -test - valid], own[-test - valid : -test], own[-test:])
        )
    return cut


def contents(path):
    return {str(f.relative_to(path)): f.read_bytes() for f in sorted(path.rglob("*")) if f.is_file()}


@pytest.fixture
def log(tmp_path):
    return write_log(tmp_path / "log.csv", some_rows())


VARIANTS = [
    {},
    {"min_rating": 2, "k_core": 5},
    {"k_core": {"users": 3, "items": 25}, "test_last": 2, "valid_last": 3},
    {"keep": "any"},
    {"keep": "first", "k_core": 4},
    {"keep": "last", "min_rating": 3},
]


@pytest.mark.parametrize("given", VARIANTS)
def test_sequences_are_those_of_the_log(tmp_path, log, given):
    manifest = prepare(log, tmp_path / "out", timed(**given))
    core = given.get("k_core", 1)
    core = core if isinstance(core, dict) else {"users": core, "items": core}
    wanted = expected(
        some_rows(), given.get("min_rating"), given.get("keep", "all"), core["users"], core["items"],
        given.get("test_last", 1), given.get("valid_last", 1),
    )  # fmt: skip
    assert sequences_of(tmp_path / "out") == wanted
    assert manifest["task"] == manifest["settings"]["task"] == "sequence"
    assert manifest["sizes"] == {
        "users": len(wanted),
        "items": len({item for own in wanted.values() for part in own for item in part}),
        **{split: sum(len(own[at]) for own in wanted.values()) for at, split in enumerate(SPLITS)},
    }
    assert manifest["distinct"] == {
        split: sum(len(set(own[at])) for own in wanted.values()) for at, split in enumerate(SPLITS)
    }
    order = next(step for step in manifest["steps"] if step["step"] == "order")
    whole = [[*train, *valid, *test] for train, valid, test in wanted.values()]
    assert order["repeated"] == sum(len(own) - len(set(own)) for own in whole)
    assert (order["repeated"] > 0) == ("keep" not in given)
    assert ("distinct" in [step["step"] for step in manifest["steps"]]) == ("keep" in given)
    assert all(check.ok for check in verify(tmp_path / "out"))
    assert load(tmp_path / "out").n_users == len(wanted)


def test_ties_are_counted(tmp_path):
    rows = [(1, "abcde"[at], 5, time) for at, time in enumerate([7, 7, 8, 9, 9])]  # a b | c d | e: cut in d, e
    rows += [(2, "abcde"[at], 5, time) for at, time in enumerate([9, 9, 9, 10, 11])]
    rows += [(3, "ab"[at], 5, 11) for at in range(2)]
    manifest = prepare(write_log(tmp_path / "log.csv", rows), tmp_path / "out", timed())
    order, split = manifest["steps"][-2:]
    assert (order["step"], order["tied"], order["repeated"]) == ("order", 1 + 1 + 2 + 1, 0)
    assert (split["users_cut_by_ties"], split["users_too_short"]) == (1, 1)
    assert sequences_of(tmp_path / "out")["1"] == (["a", "b", "c"], ["d"], ["e"])
    assert sequences_of(tmp_path / "out")["3"] == (["a", "b"], [], [])
    told = "\n".join(shown(inspect(tmp_path / "out")))
    assert "Put in order, 5 at the time of the one before; 0 interactions repeat an earlier pair" in told
    assert "equal times decided for 1 users, 1 have too few interactions and stay in train" in told


def test_what_repeats_is_told_and_no_error(tmp_path, log):
    prepare(log, tmp_path / "out", timed())
    found = inspect(tmp_path / "out")
    wanted = expected(some_rows())
    assert found.shared["train", "test"] == sum(len(set(own[0]) & set(own[2])) for own in wanted.values()) > 0
    pairs = {(user, item) for user, own in wanted.items() for part in own for item in part}
    assert found.density == len(pairs) / (found.users.size * found.items.size)
    told = "\n".join(shown(found))
    assert f"pairs in two splits: {sum(found.shared.values())}\n" in told
    assert "must be 0" not in told


# --- the same bytes


@hypothesis_settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(1, 5), st.integers(0, 3)), min_size=3),
    size=st.integers(1, 80),
    group=st.integers(1, 5),
    cut=st.integers(0, 30),
)
def test_blocks_and_files_do_not_show(tmp_path_factory, monkeypatch, rows, size, group, cut):
    wanted = expected(rows)
    if not any(len(own[1]) for own in wanted.values()):
        return
    place = tmp_path_factory.mktemp("blocks")
    whole = prepare(write_log(place / "log.csv", rows), place / "whole", timed())
    assert sequences_of(place / "whole") == wanted
    write_log(place / "parts" / "a.csv", rows[:cut] or rows)
    if rows[:cut] and rows[cut:]:
        write_log(place / "parts" / "b.csv", rows[cut:])
    with monkeypatch.context() as patch:
        patch.setattr(streams, "BLOCK_BYTES", size)
        patch.setattr(engines, "PART_BYTES", 3 * size)
        patch.setattr(engines, "GROUP_ROWS", group)
        patch.setattr(folder, "SHARD_ROWS", 10 * group)
        cut_up = prepare(place / "parts", place / "cut", timed())
    assert cut_up["fingerprint"] == whole["fingerprint"]
    assert sequences_of(place / "cut") == wanted
    assert all(check.ok for check in verify(place / "cut"))


@pytest.mark.parametrize("given", [{}, {"keep": "last", "k_core": 3}])
def test_ray_gives_the_same_bytes(tmp_path, ray_local, monkeypatch, given):
    rows = some_rows(n=1500) + [(98 + at % 2, 250 * (at % 2) + at // 2, 3, at % 7) for at in range(1400)]
    for part in range(3):
        write_log(tmp_path / "parts" / f"{part}.csv", rows[part::3])
    local = prepare(tmp_path / "parts", tmp_path / "local", timed(**given), engine="local")
    monkeypatch.setattr(engines, "GROUP_ROWS", 300)
    ray = prepare(tmp_path / "parts", tmp_path / "ray", timed(**given), engine="ray")
    assert ray == local
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    if not given:
        assert sequences_of(tmp_path / "ray") == expected([row for part in range(3) for row in rows[part::3]])


def test_equal_times_keep_the_order_of_the_log_when_bad_rows_are_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "BLOCK_BYTES", 40)
    rows = [(at % 3, f"i{at}", "x" if at % 5 == 2 else 1, 9) for at in range(60)]
    raw = write_log(tmp_path / "log.csv", rows)
    prepare(raw, tmp_path / "out", timed(on_bad_row="skip"))
    assert sequences_of(tmp_path / "out") == expected([row for row in rows if row[2] == 1])


@pytest.mark.parametrize("form", ["ms", "iso", "mixed", "parquet"])
def test_parts_of_a_second_order_sequences(tmp_path, form):
    order = [3, 1, 4, 0, 2, 5]
    base = 1_000_000_000_000
    if form == "parquet":
        stamps = pa.array([1000 * (base + at) for at in order], pa.timestamp("us"))
        table = pa.table({"user": ["u"] * 6, "item": [f"i{at}" for at in order], "timestamp": stamps})
        pq.write_table(table, raw := tmp_path / "log.parquet")
    else:
        zone = {"iso": lambda at: "Z", "mixed": lambda at: "Z" * (at % 2)}
        stamp = (lambda at: base + at) if form == "ms" else lambda at: f"2001-09-09T01:46:40.{at:03}{zone[form](at)}"
        raw = write_log(tmp_path / "log.csv", [("u", f"i{at}", 1, stamp(at)) for at in order])
    prepare(raw, tmp_path / "out", settings(columns=Columns(timestamp="timestamp")))
    assert sequences_of(tmp_path / "out") == {"u": (["i0", "i1", "i2", "i3"], ["i4"], ["i5"])}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["steps"][-2]["tied"] == manifest["steps"][-1]["users_cut_by_ties"] == 0
    shard = pq.read_table(tmp_path / "out" / "train" / "part-00000.parquet")
    assert shard["timestamp"].to_pylist() == [base // 1000] * 4, "in seconds, as in every shard"


def test_the_place_in_the_log_counts_good_rows_and_orders_whatever_the_block_did():
    numbers = pa.array([4] * 5, pa.int32())
    block = pa.table({"number": numbers, "refused": [None, "bad", None, "bad", None]})
    assert sequences.placed(block, {4: 100, 5: 200}).filter(pc.is_null(block["refused"]))["place"].to_pylist() == [
        100,
        101,
        102,
    ]
    assert sequences.placed(block.drop_columns("refused"), {4: 7})["place"].to_pylist() == [7, 8, 9, 10, 11]
    rows = {"user": [1, 0, 1, 1, 0], "item": [5, 6, 7, 5, 6], "timestamp": [3, 3, 3, 2, 3], "place": [4, 3, 1, 9, 0]}
    of = pa.table({name: pa.array(values, pa.int64()) for name, values in rows.items()})
    assert sequences.in_order(of, "timestamp", "all").to_pydict() == {
        "user": [0, 0, 1, 1, 1],
        "item": [6, 6, 5, 7, 5],
        "timestamp": [3, 3, 2, 3, 3],
    }
    assert sequences.in_order(of, None, "all")["item"].to_pylist() == [6, 6, 7, 5, 5]
    assert sequences.in_order(of, "timestamp", "last")["item"].to_pylist() == [6, 7, 5]
    assert sequences.in_order(of, "timestamp", "first")["item"].to_pylist() == [6, 5, 7]


# --- logs with an order and no times

LINES = {"1": [5, 5, 2, 9, 5], "10": [2, 9], "2": [9, 2, 5, 5]}


def lines(path, of=LINES):
    path.write_text("".join(f"{user} {' '.join(map(str, items))}\n" for user, items in of.items()))
    return path


@pytest.mark.parametrize("given", [{}, {"format": "sequences"}])
def test_lines_of_items_are_recognised_as_sequences(tmp_path, given):
    said = []
    prepare(lines(tmp_path / "log.txt"), tmp_path / "out", settings(**given), on_step=said.append)
    assert said[0] == "format: sequences, 1 file" + (
        "" if given else " (recognised by user item item ..., oldest item first)"
    )
    assert sequences_of(tmp_path / "out") == {
        "1": (["5", "5", "2"], ["9"], ["5"]),
        "10": (["2", "9"], [], []),
        "2": (["9", "2"], ["5"], ["5"]),
    }


def test_a_user_on_two_lines_goes_on(tmp_path):
    (tmp_path / "log.txt").write_text("7 1 2 3\n8 3 2 1\n7 4 1\n")
    prepare(tmp_path / "log.txt", tmp_path / "out", settings(format="sequences"))
    assert sequences_of(tmp_path / "out")["7"] == (["1", "2", "3"], ["4"], ["1"])


def test_padded_sequences(tmp_path):
    (tmp_path / "log.csv").write_text("0,0,3,3,7\n0,0,0,9,7\n1,7,3,9,3\n0,0,0,0,7\n")
    prepare(tmp_path / "log.csv", tmp_path / "out", settings(keep="first"))
    assert sequences_of(tmp_path / "out") == {
        "0": (["3", "7"], [], []),
        "1": (["9", "7"], [], []),
        "2": (["1", "7"], ["3"], ["9"]),
        "3": (["7"], [], []),
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0,1,0,4", "0 (padding) after an item; it is accepted on the left only"),
        ("0,0,0,0", "no item, 0 (padding) alone"),
        ("0,0,1", "3 values, expected 4"),
        ("0,0,x,1", "item 'x' is not a whole number"),
        ("0,0,-2,1", "item '-2' is not a whole number"),
    ],
)
def test_malformed_padded_lines_are_named_wherever_they_are(tmp_path, line, message):
    good = ["0,1,2,3", "0,0,3,1", "1,2,3,4"] * 9
    for at in (0, 13):
        (tmp_path / "log.csv").write_text("\n".join([*good[:at], line, *good[at:]]) + "\n")
        with pytest.raises(InputError) as raised:
            prepare(tmp_path / "log.csv", tmp_path / "out", settings(format="padded-sequences"))
        assert str(raised.value) == f"log.csv, line {at + 1}: {message}"
    assert not (tmp_path / "out").exists()


# --- settings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"split": "given"}, "split 'given' cannot be used with task 'sequence'; accepted: leave_last"),
        ({"split": "temporal"}, "split 'temporal' cannot be used with task 'sequence'; accepted: leave_last"),
        ({"split": "iid"}, "split 'iid' cannot be used with task 'sequence'; accepted: leave_last"),
        ({"noise": {"kind": "false_positives"}}, "noise cannot be used with task 'sequence'"),
        ({"split_seed": 1}, "split_seed has no effect with task 'sequence'"),
        ({"task": "pairs", "keep": "all"}, "keep 'all' can be used with task 'sequence' alone; accepted here: any"),
        ({"task": "sequences"}, "task: Input should be 'pairs', 'sequence', 'rank' or 'link', got 'sequences'"),
    ],
)
def test_what_sequences_cannot_have_is_refused_in_one_line(given, message):
    with pytest.raises(InputError) as raised:
        parse(PrepareSettings, {"task": "sequence"} | given, "sweep.yaml")
    assert str(raised.value).startswith(f"sweep.yaml: {message}")
    assert "\n" not in str(raised.value)


def test_a_log_without_order_is_refused(tmp_path):
    raw = write_log(tmp_path / "log.csv", [(1, 2), (1, 3), (1, 4)], header="user,item")
    with pytest.raises(InputError, match=r"log\.csv: split leave_last needs a timestamp or position column"):
        prepare(raw, tmp_path / "out", settings())


def test_a_given_split_is_not_advised(tmp_path):
    for name in ("train", "test"):
        lines(tmp_path / f"{name}.txt")
    with pytest.raises(InputError, match=r"given split \(train\.txt \+ test\.txt\); give one file to split it anew"):
        prepare(tmp_path, tmp_path / "out", settings())


def test_pairs_say_nothing_of_tasks(tmp_path, log):
    manifest = prepare(log, tmp_path / "out", PrepareSettings(columns=RATED))
    assert "task" not in manifest["settings"]
    assert "distinct" not in manifest
    assert manifest["task"] == "pairs"
    assert PrepareSettings(columns=RATED).equal(manifest["settings"])
    assert not timed().equal(manifest["settings"])
    with pytest.raises(InputError, match="prepared before with other task and settings"):
        prepare(log, tmp_path / "out", timed())
    sequential = prepare(log, tmp_path / "sequences", timed())
    assert differences(manifest, sequential)[0] == "task pairs against sequence"


def test_command_and_yaml_mean_the_same(tmp_path, log, capsys):
    (tmp_path / "prepare.yaml").write_text("{task: sequence, k_core: 2, columns: {timestamp: timestamp}}")
    by_file = ["prepare", "--raw", str(log), "--config", str(tmp_path / "prepare.yaml"), "--out", str(tmp_path / "out")]
    options = ["--task", "sequence", "--k-core", "2", "--timestamp", "timestamp"]
    assert recloss(by_file) == 0
    assert recloss(["prepare", "--raw", str(log), *options, "--out", str(tmp_path / "out")]) == 0
    assert f"unchanged: {tmp_path / 'out'}" in capsys.readouterr().out


def test_task_and_order_are_in_the_fingerprint(tmp_path):
    prints = set()
    for name, items in (("a", [1, 2, 3, 4]), ("b", [2, 1, 3, 4])):
        raw = lines(tmp_path / f"{name}.txt", {"7": items})
        of_pairs = PrepareSettings(format="sequences", split="leave_last")
        prints.add(prepare(raw, tmp_path / name, settings(format="sequences"))["fingerprint"])
        prints.add(prepare(raw, tmp_path / f"{name}-pairs", of_pairs)["fingerprint"])
        pairs = (load(tmp_path / folder).train for folder in (name, f"{name}-pairs"))
        assert len({tuple(sorted(zip(*map(np.ndarray.tolist, pair), strict=True))) for pair in pairs}) == 1
    assert len(prints) == 4


# --- verify


def damage(path, split, change):
    file = next((path / split).iterdir())
    pq.write_table(change(pq.read_table(file)), file)


def set_column(table, name, values):
    return table.set_column(table.column_names.index(name), name, pa.array(values, table[name].type))


@pytest.mark.parametrize(
    ("split", "change", "wrong"),
    [
        ("train", lambda table: table.take([1, 0, *range(2, len(table))]), "order of user and position"),
        ("train", lambda table: set_column(table, "position", [0, 0, *table["position"].to_pylist()[2:]]), "repeats"),
        ("train", lambda table: table[1:], "1 sequences are not complete"),
        (
            "valid",
            lambda table: set_column(table, "position", [at + 1 for at in table["position"].to_pylist()]),
            "2 seq",
        ),
        ("test", lambda table: set_column(table, "position", [-1, *table["position"].to_pylist()[1:]]), "out of range"),
        ("test", lambda table: table.drop_columns("position"), "no column position"),
    ],
)
def test_verify_finds_what_is_out_of_order(tmp_path, split, change, wrong):
    prepare(lines(tmp_path / "log.txt"), tmp_path / "out", settings())
    assert [check.name for check in verify(tmp_path / "out")].count("order") == 1
    damage(tmp_path / "out", split, change)
    failed = [check for check in verify(tmp_path / "out") if not check.ok]
    assert any(wrong in check.detail for check in failed), failed
    assert "fingerprint" in [check.name for check in failed]


@given(
    st.lists(st.tuples(*[st.sets(st.integers(0, 6), max_size=4)] * 3), min_size=1, max_size=4),
    st.integers(1, 5),
)
def test_complete_sequences_are_told_from_others(positions, size):
    places = Places(len(positions))
    for at, split in enumerate(SPLITS):
        rows = [(user, place) for user, own in enumerate(positions) for place in sorted(own[at])]
        for start in range(0, len(rows), size):
            users, found = (np.array(column, np.int64) for column in zip(*rows[start : start + size], strict=True))
            places.add(split, users, found)
    complete = [
        [place for part in own for place in sorted(part)] == list(range(sum(map(len, own)))) for own in positions
    ]
    assert places.broken() == complete.count(False)


@pytest.mark.parametrize(
    ("parts", "broken"),
    [(([0, 1], [2, 4], [3]), 1), (([0, 1], [1, 3], [4]), 1), (([0, 1], [2, 3], [4]), 0), (([0, 1], [2], [2]), 1)],
)
def test_a_sequence_with_a_gap_or_a_step_back_is_not_complete(parts, broken):
    places = Places(1)
    for split, part in zip(SPLITS, parts, strict=True):
        places.add(split, np.zeros(len(part), np.int64), np.array(part, np.int64))
    assert places.broken() == broken


# --- real data

REAL = [
    ("diginetica", 62_502, 43_229, 467_631),
    ("beauty-s3rec", 22_363, 12_101, 198_502),
    ("beauty-seq", 22_332, 12_086, 198_215),
]


def lines_of_raw(folder):
    """(user, item) of a raw file, read line by line."""
    (file,) = folder.iterdir()
    with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as stream:
        if folder.name == "diginetica":
            return [(str(k), item) for k, line in enumerate(stream) for item in line.strip().split(",") if item != "0"]
        if folder.name == "beauty-s3rec":
            return [(user, item) for user, *items in map(str.split, stream) for item in items]
        rows = [line.split("\t") for line in stream][1:]
        return [(user, item) for user, item, _ in sorted(rows, key=lambda row: float(row[2]))]


@pytest.mark.parametrize(("name", "users", "items", "rows"), REAL)
def test_real_sequences(tmp_path, recloss_data, name, users, items, rows):
    assert (
        recloss(["prepare", "--task", "sequence", "--raw", str(recloss_data / name), "--out", str(tmp_path / "out")])
        == 0
    )
    sizes = load(tmp_path / "out").manifest["sizes"]
    assert (sizes["users"], sizes["items"], sum(sizes[split] for split in SPLITS)) == (users, items, rows)
    assert sizes["test"] == sizes["valid"] == users
    whole = defaultdict(list)
    for user, item in lines_of_raw(recloss_data / name):
        whole[user].append(item)
    found = defaultdict(list)
    for split in SPLITS:
        for user, _, item in rows_of(tmp_path / "out", split):
            found[user].append(item)
    assert found == whole
    assert all(check.ok for check in verify(tmp_path / "out"))
    if name == "beauty-seq":
        assert load(tmp_path / "out").manifest["steps"][-2]["tied"] == 77_242
