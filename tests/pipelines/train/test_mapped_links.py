"""Prepared graphs as training reads them."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from pipelines.prepare import prepare
from pipelines.settings import PrepareSettings
from pipelines.train.links import links
from recloss.errors import InputError
from recloss.links.negatives import hard_negatives, random_negatives
from recloss.links.split import split_edges

N = 50


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("raw")
    edges = {tuple(sorted((u, (u + step) % (N - 2)))) for u in range(N - 2) for step in (1, 5)}
    (folder / "edges.txt").write_text("".join(f"{v} {u}\n" for u, v in edges))
    lines = [" ".join([str(node % 3), *(f"{f}:{f + 1}" for f in range(7) if rng.random() < 0.4)]) for node in range(N)]
    (folder / "nodes.svm").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECLOSS_CACHE", str(tmp_path / "cache"))


def dense(raw: Path) -> torch.Tensor:
    features = torch.zeros(N, 7)
    for node, line in enumerate((raw / "nodes.svm").read_text().splitlines()):
        for pair in line.split()[1:]:
            feature, value = pair.split(":")
            features[node, int(feature)] = float(value)
    return features


@pytest.mark.parametrize("kind", ["random", "hard"])
def test_links_are_those_of_the_files(raw, tmp_path, kind):
    settings = PrepareSettings(task="link", split_seed=3, negatives=kind, negatives_per_edge=6)
    fingerprint = prepare(raw, tmp_path / "out", settings)["fingerprint"]
    written = [tuple(sorted(map(int, line.split()))) for line in (raw / "edges.txt").read_text().splitlines()]
    parts = split_edges(torch.tensor(sorted(written)), seed=3)
    for _ in range(2):  # the second time from the cache
        found = links(tmp_path / "out", fingerprint)
        assert found.n_nodes == N
        for split, part in zip((found.train, found.valid, found.test), parts, strict=True):
            assert torch.equal(split, part)
        assert found.features is not None
        assert torch.equal(found.features.to_dense(), dense(raw))
        known = torch.cat(parts)
        if kind == "random":
            both = random_negatives(torch.cat(parts[1:]), known, N, 6, seed=3)
            valid, test = both.split([len(parts[1]), len(parts[2])])
        else:
            valid, test = (hard_negatives(part, parts[0], known, found.features, N, 6) for part in parts[1:])
        assert torch.equal(found.valid_negatives, valid)
        assert torch.equal(found.test_negatives, test)


def test_without_features(raw, tmp_path):
    (tmp_path / "graph.txt").write_text((raw / "edges.txt").read_text())
    settings = PrepareSettings(task="link", negatives_per_edge=3)
    fingerprint = prepare(tmp_path / "graph.txt", tmp_path / "out", settings)["fingerprint"]
    found = links(tmp_path / "out", fingerprint)
    assert found.features is None
    assert found.n_nodes == N - 2
    assert found.test_negatives.shape == (len(found.test), 3, 2)


def test_another_data_set_and_damage_are_refused(raw, tmp_path):
    settings = PrepareSettings(task="link", negatives_per_edge=3)
    fingerprint = prepare(raw, tmp_path / "out", settings)["fingerprint"]
    with pytest.raises(InputError, match=f"holds the data set {fingerprint[:12]}, not 000000000000"):
        links(tmp_path / "out", "0" * 64)
    shard, negatives = (
        tmp_path / "out" / "train" / "part-00000.parquet",
        tmp_path / "out" / "negatives" / "test.parquet",
    )
    table = pq.read_table(negatives)
    test = pq.read_table(tmp_path / "out" / "test")
    wrong = table.set_column(0, "user", [np.repeat(test["user"].to_numpy(), 3)])
    pq.write_table(wrong.set_column(1, "item", [np.repeat(test["item"].to_numpy(), 3)]), negatives)
    with pytest.raises(InputError, match="which is an edge or a loop; prepare the dataset again"):
        links(tmp_path / "out", fingerprint)
    pq.write_table(table, negatives)
    whole = pq.read_table(shard)
    pq.write_table(whole.rename_columns(["item", "user"]).select(["user", "item"]), shard)
    with pytest.raises(InputError, match="smaller node of each edge first"):
        links(tmp_path / "out", fingerprint)
