"""What `recloss data inspect` and `verify` say, against a loop over the pairs and against folders that were damaged."""

import hashlib
import json
import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.prepare import prepare
from pipelines.prepare.inspect import Unseen, inspect, popularity, spread
from pipelines.prepare.shown import shown
from pipelines.prepare.verify import verify
from pipelines.prepare.words import differences, told
from pipelines.settings import PrepareSettings
from recloss.errors import InputError

KEY = "a key that is long enough"


def write_log(path: Path, seed=0, n_users=40, n_items=30) -> Path:
    """user, item, rating, time; users are named so that a leak into a report would show."""
    rng = np.random.default_rng(seed)
    lines = ["who,what,stars,at"]
    for user in range(n_users):
        for item in rng.choice(n_items, rng.integers(1, 20), replace=False):
            lines.append(f"SECRET{user},i{item},{rng.integers(1, 6)},{rng.integers(10**9, 10**9 + 5000)}")
    path.write_text("\n".join(lines) + "\n")
    return path


COLUMNS = {"user": "who", "item": "what", "rating": "stars", "timestamp": "at"}
KINDS = {
    "iid": {"k_core": 3, "min_rating": 2},
    "temporal": {"split": "temporal", "gap_ratio": 0.1, "keep": "last"},
    "leave_last": {"split": "leave_last", "k_core": {"users": 4, "items": 2}},
    "popularity": {"split": "popularity"},
    "false_positives": {"noise": {"kind": "false_positives", "ratio": 0.2}},
    "pool": {"noise": {"kind": "false_negative_pool"}},
    "copied": {"noise": {"kind": "false_negative_pool", "keep_as_positive": True}},
    "hashed": {"hash_ids": True},
}


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return write_log(tmp_path_factory.mktemp("raw") / "log.csv")


