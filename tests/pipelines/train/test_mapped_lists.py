"""Prepared lists of documents as training reads them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipelines.prepare import prepare
from pipelines.prepare.ranking import write as writing
from pipelines.settings import PrepareSettings
from pipelines.train.lists import lists
from recloss.errors import InputError

SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    rng = np.random.default_rng(0)
    file = tmp_path_factory.mktemp("raw") / "lists.txt"
    lines = []
    for query in range(12):
        for _ in range(rng.integers(1, 7)):
            features = " ".join(f"{f}:{rng.normal():.6f}" for f in range(1, 6) if rng.random() < 0.7)
            lines.append(f"{rng.integers(5)} qid:{100 - query} {features}")
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture(scope="module", params=[None, 10])
def data(request, raw, tmp_path_factory) -> tuple[Path, str]:
    """Prepared in one shard, and in shards of two documents."""
    out = tmp_path_factory.mktemp("prepared") / "lists"
    with pytest.MonkeyPatch.context() as patch:
        if request.param:
            patch.setattr(writing, "SHARD_VALUES", request.param)
        return out, prepare(raw, out, PrepareSettings(task="rank"))["fingerprint"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECLOSS_CACHE", str(tmp_path / "cache"))


def naive(raw: Path) -> dict[str, list[tuple[float, list[float]]]]:
    found: dict[str, list[tuple[float, list[float]]]] = {}
    for line in raw.read_text().splitlines():
        grade, query, *pairs = line.split()
        values = {int(pair.split(":")[0]): float(np.float32(pair.split(":")[1])) for pair in pairs}
        row = [values.get(f, 0.0) for f in range(1, 6)]
        found.setdefault(query.removeprefix("qid:"), []).append((float(grade), row))
    return found


@pytest.mark.parametrize("again", [False, True])
def test_lists_are_those_of_the_file(data, raw, again):
    folder, fingerprint = data
    ids = pq.read_table(folder / "users.parquet")["id"].to_pylist()
    assert ids == [str(query) for query in range(89, 101)]
    written, seen = naive(raw), []
    for split in SPLITS:
        found = lists(folder, fingerprint, split)
        if again:  # from the cache alone
            found = lists(folder, fingerprint, split)
        assert (found.n_queries, found.n_features) == (12, 5)
        assert found.features.dtype == found.grades.dtype == torch.float32
        for query in range(12):
            rows = slice(int(found.offsets[query]), int(found.offsets[query + 1]))
            documents = list(zip(found.grades[rows].tolist(), found.features[rows].tolist(), strict=True))
            if documents:
                assert documents == written[ids[query]]
                seen.append(query)
    assert sorted(seen) == list(range(12))


def test_sizes_of_the_splits(data):
    folder, fingerprint = data
    held = {split: int((lists(folder, fingerprint, split).lengths > 0).sum()) for split in SPLITS}
    assert held == {"train": 8, "valid": 1, "test": 3}  # ceil(0.2 * 12), ceil(0.1 * 9)


def test_another_data_set_is_refused(data):
    folder, fingerprint = data
    with pytest.raises(InputError, match=f"holds the data set {fingerprint[:12]}, not 000000000000"):
        lists(folder, "0" * 64, "train")


def test_damaged_shards_are_refused(raw, tmp_path):
    out = tmp_path / "out"
    fingerprint = prepare(raw, out, PrepareSettings(task="rank"))["fingerprint"]
    shard = out / "train" / "part-00000.parquet"
    whole = pq.read_table(shard)
    for change, message in (
        (lambda t: t[1:], "train: "),
        (lambda t: t.take(list(reversed(range(len(t))))), "queries out of order or range"),
        (lambda t: t.set_column(3, "features", [lists_of(len(t), 4)]), "4 features, expected 5"),
    ):
        pq.write_table(change(whole), shard)
        with pytest.raises(InputError, match=message):
            lists(out, fingerprint, "train")
    shard.write_bytes(b"PAR1")
    with pytest.raises(InputError, match="not a complete Parquet file"):
        lists(out, fingerprint, "train")
    pq.write_table(whole, shard)
    assert len(lists(out, fingerprint, "train")) == len(whole)


def lists_of(n: int, width: int):
    return pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(n * width, np.float32)), width)
