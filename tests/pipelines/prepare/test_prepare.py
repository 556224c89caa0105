import json
import os
import random
import signal
import subprocess
import sys
import zipfile
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipelines.prepare import engines, folder, load, prepare
from pipelines.prepare.splits import size_of_test, size_of_valid
from pipelines.prepare.verify import verify
from pipelines.settings import Columns, PrepareSettings
from recloss.errors import InputError

RATED = Columns(rating="rating", timestamp="timestamp")


def write_log(path, rows, header="user,item,rating,timestamp"):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{','.join(map(str, row))}\n" for row in [header.split(","), *rows]))
    return path


def some_rows(seed=0, users=40, items=30, n=900):
    """Skewed (user, item, rating, timestamp) with repeated pairs; ids that are not in the order of their numbers."""
    draw = np.random.default_rng(seed)
    columns = (draw.beta(1, 2, n) * users, draw.beta(1, 2, n) * items, draw.integers(1, 6, n), draw.integers(0, 500, n))
    return list(zip(*(column.astype(int).tolist() for column in columns), strict=True))


def contents(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def pairs_by_id(path):
    """(user id, item id) of each split, in original ids."""
    dataset = load(path)
    users, items = (pq.read_table(path / f"{side}.parquet")["id"].to_pylist() for side in ("users", "items"))
    return {
        split: [(users[u], items[i]) for u, i in zip(*(a.tolist() for a in getattr(dataset, split)), strict=True)]
        for split in ("train", "valid", "test")
    }


def k_core(pairs, k):
    """Remove one user or item below k at a time."""
    pairs = set(pairs)
    while True:
        degree = Counter()
        for user, item in pairs:
            degree["user", user] += 1
            degree["item", item] += 1
        low = next((name for name, count in degree.items() if count < k), None)
        if low is None:
            return pairs
        side, name = low
        pairs = {pair for pair in pairs if pair[side == "item"] != name}


@pytest.fixture
def log(tmp_path):
    return write_log(tmp_path / "log.csv", some_rows())


SETTINGS = PrepareSettings(columns=RATED, min_rating=2, k_core=3)


def changed(**settings):
    return PrepareSettings.model_validate(SETTINGS.model_dump() | settings)


def test_whole_preparation(tmp_path, log):
    said = []
    manifest = prepare(log, tmp_path / "out", SETTINGS, on_step=said.append)
    kept = k_core({(str(u), str(i)) for u, i, r, _ in some_rows() if r >= 2}, 3)
    parts = pairs_by_id(tmp_path / "out")
    everything = [pair for part in parts.values() for pair in part]
    assert sorted(everything) == sorted(kept)
    assert len(everything) == len(set(everything))
    for user, n in Counter(user for user, _ in kept).items():
        test = size_of_test(n, 0.2)
        valid = size_of_valid(n - test, 0.1, "ceil")
        assert [sum(u == user for u, _ in parts[split]) for split in parts] == [n - test - valid, valid, test]
    assert manifest == json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["schema_version"] == 1
    assert manifest["task"] == "pairs"
    assert manifest["settings"] == SETTINGS.model_dump(mode="json", exclude={"format"})
    assert manifest["sizes"] == {
        "users": len({u for u, _ in kept}),
        "items": len({i for _, i in kept}),
        **{split: len(part) for split, part in parts.items()},
    }
    assert manifest["sources"][0]["name"] == "log.csv"
    assert manifest["sources"][0]["bytes"] == log.stat().st_size
    assert [step["step"] for step in manifest["steps"]] == ["read", "rating", "distinct", "k_core", "index", "split"]
    rated = [(u, i) for u, i, r, _ in some_rows() if r >= 2]
    counts = [(step["rows"], step["users"], step["items"]) for step in manifest["steps"]]
    logs = [[(u, i) for u, i, *_ in some_rows()], rated, set(rated), kept, kept, kept]
    assert counts == [(len(pairs), len({u for u, _ in pairs}), len({i for _, i in pairs})) for pairs in logs]
    assert manifest["steps"][3]["passes"] >= 1
    assert said[0].startswith("format: csv, 1 file")
    assert said[-1] == f"wrote {tmp_path / 'out'}"
    assert sorted(os.listdir(tmp_path)) == ["log.csv", "out"]


def test_tables_are_sorted_and_carry_rating_and_timestamp(tmp_path, log):
    prepare(log, tmp_path / "out", SETTINGS)
    first = {}
    for user, item, rating, timestamp in some_rows():
        if rating >= 2:
            best = first.get((user, item), (timestamp, rating))
            first[user, item] = min(best, (timestamp, rating))
    users, items = (pq.read_table(tmp_path / "out" / f"{s}.parquet")["id"].to_pylist() for s in ("users", "items"))
    for split in ("train", "valid", "test"):
        table = pq.read_table(tmp_path / "out" / split / "part-00000.parquet")
        assert str(table.schema.remove_metadata()).split("\n") == [
            "user: int32",
            "item: int32",
            "rating: float",
            "timestamp: int64",
        ]
        rows = list(zip(*table.to_pydict().values(), strict=True))
        assert rows == sorted(rows)
        for user, item, rating, timestamp in rows:
            assert (timestamp, rating) == first[int(users[user]), int(items[item])]


@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=st.sets(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1), k=st.integers(1, 4))
def test_k_core_is_the_fixed_point(tmp_path_factory, pairs, k):
    place = tmp_path_factory.mktemp("core")
    raw = write_log(place / "log.csv", pairs, header="user,item")
    kept = k_core(pairs, k)
    if max(Counter(user for user, _ in kept).values(), default=0) < 3:
        with pytest.raises(
            InputError, match="valid split would be empty|test split would" if kept else "nothing is left"
        ):
            prepare(raw, place / "out", PrepareSettings(k_core=k))
        assert os.listdir(place) == ["log.csv"]
    else:
        prepare(raw, place / "out", PrepareSettings(k_core=k))
        found = [(int(u), int(i)) for part in pairs_by_id(place / "out").values() for u, i in part]
        assert sorted(found) == sorted(kept)