@pytest.fixture(scope="module", params=KINDS)
def made(request, log, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECLOSS_HASH_KEY", KEY)
        settings = PrepareSettings(format="csv", columns=COLUMNS, **KINDS[request.param])
        prepare(log, out, settings, engine="local")
    return out


@pytest.fixture
def copied(log, tmp_path):
    """A dataset of its own, in several shards, to be damaged."""
    out = tmp_path / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.prepare.folder.SHARD_ROWS", 100)
        prepare(log, out, PrepareSettings(format="csv", columns=COLUMNS), engine="local")
    assert len(list((out / "train").iterdir())) > 1
    return out


def pairs(path, split):
    tables = [pq.read_table(file) for file in sorted((path / split).glob("*.parquet"))]
    return [(row["user"], row["item"]) for table in tables for row in table.to_pylist()]


def in_order(table):
    return table.sort_by([("user", "ascending"), ("item", "ascending")])


class TestInspect:
    def test_every_number_by_a_loop(self, made):
        found, manifest = inspect(made), json.loads((made / "manifest.json").read_text())
        splits = {split: pairs(made, split) for split in ("train", "valid", "test")}
        sizes = manifest["sizes"]
        assert {split: found.rows[split] for split in splits} == {split: len(rows) for split, rows in splits.items()}
        assert found.users_of == {split: len({user for user, _ in rows}) for split, rows in splits.items()}
        together = [pair for rows in splits.values() for pair in rows]
        assert found.density == pytest.approx(len(set(together)) / (sizes["users"] * sizes["items"]))
        for side, name, spreaded in ((0, "users", found.users), (1, "items", found.items)):
            counts = sorted(sum(pair[side] == index for pair in together) for index in range(sizes[name]))
            assert spreaded.size == sizes[name]
            assert spreaded.quantiles["min"] == counts[0]
            assert spreaded.quantiles["max"] == counts[-1]
            assert spreaded.quantiles["median"] == pytest.approx(np.median(counts))
            assert spreaded.quantiles["mean"] == pytest.approx(sum(counts) / len(counts))
            assert (spreaded.none, spreaded.single) == (counts.count(0), counts.count(1))
            assert spreaded.gini == pytest.approx(gini(counts))
        for one, other in combinations(splits, 2):
            assert found.shared[one, other] == len(set(splits[one]) & set(splits[other]))
        for split in ("valid", "test"):
            known = [{pair[side] for pair in splits["train"]} for side in (0, 1)]
            missing = [pair for pair in splits[split] if pair[0] not in known[0] or pair[1] not in known[1]]
            assert found.unseen[split].rows == len(missing)
            assert found.unseen[split].users == len({u for u, _ in splits[split]} - known[0])
            assert found.unseen[split].items == len({i for _, i in splits[split]} - known[1])
        assert sum(items for _, _, items, _ in found.popularity) == sizes["items"]
        assert sum(interactions for *_, interactions in found.popularity) == len(together)

    def test_the_times_are_those_of_the_shards(self, made):
        for split, (first, last) in inspect(made).times.items():
            tables = [pq.read_table(file)["timestamp"] for file in sorted((made / split).glob("*.parquet"))]
            times = [time for column in tables for time in column.to_pylist() if time is not None]
            assert (first, last) == (min(times), max(times))

    def test_no_user_and_no_item_is_named(self, made):
        text = "\n".join(shown(inspect(made)))
        assert "SECRET" not in text
        ids = pq.read_table(made / "users.parquet")["id"].to_pylist()
        assert not any(name in text for name in ids)

    def test_shared_pairs_are_seen_and_said(self, copied):
        file = copied / "valid" / "part-00000.parquet"
        test = pq.read_table(copied / "test" / "part-00000.parquet")
        valid = pq.read_table(file)
        pq.write_table(in_order(pa.concat_tables([valid[:-3], test[:3]])), file)
        found = inspect(copied)
        assert found.shared["valid", "test"] == 3
        assert "  pairs in two splits: 3 (must be 0: prepare it again)" in shown(found)

    def test_what_train_does_not_know_is_counted(self, tmp_path):
        raw = tmp_path / "raw"
        raw.mkdir()
        (raw / "train_data.txt").write_text("0 0\n0 1\n1 0\n1 1\n1 2\n")
        (raw / "valid_data.txt").write_text("0 2\n")
        (raw / "test.txt").write_text("1 3\n2 0\n2 1\n3 4\n0 3\n")  # users 2 and 3, items 3 and 4 are new
        prepare(raw, tmp_path / "out", PrepareSettings(split="given"), engine="local")
        found = inspect(tmp_path / "out")
        assert found.unseen == {"valid": Unseen(0, 0, 0), "test": Unseen(2, 2, 5)}
        line = "  test: 2 users and 2 items without a training interaction, 5 interactions with them"
        assert line in shown(found)

    def test_a_folder_that_is_none(self, tmp_path):
        with pytest.raises(InputError, match="not a prepared dataset"):
            inspect(tmp_path)


def gini(counts):
    """By its definition: the mean absolute difference of two, over twice the mean."""
    n, mean = len(counts), sum(counts) / len(counts)
    return sum(abs(a - b) for a in counts for b in counts) / (2 * n * n * mean)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40).filter(any))
def test_gini_is_its_definition(counts):
    assert spread(np.array(counts)).gini == pytest.approx(gini(counts), abs=1e-12)


@given(st.lists(st.integers(0, 300), min_size=1, max_size=60))
def test_bins_of_doubling_width_hold_every_item_once(counts):
    bins = popularity(np.array(counts))
    lows = [low for low, *_ in bins]
    assert lows == [low for low in (0, *(2**k for k in range(9))) if low in range(lows[0], lows[-1] + 1)]
    assert bins[0][2] > 0
    assert bins[-1][2] > 0
    for low, high, items, interactions in bins:
        inside = [count for count in counts if low <= count <= high]
        assert (items, interactions) == (len(inside), sum(inside))
    assert sum(items for _, _, items, _ in bins) == len(counts)


