import hashlib
import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.prepare import load, prepare
from pipelines.prepare.dataset import ROWS, Fingerprint
from pipelines.prepare.verify import verify
from pipelines.settings import TASKS, PrepareSettings
from recloss.errors import InputError


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    place = tmp_path_factory.mktemp("dataset")
    lines = ["user,item", *(f"{user},{item}" for user in range(12) for item in range(user, user + 9))]
    (place / "log.csv").write_text("\n".join(lines) + "\n")
    prepare(place / "log.csv", place / "tiny", PrepareSettings())
    return place / "tiny"


@pytest.fixture
def copy(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "tiny"))


def rewrite(file, change):
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))


def test_load(original):
    dataset = load(original)
    assert (dataset.path, dataset.n_users, dataset.n_items) == (original, 12, 20)
    assert dataset.fingerprint == dataset.manifest["fingerprint"]
    for split in ("train", "valid", "test"):
        users, items = getattr(dataset, split)
        table = pq.read_table(original / split)
        assert users.dtype == items.dtype == np.int32
        assert users.tolist() == table["user"].to_pylist()
        assert items.tolist() == table["item"].to_pylist()
        assert not users.flags.writeable
        assert not items.flags.writeable
    assert all(check.ok for check in verify(original))


def test_shards_are_read_in_order(copy):
    whole = load(copy).train
    table = pq.read_table(copy / "train" / "part-00000.parquet")
    for shard, start in enumerate(range(0, table.num_rows, 20)):
        pq.write_table(table[start : start + 20], copy / "train" / f"part-{shard:05}.parquet")
    dataset = load(copy)
    assert [array.tolist() for array in dataset.train] == [array.tolist() for array in whole]
    assert all(check.ok for check in verify(copy))


def rows(pairs, **columns):
    users, items = np.array(pairs, np.int32).reshape(-1, 2).T
    return pa.table({"user": users, "item": items} | {name: pa.array(of, pa.int64()) for name, of in columns.items()})


def documented(*parts):
    return hashlib.sha256(b"".join(parts)).hexdigest()


def hash_of_pairs(pairs):
    return hashlib.sha256(b"".join(struct.pack("<2i", *pair) for pair in pairs)).digest()


def test_fingerprint_is_the_documented_hash():
    ids = ["a", "bé"], ["x"]
    pairs = {"train": [(0, 0)], "valid": [(1, 0)], "test": []}
    fingerprint = Fingerprint(*map(pa.array, ids))
    for split, of in pairs.items():
        fingerprint.add(split, rows(of))
    expected = b"pairs/1"
    for own in ids:
        encoded = [text.encode() for text in own]
        lengths = struct.pack(f"<{len(own) + 1}q", len(own), *map(len, encoded))
        expected += hashlib.sha256(lengths + b"".join(encoded)).digest()
    expected += b"".join(map(hash_of_pairs, pairs.values()))
    assert fingerprint.hexdigest() == documented(expected)
    fingerprint.add("pool", rows([(0, 1), (1, 1)]))
    assert fingerprint.hexdigest() == documented(expected, b"pool/1", hash_of_pairs([(0, 1), (1, 1)]))


def test_positions_are_part_of_the_fingerprint_where_there_are_any():
    fingerprint, plain = (Fingerprint(pa.array(["a"]), pa.array(["x", "y", "z"])) for _ in range(2))
    pairs, positions = {"train": [(0, 0), (0, 2)], "valid": [(0, 1)], "test": []}, {"train": [4, None], "valid": [7]}
    for split, of in pairs.items():
        plain.add(split, rows(of))
        fingerprint.add(split, rows(of, position=positions.get(split, [])))
    ids = plain._ids
    expected = [b"pairs/1", ids, *map(hash_of_pairs, pairs.values())]
    assert plain.hexdigest() == documented(*expected)
    hashes = [hashlib.sha256(struct.pack(f"<{len(p)}q", *p)).digest() for p in ([4, -1], [7], [])]
    assert fingerprint.hexdigest() == documented(*expected, b"position/1", *hashes)