@pytest.mark.parametrize(
    ("ids", "expected", "order"),
    [
        (["10", "9", "-3", "007", "7"], ["-3", "007", "7", "9", "10"], "integer"),
        (["10", "9", "b", "é", "Z"], ["10", "9", "Z", "b", "é"], "bytes"),
        (["10", "9", "9.5"], ["10", "9", "9.5"], "bytes"),
        (["1234567890123456789", "9"], ["1234567890123456789", "9"], "bytes"),
    ],
)
def test_indices_follow_the_order_of_the_ids(tmp_path, ids, expected, order):
    raw = write_log(tmp_path / "log.csv", [(u, i) for u in ids for i in "xyz"], header="user,item")
    manifest = prepare(raw, tmp_path / "out", PrepareSettings())
    assert pq.read_table(tmp_path / "out" / "users.parquet")["id"].to_pylist() == expected
    assert pq.read_table(tmp_path / "out" / "items.parquet")["id"].to_pylist() == ["x", "y", "z"]
    assert manifest["steps"][-2]["user_order"] == order


def test_same_bytes_whatever_the_rows_files_and_blocks(tmp_path, log, monkeypatch):
    expected = prepare(log, tmp_path / "out", SETTINGS)
    tables = {name: data for name, data in contents(tmp_path / "out").items() if name != "manifest.json"}
    rows = some_rows()
    random.Random(5).shuffle(rows)
    for part in range(7):
        write_log(tmp_path / "parts" / f"{part}.csv", rows[part::7])
    monkeypatch.setattr("pipelines.prepare.readers.streams.BLOCK_BYTES", 100)
    manifest = prepare(tmp_path / "parts", tmp_path / "other", SETTINGS)
    found = contents(tmp_path / "other")
    del found["manifest.json"]
    assert found == tables
    assert manifest | {"sources": None} == expected | {"sources": None}