class TestWords:
    def test_every_step_is_told_with_its_counts(self, made):
        manifest = json.loads((made / "manifest.json").read_text())
        text = " ".join(told(manifest))
        for step in manifest["steps"]:
            if step["step"] in ("read", "rating"):
                assert f"{step['rows']:,} interactions" in text
            for part in ("train", "test", "pool"):
                if part in step and step["step"] != "unseen":
                    assert f"{part} {step[part]:,}" in text
        assert "{" not in text
        assert "None" not in text

    def test_what_is_told_of_the_demo(self, tmp_path, log):
        settings = PrepareSettings(format="csv", columns=COLUMNS, min_rating=3, k_core=2)
        manifest = prepare(log, tmp_path / "x", settings, engine="local")
        sentences = told(manifest)
        assert sentences[0].startswith("Prepared from log.csv (")
        before, after = (next(s["rows"] for s in manifest["steps"] if s["step"] == n) for n in ("read", "rating"))
        assert sentences[2].startswith(f"Ratings below 3 dropped: {before:,} -> {after:,} interactions, ")
        assert "users with fewer than 2 and items with fewer than 2 interactions" in sentences[4]
        assert "test ceil(20 %) of a user's interactions, validation ceil(10 %) of the rest" in sentences[-1]

    def test_a_manifest_of_before_is_at_the_defaults(self, made):
        manifest = json.loads((made / "manifest.json").read_text())
        older = json.loads(json.dumps(manifest))
        for name in ("timestamp_unit", "on_bad_row", "ids"):
            older["settings"].pop(name, None)
        assert differences(manifest, older) == ["neither in settings nor in raw files"]


def failed(path, raw=None):
    return {check.name: check.detail for check in verify(path, raw) if not check.ok}


def rewrite(file, change):
    pq.write_table(change(pq.read_table(file)), file)


def put(table, column, at, value):
    values = table[column].to_pylist()
    values[at] = value
    place = table.column_names.index(column)
    return table.set_column(place, column, pa.array(values, table.schema.field(column).type))


