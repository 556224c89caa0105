"""Splits, noise, given splits and hashed ids from a raw log to the prepared dataset."""

import hashlib
import hmac
import json
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest

import recloss
from pipelines.prepare import load, prepare
from pipelines.prepare.hash_ids import check_value
from pipelines.prepare.verify import verify
from pipelines.settings import Columns, Noise, PrepareSettings, parse
from recloss.errors import InputError

KEY = "a key of many bytes"


def settings(**given):
    return PrepareSettings(columns=Columns(timestamp="timestamp"), **given)


def rows(n_users=30, n_items=25, seed=0):
    """Skewed (user, item, timestamp), every pair once, few distinct times."""
    draw = np.random.default_rng(seed)
    pairs = {
        (int(u * n_users), int(i * n_items)) for u, i in zip(draw.beta(1, 2, 500), draw.beta(1, 3, 500), strict=True)
    }
    return [(user, item, int(draw.integers(100))) for user, item in sorted(pairs)]


def write(path, rows, header=("user", "item", "timestamp"), separator=","):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{separator.join(map(str, row))}\n" for row in ([header] if header else []) + list(rows)))
    return path


@pytest.fixture
def log(tmp_path):
    return write(tmp_path / "log.csv", rows())


def ids(path, side):
    return pq.read_table(path / f"{side}.parquet")["id"].to_pylist()


def pairs(path, part):
    """Pairs of original ids of a part."""
    users, items = ids(path, "users"), ids(path, "items")
    return [(users[u], items[i]) for u, i in zip(*(a.tolist() for a in getattr(load(path), part)), strict=True)]


# --- splits


def test_the_columns_of_the_log_stay_in_the_shards_of_every_split(tmp_path, log):
    prepare(log, tmp_path / "out", settings(split="temporal"))
    times = {(str(user), str(item)): time for user, item, time in rows()}
    for part in ("train", "valid", "test"):
        shard = pq.read_table(tmp_path / "out" / part / "part-00000.parquet")
        assert shard["timestamp"].to_pylist() == [times[pair] for pair in pairs(tmp_path / "out", part)]


def test_positions_are_kept_order_the_last_and_are_part_of_the_fingerprint(tmp_path):
    items = [[3, 1, 2, 5], [1, 4, 2], [5, 1, 3, 2, 4]]
    for name, of_users in (("a", items), ("b", [items[0][1::-1] + items[0][2:], *items[1:]])):
        write(tmp_path / f"{name}.txt", [(1 + user, *own) for user, own in enumerate(of_users)], None, " ")
        prepare(tmp_path / f"{name}.txt", tmp_path / name, PrepareSettings(format="sequences", split="leave_last"))
    for part, place in (("test", -1), ("valid", -2)):
        last = [(str(1 + user), str(own[place])) for user, own in enumerate(items)]
        assert pairs(tmp_path / "a", part) == pairs(tmp_path / "b", part) == last
    shard = pq.read_table(tmp_path / "a" / "train" / "part-00000.parquet")
    assert {**dict(zip(pairs(tmp_path / "a", "train"), shard["position"].to_pylist(), strict=True))} == {
        (str(1 + user), str(item)): place for user, own in enumerate(items) for place, item in enumerate(own[:-2])
    }
    assert pairs(tmp_path / "a", "train") == pairs(tmp_path / "b", "train")
    assert load(tmp_path / "a").fingerprint != load(tmp_path / "b").fingerprint
    assert all(check.ok for check in verify(tmp_path / "a"))


@pytest.mark.parametrize(
    ("split", "columns"), [("temporal", "a timestamp column"), ("leave_last", "a timestamp or position column")]
)
def test_a_split_in_time_needs_a_time(tmp_path, log, split, columns):
    with pytest.raises(
        InputError, match=rf"log\.csv: split {split} needs {columns}; name it in the settings \(columns"
    ):
        prepare(log, tmp_path / "out", PrepareSettings(split=split))
    assert not (tmp_path / "out").exists()


# --- given