def test_shards_have_a_fixed_number_of_rows_and_do_not_change_the_fingerprint(tmp_path, log, monkeypatch):
    whole = prepare(log, tmp_path / "whole", SETTINGS)
    monkeypatch.setattr(folder, "SHARD_ROWS", 50)
    manifest = prepare(log, tmp_path / "sharded", SETTINGS)
    assert manifest == whole
    rows = [pq.read_metadata(f).num_rows for f in sorted((tmp_path / "sharded" / "train").iterdir())]
    assert rows[:-1] == [50] * (len(rows) - 1)
    assert len(rows) == -(-whole["sizes"]["train"] // 50) > 2
    assert pairs_by_id(tmp_path / "sharded") == pairs_by_id(tmp_path / "whole")


def test_seed_and_ratios_change_the_split_only(tmp_path, log):
    parts = []
    for name, change in {"a": {}, "b": {"split_seed": 1}, "c": {"test_ratio": 0.5}}.items():
        prepare(log, tmp_path / name, changed(**change))
        parts.append(pairs_by_id(tmp_path / name))
    assert len({load(tmp_path / name).fingerprint for name in "abc"}) == 3
    assert len({frozenset(pair for part in split.values() for pair in part) for split in parts}) == 1


OTHERS = [
    {"k_core": 1},
    {"split": "temporal", "gap_ratio": 0.1, "noise": {"kind": "false_positives", "ratio": 0.3}},
    {"split": "leave_last", "test_last": 2, "noise": {"kind": "false_negative_pool"}},
    {"split": "popularity", "noise": {"kind": "false_negative_pool", "keep_as_positive": True}},
]


@pytest.mark.parametrize("settings", OTHERS)
def test_ray_gives_the_same_bytes(tmp_path, ray_local, monkeypatch, settings):
    rows = some_rows(n=1500) + [(98 + at % 2, 250 * (at % 2) + at // 2, 3, 0) for at in range(1400)]
    for part in range(3):
        write_log(tmp_path / "parts" / f"{part}.csv", rows[part::3])
    settings = PrepareSettings(columns=RATED, min_rating=2, **settings)
    local = prepare(tmp_path / "parts", tmp_path / "local", settings, engine="local")
    monkeypatch.setattr(engines, "GROUP_ROWS", 300)  # several blocks, most smaller than the users 98 and 99
    ray = prepare(tmp_path / "parts", tmp_path / "ray", settings, engine="ray")
    assert ray == local
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    assert all(check.ok for check in verify(tmp_path / "ray"))


def test_ray_reports_mistakes_in_one_line_and_leaves_nothing(tmp_path, ray_local, capfd):
    write_log(tmp_path / "parts" / "a.csv", [(1, 2, 3, 4)])
    write_log(tmp_path / "parts" / "b.csv", [(1, 2, 3, 4), (1, 3, "x", 4)])
    with pytest.raises(InputError) as raised:
        prepare(tmp_path / "parts", tmp_path / "out", SETTINGS, engine="ray")
    assert str(raised.value) == "b.csv, line 3: rating 'x' is not a number"
    write_log(tmp_path / "parts" / "b.csv", [(1, 2, 3, 4), (1, 3, 5, 4)])
    with pytest.raises(InputError, match=r"nothing is left after the step rating \(min_rating 9\.0\)"):
        prepare(tmp_path / "parts", tmp_path / "out", changed(min_rating=9.0), engine="ray")
    assert os.listdir(tmp_path) == ["parts"]
    assert capfd.readouterr().err == ""


def test_auto_chooses_by_the_size_of_the_raw_files(monkeypatch):
    monkeypatch.setattr(engines, "RayEngine", lambda: "ray")
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    with engines.running("auto", engines.LOCAL_BYTES) as chosen:
        assert isinstance(chosen, engines.LocalEngine)
    with engines.running("auto", engines.LOCAL_BYTES + 1) as chosen:
        assert chosen == "ray"


@pytest.mark.slow
def test_ray_that_was_not_running_is_started_quietly_and_stopped(tmp_path, log):
    program = (
        "import ray, sys; from pathlib import Path; from pipelines.prepare import prepare;"
        "from pipelines.settings import PrepareSettings;"
        "print(prepare(Path(sys.argv[1]), Path(sys.argv[2]), PrepareSettings(), engine='ray')['fingerprint']);"
        "assert not ray.is_initialized()"
    )
    command = [sys.executable, "-c", program, str(log), str(tmp_path / "ray")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == prepare(log, tmp_path / "out", PrepareSettings())["fingerprint"]


def test_reading_workers_load_neither_torch_nor_ray():
    program = "import sys, pipelines.prepare; sys.exit(not {'torch', 'ray'}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


# --- the output folder


def test_unchanged_output_is_left_alone(tmp_path, log):
    first = prepare(log, tmp_path / "out", SETTINGS)
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "out").rglob("*")}
    said = []
    assert prepare(log, tmp_path / "out", SETTINGS, on_step=said.append) == first
    assert said[-1] == f"unchanged: {tmp_path / 'out'}"
    named = changed(format="csv")
    assert prepare(log, tmp_path / "out", named) == first, "what auto recognised may be named"
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "out").rglob("*")} == before