class TestVerify:
    def test_what_was_just_made_is_right(self, made, log):
        checks = verify(made, log)
        assert [check.name for check in checks if not check.ok] == []
        names = [check.name for check in checks]
        assert names[:6] == ["manifest", "users", "items", "train", "valid", "test"]
        assert names[-4:] == ["overlap", "fingerprint", "other files", "raw files"]

    def test_several_shards_are_as_good_as_one(self, copied):
        assert failed(copied) == {}

    @pytest.mark.parametrize("split", ["train", "valid", "test"])
    def test_a_changed_pair(self, copied, split):
        file = copied / split / "part-00000.parquet"
        n_items = json.loads((copied / "manifest.json").read_text())["sizes"]["items"]
        rows = pq.read_table(file)
        users, items = rows["user"].to_pylist(), rows["item"].to_pylist()
        at = next(k for k in range(len(users) - 1) if users[k] != users[k + 1] and items[k] < n_items - 1)
        rewrite(file, lambda table: put(table, "item", at, items[at] + 1))
        assert "fingerprint" in failed(copied)
        assert "the manifest says" in failed(copied)["fingerprint"]

    def test_rows_that_are_missing_or_repeated_or_out_of_order(self, copied):
        file = copied / "train" / "part-00001.parquet"
        kept = file.read_bytes()
        rewrite(file, lambda table: table[1:])
        assert "the manifest says" in failed(copied)["train"]
        file.write_bytes(kept)
        rewrite(file, lambda table: pa.concat_tables([table[:2], table[1:-1]]))
        assert "part-00001.parquet: row 103 of the split repeats the pair before it" in failed(copied)["train"]
        file.write_bytes(kept)
        rewrite(file, lambda table: table.take([1, 0, *range(2, table.num_rows)]))
        assert "row 102 of the split is not in the order of user and item" in failed(copied)["train"]

    def test_shards_in_another_order(self, copied):
        first, second = (copied / "train" / f"part-0000{k}.parquet" for k in (0, 1))
        first.rename(copied / "x"), second.rename(first), (copied / "x").rename(second)
        assert "part-00001.parquet: row 101 of the split is not in the order" in failed(copied)["train"]

    @pytest.mark.parametrize(("column", "value"), [("user", 10**6), ("item", -1), ("item", None)])
    def test_an_index_out_of_range(self, copied, column, value):
        rewrite(copied / "test" / "part-00000.parquet", lambda table: put(table, column, 3, value))
        found = failed(copied)
        assert f"part-00000.parquet: {column} index out of range" in found["test"]
        assert "not computed" in found["fingerprint"]

    @pytest.mark.parametrize(("column", "value"), [("timestamp", -5), ("rating", float("nan"))])
    def test_another_value_out_of_range(self, copied, column, value):
        rewrite(copied / "test" / "part-00000.parquet", lambda table: put(table, column, 3, value))
        assert column in failed(copied)["test"]

    def test_other_columns(self, copied):
        rewrite(copied / "test" / "part-00000.parquet", lambda table: table.rename_columns(["user", "thing", "r", "t"]))
        assert "columns user (int32), thing (int32)" in failed(copied)["test"]

    @pytest.mark.parametrize("split", ["train", "valid", "test"])
    def test_a_file_cut_short_or_gone(self, copied, split):
        file = copied / split / "part-00000.parquet"
        file.write_bytes(file.read_bytes()[:-20])
        assert f"{split}/part-00000.parquet: cannot be read" in failed(copied)[split]
        file.unlink()
        assert "the manifest says" in failed(copied)[split]

    def test_a_pair_in_two_splits(self, copied):
        for one, other in (("test", "valid"), ("valid", "train"), ("test", "train")):
            folder = copied.with_name(f"{one}-{other}")
            shutil.copytree(copied, folder)
            stolen = pq.read_table(folder / one / "part-00000.parquet")[5:6]
            file = folder / other / "part-00000.parquet"
            rewrite(file, lambda table, stolen=stolen: in_order(pa.concat_tables([table, stolen])))
            assert "1 pairs are in" in failed(folder)["overlap"]

    def test_ids_that_are_repeated_missing_or_not_hashed(self, copied):
        file = copied / "users.parquet"
        kept = file.read_bytes()
        rewrite(file, lambda table: put(table, "id", 0, table["id"][1].as_py()))
        assert "are different" in failed(copied)["users"]
        file.write_bytes(kept)
        rewrite(file, lambda table: table[:-1])
        assert "the manifest says" in failed(copied)["users"]
        file.write_bytes(kept)
        manifest = json.loads((copied / "manifest.json").read_text())
        manifest["settings"]["hash_ids"] = True
        (copied / "manifest.json").write_text(json.dumps(manifest))
        assert failed(copied)["users"].endswith(f"{manifest['sizes']['users']} are not hashed")
        file.unlink()
        assert "users.parquet: cannot be read" in failed(copied)["users"]

    def test_a_manifest_that_was_edited(self, copied):
        file = copied / "manifest.json"
        manifest = json.loads(file.read_text())
        file.write_text(json.dumps(manifest | {"fingerprint": "0" * 64}))
        assert failed(copied).keys() == {"fingerprint"}
        manifest["steps"][-1]["rows"] += 1
        file.write_text(json.dumps(manifest))
        assert "the splits have" in failed(copied)["manifest"]
        file.write_text(json.dumps(manifest | {"steps": []}))
        assert failed(copied)["manifest"] == "it does not say what the steps left"
        file.write_text("{")
        assert "not the manifest of a prepared dataset" in failed(copied)["manifest"]

    def test_files_that_do_not_belong_are_a_warning(self, copied):
        (copied / "train" / "notes.txt").write_text("")
        (copied / "old").mkdir()
        (check,) = [check for check in verify(copied) if not check.ok]
        assert (check.name, check.required) == ("other files", False)
        assert check.detail == "also here: old, train/notes.txt"

    def test_raw_files_that_changed(self, copied, log, tmp_path):
        assert failed(copied, log.parent) == {}
        other = tmp_path / "log.csv"
        other.write_text(log.read_text() + "SECRET1,i1,3,1000000001\n")
        found = hashlib.sha256(other.read_bytes()).hexdigest()
        assert failed(copied, other)["raw files"].startswith(f"log.csv has the SHA-256 {found}, the manifest says ")
        (tmp_path / "empty").mkdir()
        assert failed(copied, tmp_path / "empty") == {"raw files": "log.csv is missing"}
        with pytest.raises(InputError, match="no such file"):
            verify(copied, tmp_path / "nowhere")

    def test_a_folder_that_is_none(self, tmp_path):
        with pytest.raises(InputError, match="no such folder"):
            verify(tmp_path / "nowhere")
        with pytest.raises(InputError, match="not a prepared dataset"):
            verify(tmp_path)
