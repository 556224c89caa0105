"""Prepared sequences mapped from the cache: equal to a plain reading of the raw log."""

import json
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipelines.prepare import folder, load, prepare
from pipelines.settings import Columns, PrepareSettings
from pipelines.train import mapped
from recloss.errors import InputError
from recloss.interactions import Interactions
from recloss.sequences import Sequences

SPLITS = ("train", "valid", "test")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECLOSS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pairs"


def log_lines(seed=0, n=1500, users=60, items=25):
    """(user, item, time) in no order, pairs and times repeated; user ids and item ids are their indices."""
    draw = np.random.default_rng(seed)
    rows = [(user, item, 0) for user in range(users) for item in (user % items, (user + 1) % items)]
    columns = (draw.beta(1, 2, n) * users, draw.beta(1, 2, n) * items, draw.integers(0, 300, n))
    return rows + list(zip(*(column.astype(int).tolist() for column in columns), strict=True))


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A prepared dataset of which every split has several shards that end inside users."""
    raw = tmp_path / "log.csv"
    raw.write_text("user,item,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in log_lines()))
    monkeypatch.setattr(folder, "SHARD_ROWS", 29)
    settings = PrepareSettings(task="sequence", columns=Columns(timestamp="timestamp"), test_last=2)
    prepare(raw, tmp_path / "out", settings)
    return tmp_path / "out"


def by_loops():
    """Split -> items of each user, oldest first."""
    whole = defaultdict(list)
    for user, item, _ in sorted(log_lines(), key=lambda row: row[2]):
        whole[user].append(item)
    found = {split: [[] for _ in range(60)] for split in SPLITS}
    for user, own in whole.items():
        cut = len(own) - 3 if len(own) > 3 else len(own)
        parts = (own[:cut], own[cut : cut + 1], own[cut + 1 :])
        for split, part in zip(SPLITS, parts, strict=True):
            found[split][user] = part
    return found


@pytest.mark.parametrize("split", SPLITS)
def test_sequences_are_those_of_the_raw_log(data, cache, split):
    assert len(list((data / split).iterdir())) > 1
    found = mapped.sequences(data, load(data).fingerprint, split)
    wanted = by_loops()[split]
    items = torch.tensor([item for own in wanted for item in own])
    offsets = torch.tensor([0, *np.cumsum([len(own) for own in wanted]).tolist()])
    again = Sequences(items, offsets, 25)
    assert found.__dict__.keys() == again.__dict__.keys()
    assert (found.n_users, found.n_items) == (60, 25)
    for name in ("items", "offsets"):
        seen, value = getattr(found, name), getattr(again, name)
        assert torch.equal(seen, value)
        assert seen.dtype == value.dtype
    assert mapped.sequences(data, load(data).fingerprint, split).items.tolist() == found.items.tolist(), (
        "from the cache"
    )


@pytest.mark.parametrize("split", SPLITS)
def test_interactions_of_sequences_are_the_distinct_pairs(data, cache, split):
    found = mapped.interactions(data, load(data).fingerprint, split)
    pairs = sorted({(user, item) for user, own in enumerate(by_loops()[split]) for item in own})
    assert len(pairs) < load(data).manifest["sizes"][split] or split == "valid"
    user, item = torch.tensor(pairs).T
    wanted = Interactions(user, item, 60, 25)
    for name, value in wanted.__dict__.items():
        seen = found.__dict__[name]
        assert torch.equal(seen, value) if isinstance(value, torch.Tensor) else seen == value
    assert torch.equal(mapped.sequences(data, load(data).fingerprint, split).interactions().keys, found.keys)


def test_real_sequences(tmp_path, cache, recloss_data):
    settings = PrepareSettings(task="sequence")
    fingerprint = prepare(recloss_data / "beauty-s3rec", tmp_path / "out", settings)["fingerprint"]
    train, valid, test = (mapped.sequences(tmp_path / "out", fingerprint, split) for split in SPLITS)
    text = (recloss_data / "beauty-s3rec" / "Beauty.txt").read_text()
    raw = sorted([int(value) for value in line.split()] for line in text.splitlines())
    wanted = [items for _, *items in raw]  # ids are 1 .. n, so that indices are one less
    parts = [train.items.split(train.lengths.tolist()), *((part.items[:, None]) for part in (valid, test))]
    found = [[item + 1 for part in own for item in part.tolist()] for own in zip(*parts, strict=True)]
    assert found == wanted
    assert len(mapped.interactions(tmp_path / "out", fingerprint, "train")) == len(train), "no item comes again"


def test_pairs_are_no_sequences(prepared, cache):
    with pytest.raises(InputError, match="holds no sequences; prepare it with task sequence"):
        mapped.sequences(prepared, load(prepared).fingerprint, "train")


def change(data, rows):
    shard = min((data / "train").iterdir())
    pq.write_table(rows(pq.read_table(shard)), shard)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (lambda table: table.take(np.arange(len(table))[::-1]), "train: rows out of order or range; prepare the data"),
        (lambda table: table[:-1], r"train: [\d,]+ rows, the manifest says [\d,]+; prepare the dataset again"),
        (lambda table: table.drop_columns("position"), r"part-00000\.parquet: .*position"),
        (
            lambda table: table.set_column(1, "item", pa.array([25] * len(table), pa.int32())),
            "train: rows out of order or range",
        ),
    ],
)
def test_a_failure_is_one_line_and_leaves_nothing(data, cache, rows, message):
    change(data, rows)
    fingerprint = json.loads((data / "manifest.json").read_text())["fingerprint"]
    with pytest.raises(InputError, match=message) as raised:
        mapped.sequences(data, fingerprint, "train")
    assert "\n" not in str(raised.value)
    assert not list(cache.iterdir())