def test_output_of_other_settings_or_sources_is_not_overwritten(tmp_path, log):
    prepare(log, tmp_path / "out", SETTINGS)
    before = contents(tmp_path / "out")
    advice = "remove it or choose another --out"
    with pytest.raises(InputError, match=f"out: prepared before with other settings; {advice}"):
        prepare(log, tmp_path / "out", changed(k_core=2))
    write_log(log, some_rows(seed=1))
    with pytest.raises(InputError, match=f"out: prepared before with other sources; {advice}"):
        prepare(log, tmp_path / "out", SETTINGS)
    assert contents(tmp_path / "out") == before


def test_output_that_is_something_else_is_not_overwritten(tmp_path, log):
    write_log(tmp_path / "mine" / "data.csv", [])
    with pytest.raises(InputError, match=r"mine: not a prepared dataset, it has no manifest\.json; remove it or"):
        prepare(log, tmp_path / "mine", SETTINGS)
    with pytest.raises(InputError, match=r"log\.csv: not a prepared dataset"):
        prepare(log, log, SETTINGS)
    with pytest.raises(InputError, match=r"log\.csv/out: cannot be written \(Not a directory\)"):
        prepare(log, log / "out", SETTINGS)


def test_empty_output_folder_and_missing_parents_are_fine(tmp_path, log):
    (tmp_path / "empty").mkdir()
    prepare(log, tmp_path / "empty", SETTINGS)
    prepare(log, tmp_path / "a" / "b", SETTINGS)
    assert load(tmp_path / "empty").fingerprint == load(tmp_path / "a" / "b").fingerprint


@pytest.mark.parametrize("step", ["read", "k_core", "split"])
def test_interrupted_run_leaves_nothing(tmp_path, log, step):
    def interrupt(message):
        if message.startswith(step):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(log, tmp_path / "out", SETTINGS, on_step=interrupt)
    assert os.listdir(tmp_path) == ["log.csv"]


def test_killed_run_is_not_mistaken_for_data_and_cleaned_by_the_next(tmp_path, log):
    program = """
import os, signal, sys
from pathlib import Path
from pipelines.prepare import prepare, run
from pipelines.settings import Columns, PrepareSettings
settings = PrepareSettings(columns=Columns(rating="rating", timestamp="timestamp"), min_rating=2, k_core=3)
written = run._write
run._write = lambda *arguments: (written(*arguments), os.kill(os.getpid(), signal.SIGKILL))
prepare(Path(sys.argv[1]), Path(sys.argv[2]), settings)
"""
    done = subprocess.run([sys.executable, "-c", program, str(log), str(tmp_path / "out")])
    assert done.returncode == -signal.SIGKILL
    left = next(path for path in tmp_path.iterdir() if path.name.startswith(".out.partial-"))
    assert (left / "train").is_dir()
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="not a prepared dataset"):
        load(left)
    prepare(log, tmp_path / "out", SETTINGS)
    assert sorted(os.listdir(tmp_path)) == ["log.csv", "out"]
    assert all(check.ok for check in verify(tmp_path / "out"))