def given_split(folder, parts):
    for name, of in parts.items():
        write(folder / f"{name}.txt", of, None, " ")
    return folder


TRAIN, TEST = [(0, 0), (0, 1), (0, 4), (1, 1), (1, 2), (3, 0)], [(0, 2), (1, 4)]


@pytest.mark.parametrize(
    ("catalogue", "users", "items"),
    [("listed", "013", "0124"), ("occurring", "013", "0124"), ("range", "0123", "01234")],
)
def test_the_catalogue_of_a_given_split(tmp_path, catalogue, users, items):
    given_split(tmp_path / "raw", {"train": TRAIN, "test": TEST})
    chosen = PrepareSettings(format="pairs", split="given", ids=catalogue)
    manifest = prepare(tmp_path / "raw", tmp_path / "out", chosen)
    assert ids(tmp_path / "out", "users") == list(users)
    assert ids(tmp_path / "out", "items") == list(items)
    assert (manifest["sizes"]["users"], manifest["sizes"]["items"]) == (len(users), len(items))
    found = {part: pairs(tmp_path / "out", part) for part in ("train", "valid", "test")}
    assert found["test"] == [(str(user), str(item)) for user, item in TEST]
    assert sorted(found["train"] + found["valid"]) == [(str(user), str(item)) for user, item in TRAIN]
    assert Counter(user for user, _ in found["valid"]) == {"0": 1, "1": 1}
    assert all(check.ok for check in verify(tmp_path / "out"))


def test_range_needs_integers(tmp_path):
    given_split(tmp_path / "raw", {"train": [("a", 1), ("a", 2)], "test": [("a", 3)]})
    with pytest.raises(
        InputError, match=r"ids: range needs ids that are all integers from 0 .*; choose ids: occurring"
    ):
        prepare(tmp_path / "raw", tmp_path / "out", PrepareSettings(format="pairs", split="given", ids="range"))


def test_a_pair_in_two_given_splits_is_refused(tmp_path):
    given_split(tmp_path / "raw", {"train": TRAIN, "test": [*TEST, TRAIN[2]]})
    with pytest.raises(
        InputError, match=r"raw: 1 pairs are in two splits and 0 are repeated in one, such as user '0' and"
    ):
        prepare(tmp_path / "raw", tmp_path / "out", PrepareSettings(format="pairs", split="given"))
    assert not (tmp_path / "out").exists()


# --- noise


def test_a_pool_is_written_loaded_verified_and_part_of_the_fingerprint(tmp_path, log):
    clean, pooled, kept = tmp_path / "clean", tmp_path / "pooled", tmp_path / "kept"
    kind = {"kind": "false_negative_pool", "ratio": 0.2}
    prepare(log, clean, settings())
    assert load(clean).pool is None
    sizes = prepare(log, pooled, settings(noise=kind))["sizes"]
    prepare(log, kept, settings(noise=kind | {"keep_as_positive": True}))
    train = pairs(clean, "train")
    assert sizes["pool"] == len(train) // 5
    assert sorted(pairs(pooled, "pool") + pairs(pooled, "train")) == sorted(train)
    assert pairs(kept, "pool") == pairs(pooled, "pool")
    assert pairs(kept, "train") == train
    for part in ("valid", "test"):
        assert pairs(kept, part) == pairs(pooled, part) == pairs(clean, part)
    assert len({load(path).fingerprint for path in (clean, pooled, kept)}) == 3
    for path in (clean, pooled, kept):
        assert all(check.ok for check in verify(path))
    assert pq.read_table(pooled / "pool" / "part-00000.parquet").column_names == ["user", "item", "timestamp"]


