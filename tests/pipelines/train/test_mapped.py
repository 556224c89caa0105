"""Pairs mapped from the cache: equal to the shards, made once, shared by processes, never written."""

import faulthandler
import inspect
import json
import multiprocessing as mp
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipelines.prepare import load
from pipelines.prepare.dataset import SCHEMA_VERSION
from pipelines.train import mapped
from recloss import backbones, losses
from recloss.backbones import BACKBONES
from recloss.errors import InputError
from recloss.evaluation import evaluate
from recloss.interactions import Interactions
from recloss.losses import LOSSES
from recloss.sampling import SAMPLERS, build_sampler
from recloss.training import FitSettings, fit

SPLITS = ("train", "valid", "test")


@pytest.fixture
def pairs(tmp_path, monkeypatch) -> Path:
    """The folder of an empty pairs, of which the built kernels are those of the session."""
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "native").symlink_to(Path(os.environ["RECLOSS_CACHE"]) / "native")
    monkeypatch.setenv("RECLOSS_CACHE", str(folder))
    return folder / "pairs"


def in_memory(prepared: Path, split: str) -> Interactions:
    data = load(prepared)
    user, item = getattr(data, split)
    return Interactions(torch.tensor(user), torch.tensor(item), data.n_users, data.n_items)


@pytest.mark.parametrize("split", SPLITS)
def test_mapped_interactions_are_those_of_the_shards(prepared, pairs, split):
    found, wanted = mapped.interactions(prepared, load(prepared).fingerprint, split), in_memory(prepared, split)
    assert found.__dict__.keys() == wanted.__dict__.keys()
    for name, value in wanted.__dict__.items():
        seen = found.__dict__[name]
        assert (
            torch.equal(seen, value) and seen.dtype == value.dtype if isinstance(value, torch.Tensor) else seen == value
        )


def big(folder: Path, rows: int = 2_000_000, shards: int = 3) -> tuple[Path, str]:
    """A prepared dataset of random pairs in shards that end inside a user, and its fingerprint."""
    n_users, n_items = 20_000, 5_000
    keys = np.sort(np.random.default_rng(0).choice(n_users * n_items, rows, replace=False))
    fingerprint = "f" * 64
    for split, part in (("train", keys), ("valid", keys[:5]), ("test", keys[:5])):
        (folder / split).mkdir(parents=True)
        for index, own in enumerate(np.array_split(part, shards)):
            table = pa.table({"user": (own // n_items).astype("i4"), "item": (own % n_items).astype("i4")})
            pa.parquet.write_table(table, folder / split / f"part-{index:05}.parquet")
    sizes = {"users": n_users, "items": n_items, "train": rows, "valid": 5, "test": 5}
    manifest = {"schema_version": SCHEMA_VERSION, "fingerprint": fingerprint, "sizes": sizes}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder, fingerprint


def test_shards_are_put_together_one_at_a_time(pairs, tmp_path):
    data, fingerprint = big(tmp_path / "big", 200_000)
    train = mapped.interactions(data, fingerprint, "train")
    again = Interactions(train.user.clone(), train.item.clone(), 20_000, 5_000)
    assert len(train) == 200_000
    for name in ("keys", "user", "item", "degrees", "offsets"):
        assert torch.equal(getattr(train, name), getattr(again, name))


def private_kb() -> int:
    """Memory of this process that no other shares."""
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return sum(int(kb) for kb in re.findall(r"^Private_(?:Clean|Dirty): +(\d+) kB", rollup, re.MULTILINE))


def _hold(data, fingerprint, turns, results):
    mapped.interactions(data, fingerprint, "valid")  # what is allocated on first use
    before = private_kb()
    train = mapped.interactions(data, fingerprint, "train")
    sums = [int(getattr(train, name).numpy().sum()) for name in ("keys", "user", "item", "degrees", "offsets")]
    turns.wait()  # both have read everything
    after = private_kb()
    turns.wait()
    results.put((after - before, sums))


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="shared memory is counted from Linux' /proc")
def test_two_processes_share_one_copy(pairs, tmp_path):
    data, fingerprint = big(tmp_path / "big")
    size_kb = (
        sum(x.nbytes for x in vars(mapped.interactions(data, fingerprint, "train")).values() if hasattr(x, "nbytes"))
        // 1024
    )
    assert size_kb > 40_000
    context = mp.get_context("fork")
    turns, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_hold, args=(data, fingerprint, turns, results)) for _ in range(2)]
    for process in processes:
        process.start()
    (first, sums), (second, same) = results.get(timeout=60), results.get(timeout=60)
    for process in processes:
        process.join()
    assert sums == same
    assert max(first, second) < size_kb / 20, "both hold the data, which neither owns"