def test_a_live_run_is_not_disturbed_and_the_faster_one_wins(tmp_path, log):
    def second_run(message):
        if message.startswith("split"):
            prepare(log, tmp_path / "out", SETTINGS)
            assert any(path.name.startswith(".out.partial-") for path in tmp_path.iterdir())

    said = []
    prepare(log, tmp_path / "out", SETTINGS, on_step=lambda message: (said.append(message), second_run(message)))
    assert said[-1] == f"unchanged: {tmp_path / 'out'}"
    assert sorted(os.listdir(tmp_path)) == ["log.csv", "out"]
    assert all(check.ok for check in verify(tmp_path / "out"))


@pytest.mark.parametrize(
    ("rows", "change", "message"),
    [
        (
            [(1, 1, 3, 0), (1, 2, 3, 0)],
            {},
            r"after the step k_core \(k 3, passes 1\); before it: 2 interactions of 1 user",
        ),
        ([(1, 1, 1, 0)], {}, r"the step rating \(min_rating 2\.0\); before it: 1 interactions of 1 users and 1 items"),
        ([(1, 1, 3, 0), (2, 1, 3, 0)], {"k_core": 1}, "the valid split would be empty, the users have too few"),
    ],
)
def test_nothing_left(tmp_path, rows, change, message):
    raw = write_log(tmp_path / "log.csv", rows)
    with pytest.raises(InputError, match=message):
        prepare(raw, tmp_path / "out", changed(**change))
    assert os.listdir(tmp_path) == ["log.csv"]


# --- real data

COUNTS = [
    ("ml-100k/u.data", 3, 10, (939, 1016, 80393)),
    ("ml-100k/u.data", 3, 5, (943, 1203, 81697)),
    ("ml-100k/u.data", 4, 10, (887, 822, 52764)),
    ("ml-100k/u.data", None, 10, (943, 1152, 97953)),
    ("ml-latest-small/ratings.csv", 3, 10, (660, 1862, 66021)),
    ("ml-1m-sample/sample_movielens_rating.dat", 3, 5, (4098, 2254, 76877)),
]


@pytest.mark.parametrize(("raw", "min_rating", "k", "expected"), COUNTS)
def test_published_counts(tmp_path, recloss_data, raw, min_rating, k, expected):
    manifest = prepare(recloss_data / raw, tmp_path / "out", PrepareSettings(min_rating=min_rating, k_core=k))
    step = manifest["steps"][-1]
    assert (step["users"], step["items"], step["rows"]) == expected
    assert all(check.ok for check in verify(tmp_path / "out"))


def test_published_pairs(tmp_path, recloss_data):
    prepare(recloss_data / "ml-100k" / "u.data", tmp_path / "out", PrepareSettings(min_rating=3, k_core=10))
    found = {pair for part in pairs_by_id(tmp_path / "out").values() for pair in part}
    with zipfile.ZipFile(recloss_data / "ml-100k-10core" / "ml-100k-10core.zip") as archive:
        tables = {
            name: [line.split("\t") for line in archive.read(f"{name}.tsv").decode().splitlines()[1:]]
            for name in ("train", "test", "user_list", "item_list")
        }
    users, items = ({new: original for original, new in tables[f"{side}_list"]} for side in ("user", "item"))
    assert found == {(users[user], items[item]) for user, item in tables["train"] + tables["test"]}


def test_both_copies_of_ml_100k_have_the_same_fingerprint(tmp_path, recloss_data):
    settings = PrepareSettings(min_rating=3, k_core=10)
    prints = {
        prepare(recloss_data / "ml-100k" / name, tmp_path / name, settings)["fingerprint"]
        for name in ("u.data", "ml-100k.inter")
    }
    assert len(prints) == 1