def test_false_positives_are_in_no_split_of_the_log(tmp_path, log):
    prepare(log, tmp_path / "clean", settings())
    prepare(log, tmp_path / "noisy", settings(noise={"kind": "false_positives", "ratio": 0.1}))
    before, after = set(pairs(tmp_path / "clean", "train")), pairs(tmp_path / "noisy", "train")
    added = set(after) - before
    assert before < set(after)
    assert len(after) == len(before) + len(added)
    assert added.isdisjoint((str(user), str(item)) for user, item, _ in rows())
    trained = Counter(user for user, _ in before)
    assert Counter(user for user, _ in added) == {user: -(-n // 10) for user, n in trained.items()}


# --- hashed ids


def hashed(user):
    return hmac.new(KEY.encode(), str(user).encode(), hashlib.sha256).hexdigest()


def test_hashed_user_ids(tmp_path, log, monkeypatch):
    monkeypatch.setenv("RECLOSS_HASH_KEY", KEY)
    said = []
    manifest = prepare(log, tmp_path / "out", settings(hash_ids=True), on_step=said.append)
    assert ids(tmp_path / "out", "users") == sorted({hashed(user) for user, *_ in rows()})
    assert ids(tmp_path / "out", "items") == [str(item) for item in sorted({item for _, item, _ in rows()})]
    everything = [pair for part in ("train", "valid", "test") for pair in pairs(tmp_path / "out", part)]
    assert sorted(everything) == sorted((hashed(user), str(item)) for user, item, _ in rows())
    assert manifest["hash_key_check"] == check_value(KEY.encode())
    assert KEY not in json.dumps(manifest)
    prepare(log, tmp_path / "out", settings(hash_ids=True), on_step=said.append)
    assert said[-1].startswith("unchanged")
    monkeypatch.setenv("RECLOSS_HASH_KEY", "another key of many bytes")
    with pytest.raises(InputError, match="out: prepared before with other hash key check; remove it"):
        prepare(log, tmp_path / "out", settings(hash_ids=True))


@pytest.mark.parametrize(("key", "found"), [("", "is not set"), ("short", "has 5 bytes")])
def test_a_missing_or_short_key_is_refused(tmp_path, log, monkeypatch, key, found):
    monkeypatch.setenv("RECLOSS_HASH_KEY", key)
    with pytest.raises(InputError, match=f"hash_ids: the environment variable RECLOSS_HASH_KEY {found}; set it to a"):
        prepare(log, tmp_path / "out", settings(hash_ids=True))
    assert not (tmp_path / "out").exists()


def test_a_refused_given_split_names_no_original_user(tmp_path, monkeypatch):
    monkeypatch.setenv("RECLOSS_HASH_KEY", KEY)
    given_split(tmp_path / "raw", {"train": [("anna", 1), ("anna", 2)], "test": [("anna", 1)]})
    with pytest.raises(InputError) as raised:
        prepare(tmp_path / "raw", tmp_path / "out", PrepareSettings(format="pairs", split="given", hash_ids=True))
    assert "anna" not in str(raised.value)
    assert hashed("anna") in str(raised.value)


# --- settings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"gap_ratio": 0.1}, "gap_ratio has no effect with split 'iid', only with temporal"),
        (
            {"split": "leave_last", "test_ratio": 0.3},
            "test_ratio has no effect with split 'leave_last', only with iid, te",
        ),
        ({"test_last": 2}, "test_last has no effect with split 'iid', only with leave_last"),
        ({"ids": "range"}, "ids has no effect with split 'iid', only with given"),
        ({"split": "given", "min_rating": 3}, "min_rating cannot be used with split 'given', which is taken as it is"),
        ({"split": "given", "k_core": 2}, "k_core cannot be used with split 'given'"),
        ({"split": "given", "keep": "last"}, "keep cannot be used with split 'given'"),
        ({"split": "temporal", "gap_ratio": 0.8}, "their sum must be below 1"),
        (
            {"noise": {"kind": "salt"}},
            "noise.kind: Input should be 'false_positives' or 'false_negative_pool', got 'salt'",
        ),
        (
            {"noise": {"kind": "false_positives", "keep_as_positive": True}},
            "noise: keep_as_positive has no effect with",
        ),
        ({"noise": {"kind": "false_positives", "ration": 1}}, "unknown setting 'ration'; did you mean 'ratio'?"),
        ({"k_core": {"user": 1}}, "unknown setting 'user'; did you mean 'users'?"),
        ({"k_core": {"users": 0}}, "k_core.users: Input should be greater than or equal to 1, got 0"),
        ({"test_ratio": 1.0}, "test_ratio: Input should be less than 1, got 1.0"),
    ],
)
def test_settings_without_effect_or_meaning_are_refused(given, message):
    with pytest.raises(InputError) as raised:
        parse(PrepareSettings, given, "recloss prepare")
    assert message in str(raised.value)


