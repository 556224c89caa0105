"""Cora, from its plain files: sizes of the split, and a GCN that finds citations after a few epochs."""

import gzip

import torch

from recloss.links import Links, build, evaluate_links, fit_links, random_negatives, split_edges
from recloss.loop import FitSettings
from recloss.losses import SL
from recloss.similarity import csr


def test_citations_of_cora_are_found(recloss_data):
    folder = recloss_data / "cora"
    edges = torch.tensor([list(map(int, line.split())) for line in (folder / "edges.txt").read_text().splitlines()])
    with gzip.open(folder / "nodes.svm.gz", "rt") as file:
        rows = [[int(pair.split(":")[0]) for pair in line.split()[1:]] for line in file]
    offsets = torch.tensor([0, *map(len, rows)]).cumsum(0)
    columns = torch.tensor([feature for row in rows for feature in row])
    features = csr(torch.ones(len(columns)), columns, offsets, 1433)
    train, valid, test = split_edges(edges, seed=1)
    assert [len(part) for part in (train, valid, test)] == [4488, 263, 527]
    negatives = [random_negatives(part, edges, len(rows), 500, seed=1) for part in (valid, test)]
    links = Links(len(rows), features, train, valid, test, *negatives)
    gcn, loss = build("gcn", {"hidden": 32}, links, seed=1), SL(tau=0.2)
    chance = sum(1 / rank for rank in range(1, 502)) / 501
    settings = FitSettings(lr=0.01, epochs=4, negatives=20, valid_every=4, metric="mrr", seed=1)
    fit_links(gcn, loss, links, settings)
    mean = evaluate_links(gcn, loss.similarity, links, "test", (20,)).mean()
    assert mean["mrr"] > 10 * chance
    assert mean["hit_rate_20"] > 0.5