def test_fingerprint_is_stable(original):
    """Changes only together with SCHEMA_VERSION: it names the data in every recorded trial."""
    assert load(original).fingerprint == "2c566945b1efa994d6f7fee4544ef45210b38f35880379be0576d6afb549b927"


def test_missing_folder(tmp_path):
    with pytest.raises(InputError, match=r"nothing: no such folder; expected a prepared dataset"):
        load(tmp_path / "nothing")


def test_missing_manifest(copy):
    (copy / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"tiny: not a prepared dataset, it has no manifest\.json"):
        load(copy)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"schema_version": 1}', '{"schema_version": 1, "sizes": 3}', "\xff"]
)
def test_manifest_of_something_else(copy, text):
    (copy / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"manifest\.json: not the manifest of a prepared dataset"):
        load(copy)


def test_rows_of_every_task_have_a_name():
    assert ROWS.keys() == TASKS.keys()


def test_a_task_that_is_none(copy):
    rewrite(copy / "manifest.json", lambda manifest: manifest.update(task="pears"))
    with pytest.raises(InputError, match=r"manifest\.json: not the manifest of a prepared dataset"):
        load(copy)


def test_other_schema_version(copy):
    rewrite(copy / "manifest.json", lambda manifest: manifest.update(schema_version=2))
    with pytest.raises(InputError, match=r"schema version 2, this recloss reads 1; prepare it again"):
        load(copy)


def test_missing_shard(copy):
    (copy / "valid" / "part-00000.parquet").unlink()
    with pytest.raises(InputError, match=r"valid: 0 rows in 0 shards, the manifest says 12"):
        load(copy)


@pytest.mark.parametrize("name", ["train/part-00000.parquet", "users.parquet"])
@pytest.mark.parametrize("size", [0, 3, 100, -1])
def test_truncated_file(copy, name, size):
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[:size])
    with pytest.raises(InputError, match=r"\.parquet: not a complete Parquet file"):
        load(copy)


def test_missing_ids(copy):
    (copy / "items.parquet").unlink()
    with pytest.raises(InputError, match=r"items\.parquet: missing; prepare the dataset again"):
        load(copy)


def test_counts_that_differ_from_the_manifest(copy):
    rewrite(copy / "manifest.json", lambda manifest: manifest["sizes"].update(test=1))
    with pytest.raises(InputError, match=r"test: 24 rows in 1 shards, the manifest says 1"):
        load(copy)
    rewrite(copy / "manifest.json", lambda manifest: manifest["sizes"].update(users=11))
    with pytest.raises(InputError, match=r"users\.parquet: 12 ids, the manifest says 11"):
        load(copy)


@pytest.mark.parametrize("index", [-1, 20])
def test_index_out_of_range(copy, index):
    file = copy / "test" / "part-00000.parquet"
    table = pq.read_table(file)
    items = table["item"].to_numpy().copy()
    items[3] = index
    pq.write_table(table.set_column(1, "item", pa.array(items)), file)
    with pytest.raises(InputError, match=r"test: item index out of range, the manifest has 20 items"):
        load(copy)


def test_other_columns(copy):
    file = copy / "test" / "part-00000.parquet"
    table = pq.read_table(file)
    pq.write_table(table.set_column(1, "item", table["item"].cast(pa.int64())), file)
    with pytest.raises(InputError, match=r"part-00000\.parquet: expected the columns user \(int32\), item \(int32\)"):
        load(copy)


@pytest.mark.parametrize("name", ["train/part-00000.parquet", "items.parquet"])
def test_verify_notices_changed_content(copy, name):
    table = pq.read_table(copy / name)
    pq.write_table(table.take(np.arange(table.num_rows)[::-1]), copy / name)
    (fingerprint,) = (check for check in verify(copy) if check.name == "fingerprint")
    assert not fingerprint.ok
    assert "the manifest says" in fingerprint.detail