def test_one_number_stands_for_both_sides_of_the_k_core():
    assert PrepareSettings(k_core="5") == PrepareSettings(k_core={"users": 5, "items": 5})
    assert PrepareSettings(k_core=5).content()["k_core"] == 5
    assert PrepareSettings(k_core={"items": 5}).content()["k_core"] == {"users": 1, "items": 5}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"split": "temporal", "gap_ratio": 0.2},
        {"split": "leave_last", "test_last": 3},
        {"split": "given", "ids": "range"},
        {"split": "popularity", "noise": Noise(kind="false_negative_pool")},
    ],
)
def test_content_holds_what_has_an_effect_and_can_be_read_back(given):
    chosen = PrepareSettings(**given)
    content = json.loads(json.dumps(chosen.content()))
    assert PrepareSettings.model_validate(content) == chosen
    assert chosen.equal(content)
    assert ("gap_ratio" in content, "test_last" in content) == (
        chosen.split == "temporal",
        chosen.split == "leave_last",
    )


OLD = {
    "columns": {"user": "user", "item": "item", "rating": None, "timestamp": "timestamp"},
    "min_rating": None,
    "k_core": 1,
    "split": "iid",
    "test_ratio": 0.2,
    "valid_ratio": 0.1,
    "split_seed": 0,
}
"""The settings in a manifest written before there were other splits."""


def test_a_manifest_written_before_there_were_more_settings_stays_valid(tmp_path, log):
    manifest = prepare(log, tmp_path / "out", settings())
    del manifest["recloss"]
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest | {"settings": OLD}))
    said = []
    prepare(log, tmp_path / "out", settings(), on_step=said.append)
    assert said[-1].startswith("unchanged")
    for change in ({"rounding": "int"}, {"noise": {"kind": "false_positives"}}, {"keep": "last"}):
        with pytest.raises(InputError, match="out: prepared before with other settings; remove it"):
            prepare(log, tmp_path / "out", settings(**change))
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest | {"settings": OLD | {"of the future": 1}}))
    with pytest.raises(InputError, match="out: prepared before with other settings; remove it"):
        prepare(log, tmp_path / "out", settings())


def test_the_manifest_names_the_version_that_wrote_it(tmp_path, log):
    assert prepare(log, tmp_path / "out", settings())["recloss"] == recloss.__version__


def test_the_same_files_read_as_another_format_are_another_origin(tmp_path):
    raw = write(tmp_path / "log.txt", [(1, 3, 1, 2, 5), (2, 1, 4, 2)], None, " ")
    prepare(raw, tmp_path / "out", PrepareSettings(format="lists"))
    with pytest.raises(InputError, match="out: prepared before with other format; remove it"):
        prepare(raw, tmp_path / "out", PrepareSettings(format="sequences"))


def test_lists_of_ids_are_part_of_the_origin(tmp_path):
    for name, of in {"train": TRAIN, "test": TEST}.items():
        write(tmp_path / "raw" / f"{name}.tsv", of, ("user_procid", "item_procid"), "\t")
    for side, n in (("user", 5), ("item", 6)):
        write(
            tmp_path / "raw" / f"{side}_list.tsv",
            [(f"{side}{k}", k) for k in range(n)],
            (f"{side}_orgid", f"{side}_procid"),
            "\t",
        )
    manifest = prepare(tmp_path / "raw", tmp_path / "out", PrepareSettings(split="given"))
    assert [source["name"] for source in manifest["sources"]] == [
        "train.tsv",
        "test.tsv",
        "user_list.tsv",
        "item_list.tsv",
    ]
    assert (manifest["sizes"]["users"], manifest["sizes"]["items"]) == (5, 6)
    assert ids(tmp_path / "out", "items") == [f"item{k}" for k in range(6)]
    write(tmp_path / "raw" / "item_list.tsv", [(f"other{k}", k) for k in range(6)], ("item_orgid", "item_procid"), "\t")
    with pytest.raises(InputError, match="out: prepared before with other sources; remove it"):
        prepare(tmp_path / "raw", tmp_path / "out", PrepareSettings(split="given"))


