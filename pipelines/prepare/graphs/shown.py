"""What a prepared graph looks like: degrees, nodes without an edge, features, negatives."""

from pathlib import Path
from typing import Any

import numpy as np

from pipelines.prepare.dataset import SPLITS, load
from pipelines.prepare.graphs.store import FEATURES, read_extra
from pipelines.prepare.inspect import popularity, spread
from pipelines.prepare.shown import NAMES, aligned, histogram, section, spreads
from pipelines.prepare.words import told


def shown_graph(path: Path) -> list[str]:
    """The lines of an inspection; no node is named.

    Raises:
        InputError: a file of the dataset is damaged.
    """
    data = load(path)
    sizes = data.manifest["sizes"]
    ends = {split: np.concatenate(getattr(data, split)) for split in SPLITS}
    degrees = {split: np.bincount(nodes, minlength=data.n_users) for split, nodes in ends.items()}
    total = np.sum(list(degrees.values()), axis=0)
    rows = [["", "edges", "nodes", "edges with a node that has no training edge"]]
    for split in SPLITS:
        first, second = getattr(data, split)
        unseen = int(((degrees["train"][first] == 0) | (degrees["train"][second] == 0)).sum())
        told_unseen = "" if split == "train" else f"{unseen:,} ({unseen / len(first):.1%})"
        rows.append([NAMES[split], f"{len(first):,}", f"{int((degrees[split] > 0).sum()):,}", told_unseen])
    edges = sum(sizes[split] for split in SPLITS)
    whole = f"{data.n_users:,} nodes, {edges:,} edges, {int((total == 0).sum()):,} nodes without an edge"
    return [
        f"{path}: fingerprint {data.fingerprint}",
        *section("how it was made", told(data.manifest)),
        *section("sizes", [whole, *aligned(rows)]),
        *section("edges per node", spreads({"all": spread(total), "train": spread(degrees["train"])})),
        *section("features", _features(path, sizes)),
        *section("nodes by number of edges", histogram(popularity(total), "nodes", "ends of edges")),
    ]


def _features(path: Path, sizes: dict[str, Any]) -> list[str]:
    if not sizes["features"]:
        return ["none"]
    table = read_extra(path, FEATURES, sizes)
    nodes, values = table["node"].to_numpy(), table["value"].to_numpy()
    own = np.bincount(nodes, minlength=sizes["users"])
    without = f"{int((own == 0).sum()):,} nodes have none"
    return [f"{sizes['features']:,}, {own.mean():.1f} per node, values {values.min():g} to {values.max():g}; {without}"]