def _train_everything(prepared, fingerprint, done):
    """In a process of its own: a write to what is mapped would end it."""
    torch.set_num_threads(1)
    train, valid = (mapped.interactions(prepared, fingerprint, split) for split in ("train", "valid"))
    settings = FitSettings(epochs=2, batch_size=64, negatives=4, valid_every=2, metric="ndcg_5", cutoffs=(5,))
    sizes = {"n_users": train.n_users, "n_items": train.n_items, "n_pairs": len(train), "n_negatives": 4}
    for name, sampler, backbone in [
        *((name, "uniform", "mf") for name, cls in LOSSES.items() if "soft_targets" not in cls.needs),
        *(("sl", sampler, "mf") for sampler in SAMPLERS),
        *(("sl", "uniform", backbone) for backbone in BACKBONES),
    ]:
        params = {"k": 5} if "k" in inspect.signature(losses.get(name)).parameters else {}
        params |= {"refresh": 1} if "refresh" in inspect.signature(losses.get(name)).parameters else {}
        model = backbones.build(backbone, {"dim": 4}, train, 0)
        loss = losses.build(name, params, **sizes, seed=0)
        given = {"ratio": 0.5} if SAMPLERS[sampler].needs_pool else {}
        negatives = build_sampler(sampler, given, train, pool=valid)
        fit(model, loss, train, valid, settings, sampler=negatives)
        evaluate(model, loss.similarity, valid, [train, valid], [5])
    done.put(len(train))


def test_nothing_writes_to_what_is_mapped(prepared, pairs):
    fingerprint = load(prepared).fingerprint
    for split in ("train", "valid"):
        mapped.interactions(prepared, fingerprint, split)
    before = {file: file.read_bytes() for file in pairs.iterdir()}
    context = mp.get_context("spawn")
    done = context.Queue()
    process = context.Process(target=_train_everything, args=(prepared, fingerprint, done))
    process.start()
    process.join()
    assert process.exitcode == 0, "killed by the first write"
    assert {file: file.read_bytes() for file in pairs.iterdir()} == before


def _write(prepared, fingerprint):
    faulthandler.disable()
    mapped.interactions(prepared, fingerprint, "train").item[0] = 1


def test_a_write_ends_the_process_and_changes_nothing(prepared, pairs):
    fingerprint = load(prepared).fingerprint
    wanted = mapped.interactions(prepared, fingerprint, "train").item.clone()
    process = mp.get_context("fork").Process(target=_write, args=(prepared, fingerprint))
    process.start()
    process.join()
    assert process.exitcode < 0
    assert torch.equal(mapped.interactions(prepared, fingerprint, "train").item, wanted)


def _ask(data, fingerprint, turns, made):
    original = mapped._make

    def count(*args):
        made.put(1)
        time.sleep(0.2)
        original(*args)

    mapped._make = count
    turns.wait()
    mapped.interactions(data, fingerprint, "valid")


def test_of_processes_that_ask_at_once_one_makes_the_file(prepared, pairs):
    context = mp.get_context("fork")
    turns, made = context.Barrier(3), context.Queue()
    args = (prepared, load(prepared).fingerprint, turns, made)
    processes = [context.Process(target=_ask, args=args) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert made.get() == 1
    assert made.empty()


def test_a_file_of_another_size_and_the_litter_of_a_killed_process_are_replaced(prepared, pairs):
    fingerprint = load(prepared).fingerprint
    mapped.interactions(prepared, fingerprint, "valid")
    (file,) = pairs.iterdir()
    wanted = file.read_bytes()
    file.write_bytes(wanted[:-8])
    (pairs / f"{'0' * 64}-train.int64.partial").write_bytes(b"half")
    mapped.interactions(prepared, fingerprint, "valid")
    assert [path.name for path in pairs.iterdir()] == [file.name]
    assert file.read_bytes() == wanted


def test_a_failure_leaves_nothing_behind(prepared, pairs, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(prepared, copy)
    shard = next((copy / "train").iterdir())
    table = pa.parquet.read_table(shard)
    pa.parquet.write_table(table.take(np.arange(table.num_rows)[::-1]), shard)
    with pytest.raises(InputError, match="train: pairs out of order or range; prepare the dataset again"):
        mapped.interactions(copy, load(copy).fingerprint, "train")
    pa.parquet.write_table(table[:-1], shard)
    with pytest.raises(InputError, match=r"train: [\d,]+ rows, the manifest says [\d,]+; prepare the dataset again"):
        mapped.interactions(copy, load(prepared).fingerprint, "train")
    assert not list(pairs.iterdir())


def test_the_cache_is_bounded_and_keeps_what_was_used_last(prepared, pairs, monkeypatch):
    fingerprint = load(prepared).fingerprint
    pairs.mkdir()
    for age, name in enumerate(("new", "old", "older")):
        (pairs / name).write_bytes(bytes(1000))
        os.utime(pairs / name, (1e9 - age, 1e9 - age))
    monkeypatch.setattr(mapped, "KEEP_BYTES", 2000)
    mapped.interactions(prepared, fingerprint, "valid")
    assert {path.name for path in pairs.iterdir()} == {"new", "old", f"{fingerprint}-valid.int64"}
    os.utime(pairs / "old", (2e9, 2e9))
    monkeypatch.setattr(mapped, "KEEP_BYTES", 1000)
    mapped.interactions(prepared, fingerprint, "test")
    assert {path.name for path in pairs.iterdir()} == {"old", f"{fingerprint}-test.int64"}


def test_another_data_set_in_the_folder_is_refused(prepared, pairs):
    with pytest.raises(InputError, match="holds the data set .*, not 000000000000 of the sweep"):
        mapped.interactions(prepared, "0" * 64, "train")


def test_a_cache_that_cannot_be_written_is_named(prepared, pairs, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RECLOSS_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"file/pairs: cannot be written .* set RECLOSS_CACHE to another folder"):
        mapped.interactions(prepared, load(prepared).fingerprint, "train")