def test_skipped_rows_are_reported_in_the_dataset(tmp_path):
    raw = write(tmp_path / "log.csv", [*rows(), (1, 2, "x"), (1, "", 3)])
    said = []
    manifest = prepare(raw, tmp_path / "out", settings(on_bad_row="skip"), on_step=said.append)
    assert manifest["steps"][0]["refused"] == 2
    last = len(rows()) + 1
    lines = (tmp_path / "out" / "bad_rows.csv").read_text().splitlines()
    assert lines[0] == "refused"
    assert f"log.csv, line {last + 1}: timestamp 'x' is not a number" in lines[1]
    assert f"log.csv, line {last + 2}: item is empty" in lines[2]
    assert "2 bad rows left out; bad_rows.csv has the first 2" in said


# --- real data


def test_the_demos_fingerprint(tmp_path, recloss_data):
    chosen = PrepareSettings(min_rating=3, k_core=10)
    manifest = prepare(recloss_data / "ml-100k" / "u.data", tmp_path / "out", chosen)
    assert manifest["fingerprint"][:12] == "f063d34dd9f8"


@pytest.mark.parametrize(("catalogue", "items"), [("range", 8693), ("occurring", 8692)])
def test_beauty_as_published(tmp_path, recloss_data, catalogue, items):
    chosen = PrepareSettings(split="given", ids=catalogue)
    sizes = prepare(recloss_data / "beauty", tmp_path / "out", chosen)["sizes"]
    assert sizes == {"users": 15603, "items": items, "train": 87688, "valid": 18394, "test": 33472}


@pytest.mark.parametrize(("catalogue", "users", "items"), [("listed", 13455, 8360), ("occurring", 12312, 7375)])
def test_electronics_split_by_time_as_published(tmp_path, recloss_data, catalogue, users, items):
    raw = recloss_data / "electronics-temporal" / "electronics-temporal.zip"
    manifest = prepare(raw, tmp_path / "out", PrepareSettings(split="given", ids=catalogue))
    assert manifest["steps"][0]["users"] == 12312
    sizes = manifest["sizes"]
    assert (sizes["users"], sizes["items"]) == (users, items)
    assert (sizes["train"] + sizes["valid"], sizes["test"]) == (140712, 24668)


def test_the_popularity_shift_of_electronics(tmp_path, recloss_data):
    """PSL's own split of this set: 46,905 test pairs, all users and items in train, 12,610 users with test items."""
    whole = [(recloss_data / "electronics" / f"{part}.txt").read_text() for part in ("train", "test")]
    (tmp_path / "log.txt").write_text("".join(whole))
    sizes = prepare(tmp_path / "log.txt", tmp_path / "out", PrepareSettings(format="pairs", split="popularity"))[
        "sizes"
    ]
    assert (sizes["users"], sizes["items"]) == (13455, 8360)
    assert (sizes["train"] + sizes["valid"], sizes["test"]) == (187616, 46905)
    assert abs(len({user for user, _ in pairs(tmp_path / "out", "test")}) - 12610) < 150


def test_leave_last_of_ml_1m_counts_its_ties(tmp_path, recloss_data):
    manifest = prepare(recloss_data / "ml-1m" / "ml-1m.inter.gz", tmp_path / "out", PrepareSettings(split="leave_last"))
    assert (manifest["sizes"]["valid"], manifest["sizes"]["test"]) == (6040, 6040)
    assert manifest["steps"][-1]["users_cut_by_ties"] > 3000
    assert manifest["steps"][-1]["users_too_short"] == 0
