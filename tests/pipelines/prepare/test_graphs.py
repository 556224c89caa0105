"""Graphs: edges and features of nodes to prepared datasets."""

import gzip
import hashlib
import json
import random
import struct

import networkx as nx
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.prepare import prepare
from pipelines.prepare.dataset import SPLITS
from pipelines.prepare.look import look
from pipelines.prepare.verify import verify
from pipelines.settings import PrepareSettings
from recloss.errors import InputError

SMALL = {"negatives_per_edge": 4}


def prepared(raw, out, **changed):
    return prepare(raw, out, PrepareSettings(task="link", **(SMALL | changed)), engine="local")


def content(out):
    """{split: edges as sets of two ids, in a list}, {split: [its negatives, as lists of two ids]}."""
    ids = pq.read_table(out / "users.parquet")["id"].to_pylist()
    assert ids == pq.read_table(out / "items.parquet")["id"].to_pylist()

    def pairs(path):
        return [(ids[row["user"]], ids[row["item"]]) for row in pq.read_table(path).to_pylist()]

    edges = {split: [frozenset(pair) for pair in pairs(out / split)] for split in SPLITS}
    negatives = {}
    for split in ("valid", "test"):
        flat = pairs(out / "negatives" / f"{split}.parquet")
        m = len(flat) // len(edges[split])
        negatives[split] = [flat[at : at + m] for at in range(0, len(flat), m)]
    return edges, negatives


def ring(n=60, more=()):
    """A ring of n nodes, then more lines."""
    return "".join(f"{u} {(u + 1) % n}\n" for u in range(n)) + "".join(f"{u} {v}\n" for u, v in more)


def nodes(n, seed=0):
    """A line per node; every fifth has no features."""
    rng = random.Random(seed)
    lines = []
    for node in range(n):
        features = sorted(rng.sample(range(9), 3)) if node % 5 else []
        lines.append(" ".join([str(node % 3 if features else -1), *(f"{f}:{rng.randint(1, 4)}" for f in features)]))
    return "\n".join(lines) + "\n"


@pytest.fixture
def folder(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "edges.txt").write_text(ring(60))
    (raw / "nodes.svm.gz").write_bytes(gzip.compress(nodes(64).encode()))
    (raw / "ind.toy.graph").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")  # would run if it were unpickled
    return raw


@pytest.mark.parametrize("kind", ["random", "hard"])
def test_a_graph_with_features(tmp_path, folder, kind):
    said = []
    settings_ = PrepareSettings(task="link", negatives=kind, negatives_per_edge=4)
    manifest = prepare(folder, tmp_path / "out", settings_, on_step=said.append)
    assert said[0].endswith("; ignored: ind.toy.graph (pickles run what is written in them)")
    assert manifest["task"] == "link"
    assert manifest["settings"] == {"task": "link", "split_seed": 0, "negatives": kind, "negatives_per_edge": 4}
    assert [source["name"] for source in manifest["sources"]] == ["edges.txt", "nodes.svm.gz"]
    edges, negatives = content(tmp_path / "out")
    counts = {"train": 51, "valid": 3, "test": 6}
    assert {split: len(found) for split, found in edges.items()} == counts
    expected_sizes = {"users": 64, "items": 64, **counts, "features": 9, "negatives_per_edge": 4}
    assert manifest["sizes"] == expected_sizes
    whole = {frozenset(line.split()) for line in ring(60).splitlines()}
    everywhere = [edge for found in edges.values() for edge in found]
    assert len(everywhere) == len(set(everywhere)) == 60
    assert set(everywhere) == whole
    for split, found in negatives.items():
        for edge, against in zip(edges[split], found, strict=True):
            assert len(against) == 4
            for u, v in against:
                assert u != v
                assert len(edge & {u, v}) == 1
                assert frozenset((u, v)) not in whole
    assert manifest["steps"][1] == {
        "step": "undirected", "rows": 60, "users": 64, "items": 64, "loops": 0, "repeated": 0, "isolated": 4,
    }  # fmt: skip
    assert [check.name for check in verify(tmp_path / "out", folder) if not check.ok] == []


def test_features_are_those_of_the_lines(tmp_path, folder):
    prepared(folder, tmp_path / "out")
    rows = pq.read_table(tmp_path / "out" / "features.parquet").to_pylist()
    found = {node: {} for node in range(64)}
    for row in rows:
        found[row["node"]][row["feature"]] = row["value"]
    for node, line in enumerate(nodes(64).splitlines()):
        expected = {int(f): float(v) for f, v in (word.split(":") for word in line.split()[1:])}
        assert found[node] == expected
    assert [(row["node"], row["feature"]) for row in rows] == sorted((row["node"], row["feature"]) for row in rows)


def test_rows_are_ascending_with_the_smaller_node_first(tmp_path, folder):
    prepared(folder, tmp_path / "out")
    for split in SPLITS:
        table = pq.read_table(tmp_path / "out" / split)
        rows = list(zip(table["user"].to_pylist(), table["item"].to_pylist(), strict=True))
        assert rows == sorted(rows)
        assert all(u < v for u, v in rows)


def test_loops_and_repeated_edges_are_dropped_and_counted(tmp_path):
    more = [(1, 0), (0, 1), (5, 4), (7, 7), (8, 8), (7, 7), (3, 30)]
    (tmp_path / "edges.txt").write_text(ring(60, more))
    manifest = prepared(tmp_path / "edges.txt", tmp_path / "out")
    step = manifest["steps"][1]
    assert (step["loops"], step["repeated"], step["rows"], step["isolated"]) == (3, 3, 61, 0)
    edges, _ = content(tmp_path / "out")
    reference = nx.Graph([line.split() for line in ring(60, more).splitlines()])
    reference.remove_edges_from(list(nx.selfloop_edges(reference)))
    assert {edge for found in edges.values() for edge in found} == {frozenset(edge) for edge in reference.edges}


def test_nodes_of_an_edge_list_are_those_it_names(tmp_path):
    names = [f"n{node}" for node in range(40)]
    lines = [f"{names[u]}\t{names[(u + 1) % 40]}" for u in range(40)] + ["alone\talone"]
    (tmp_path / "graph.tsv").write_text("\n".join(lines))
    manifest = prepared(tmp_path / "graph.tsv", tmp_path / "out")
    assert pq.read_table(tmp_path / "out" / "users.parquet")["id"].to_pylist() == sorted([*names, "alone"])
    assert manifest["sizes"]["features"] == 0
    assert not (tmp_path / "out" / "features.parquet").exists()
    assert manifest["steps"][1]["isolated"] == 1
    assert all(check.ok for check in verify(tmp_path / "out"))


def test_the_order_of_rows_and_of_ends_does_not_matter(tmp_path):
    lines = ring(60, [(3, 40), (5, 22)]).splitlines()
    turned = [" ".join(reversed(line.split())) if at % 3 else line for at, line in enumerate(lines)]
    random.Random(0).shuffle(turned)
    fingerprints = {}
    for name, written, seed in (("one", lines, 0), ("turned", turned, 0), ("seed", lines, 1)):
        (tmp_path / f"{name}.txt").write_text("\n".join(written) + "\n")
        fingerprints[name] = prepared(tmp_path / f"{name}.txt", tmp_path / name, split_seed=seed)["fingerprint"]
    assert fingerprints["one"] == fingerprints["turned"] != fingerprints["seed"]
    assert content(tmp_path / "one")[0] != content(tmp_path / "seed")[0]
    assert content(tmp_path / "one") == content(tmp_path / "turned")


def test_fingerprint_is_the_documented_hash(tmp_path, folder):
    manifest = prepared(folder, tmp_path / "out")

    def sha(*parts):
        return hashlib.sha256(b"".join(parts)).digest()

    def read(name):
        return pq.read_table(tmp_path / "out" / name)

    def columns(table, kinds):
        return (struct.pack(f"<{len(table)}{kind}", *table[at].to_pylist()) for at, kind in enumerate(kinds))

    encoded = [str(node).encode() for node in range(64)]
    ids = sha(struct.pack("<65q", 64, *map(len, encoded)), *encoded)
    edges = [sha(*(struct.pack("<2i", *row.values()) for row in read(split).to_pylist())) for split in SPLITS]
    files = [(f"{name}.parquet", "iif" if name == "features" else "ii")
             for name in ("features", "negatives/test", "negatives/valid")]  # fmt: skip
    more = [part for name, kinds in files for part in (f"{name}/1".encode(), sha(*columns(read(name), kinds)))]
    assert manifest["fingerprint"] == sha(b"link/1", ids, ids, *edges, *more).hex()


def test_everything_is_in_the_fingerprint(tmp_path, folder):
    found = {"same": prepared(folder, tmp_path / "same")["fingerprint"]}
    found["negatives"] = prepared(folder, tmp_path / "negatives", negatives="hard")["fingerprint"]
    found["per edge"] = prepared(folder, tmp_path / "per", negatives_per_edge=5)["fingerprint"]
    for name, changed in (("value", nodes(64).replace(":1", ":9", 1)), ("node", nodes(65))):
        (folder / "nodes.svm.gz").write_bytes(gzip.compress(changed.encode()))
        found[name] = prepared(folder, tmp_path / name)["fingerprint"]
    (folder / "nodes.svm.gz").unlink()
    found["no features"] = prepared(folder, tmp_path / "plain")["fingerprint"]
    assert len(set(found.values())) == len(found)
    (folder / "nodes.svm").write_text("\n".join("5" + line[line.index(" ") :] if " " in line else line
                                                for line in nodes(64).splitlines()))  # fmt: skip
    assert prepared(folder, tmp_path / "classes")["fingerprint"] == found["same"], "classes are not read"


@given(st.sets(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=40, max_size=80), st.integers(0, 5))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_edge_is_in_exactly_one_split(tmp_path_factory, pairs, seed):
    place = tmp_path_factory.mktemp("graph")
    (place / "edges.txt").write_text("".join(f"{u} {v}\n" for u, v in sorted(pairs)))
    manifest = prepared(place / "edges.txt", place / "out", split_seed=seed, negatives_per_edge=2)
    whole = {frozenset((str(u), str(v))) for u, v in pairs if u != v}
    edges, negatives = content(place / "out")
    everywhere = [edge for found in edges.values() for edge in found]
    assert len(everywhere) == len(whole)
    assert set(everywhere) == whole
    n = len(whole)
    assert [len(edges[split]) for split in SPLITS] == [n - int(0.05 * n) - int(0.1 * n), int(0.05 * n), int(0.1 * n)]
    assert not {frozenset(pair) for found in negatives.values() for against in found for pair in against} & whole
    assert manifest["steps"][1]["loops"] == sum(u == v for u, v in pairs)
    assert all(check.ok for check in verify(place / "out"))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"other.txt": "0 1\n"}, "raw: no edges.txt; give the file with a line 'node node' per edge"),
        ({"edges.txt": ring(60), "edges.tsv": ""}, "raw: several files of edges (edges.tsv, edges.txt); give the file "
         "with a line 'node node' per edge"),
        ({"edges.txt": ring(60, [(3, 64)]), "nodes.svm": nodes(64)},
         "edges.txt, line 61: node '64' has no line in nodes.svm, whose nodes are numbered 0 to 63"),
        ({"edges.txt": ring(60, [("x", 3)]), "nodes.svm": nodes(64)},
         "edges.txt, line 61: node 'x' has no line in nodes.svm, whose nodes are numbered 0 to 63"),
        ({"edges.txt": ring(60), "nodes.svm": nodes(64).replace("\n", "\n\n", 1)},
         "nodes.svm, line 2: is empty; line k is node k, with at least its class"),
        ({"edges.txt": ring(60), "nodes.svm": nodes(64) + "1 4:1 3:1\n"},
         "nodes.svm, line 65: feature 3 comes after 4; they must ascend, each once"),
        ({"edges.txt": ring(60) + "1\n"}, "edges.txt, line 61: 1 columns, expected 2"),
        ({"edges.txt": "0 1 0.5\n1 2 0.5\n"}, "edges.txt: 3 columns, expected two, the nodes of an edge; weights are "
         "not used"),
        ({"edges.txt": ring(12)}, "raw: 12 edges give 11 to train, 0 to validate and 1 to test: each needs one"),
        ({"edges.txt": "0 0\n"}, "raw: nothing is left after the step undirected"),
    ],
)  # fmt: skip
def test_what_cannot_be_prepared_is_refused_in_one_line(tmp_path, files, message):
    raw = tmp_path / "raw"
    raw.mkdir()
    for name, text in files.items():
        (raw / name).write_text(text)
    with pytest.raises(InputError) as raised:
        prepared(raw, tmp_path / "out")
    assert str(raised.value).removeprefix(f"{tmp_path}/").startswith(message)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_a_complete_graph_has_no_negatives(tmp_path):
    (tmp_path / "edges.txt").write_text("".join(f"{u} {v}\n" for u in range(9) for v in range(u)))
    with pytest.raises(InputError, match=r"edges\.txt: "):
        prepared(tmp_path / "edges.txt", tmp_path / "out")


def test_the_same_command_does_nothing_and_another_is_refused(tmp_path, folder):
    first = prepared(folder, tmp_path / "out")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*")}
    assert prepared(folder, tmp_path / "out") == first
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*")}
    for changed in ({"split_seed": 1}, {"negatives": "hard"}, {"negatives_per_edge": 3}):
        with pytest.raises(InputError, match="out: prepared before with other settings; remove it"):
            prepared(folder, tmp_path / "out", **changed)
    with pytest.raises(InputError, match="prepared before with other task"):
        prepare(folder / "edges.txt", tmp_path / "out", PrepareSettings(), engine="local")


def test_damage_is_found(tmp_path, folder):
    prepared(folder, tmp_path / "out")
    files = sorted(path for path in (tmp_path / "out").rglob("*.parquet"))
    assert len(files) == 8
    for file in files:
        whole, rows = file.read_bytes(), pq.read_table(file)
        found = 0
        for at in range(4, len(whole) // 3, max(len(whole) // 30, 1)):
            damaged = bytearray(whole)
            damaged[at] ^= 0x10
            file.write_bytes(damaged)
            fine = all(check.ok for check in verify(tmp_path / "out"))
            assert not fine or pq.read_table(file).equals(rows), (file, at)
            found += not fine
        assert found
        file.write_bytes(whole)
    for name, change, check, detail in (
        ("features", lambda table: table[1:], "fingerprint", "the content has"),
        ("features", lambda table: table.set_column(1, "feature", [np.full(len(table), 9, np.int32)]), "features",
         "feature out of range, the manifest has 9"),
        ("negatives/test", lambda table: table[1:], "negatives/test", "23 negatives, the manifest says 24"),
        ("negatives/valid", lambda table: table.rename_columns(["u", "v"]), "negatives/valid", "expected the columns"),
    ):  # fmt: skip
        file = tmp_path / "out" / f"{name}.parquet"
        table = pq.read_table(file)
        pq.write_table(change(table), file)
        failed = {found.name: found.detail for found in verify(tmp_path / "out") if not found.ok}
        assert detail in failed[check]
        pq.write_table(table, file)
    (tmp_path / "out" / "negatives" / "more").touch()
    (tmp_path / "out" / "negatives" / "valid.parquet").unlink()
    failed = {found.name: found.detail for found in verify(tmp_path / "out") if not found.ok}
    assert failed["other files"] == "also here: negatives/more"
    assert failed["negatives/valid"].endswith("missing; prepare the dataset again")


def test_look(tmp_path, folder):
    manifest = prepared(folder, tmp_path / "out")
    lines = look(tmp_path / "out")
    text = "\n".join(lines)
    assert "Read 60 edges of 64 nodes, 9 features (edges and features of nodes)." in text
    assert "Dropped 0 self-loops and 0 repeated or reversed edges: 60 edges, 4 nodes without one." in text
    assert "Split 85/5/10 at random (seed 0): train 51, validation 3, test 6 edges." in text
    assert "Each edge of validation and test is ranked against 4 random negatives." in text
    assert "64 nodes, 60 edges, 4 nodes without an edge" in text
    edges, _ = content(tmp_path / "out")
    trained = set().union(*edges["train"])
    unseen = sum(not edge <= trained for edge in edges["test"])
    ends = len(set().union(*edges["test"]))
    assert ["test", "6", str(ends), str(unseen), f"({unseen / 6:.1%})"] in [line.split() for line in lines]
    assert f"9, {3 * 51 / 64:.1f} per node, values 1 to 4; 13 nodes have none" in text
    assert ["2-3", "60", "100.0%", "█" * 40] in [line.split() for line in lines]
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == manifest


@pytest.mark.parametrize(
    ("name", "n", "n_edges", "isolated", "features"),
    [("cora", 2708, 5278, 0, (1433, 49216)), ("citeseer", 3327, 4552, 48, (3703, 105165))],
)
def test_real_counts(tmp_path, recloss_data, name, n, n_edges, isolated, features):
    manifest = prepared(recloss_data / name, tmp_path / "out")
    sizes = manifest["sizes"]
    assert (sizes["users"], sizes["train"] + sizes["valid"] + sizes["test"]) == (n, n_edges)
    assert (sizes["valid"], sizes["test"]) == (int(0.05 * n_edges), int(0.1 * n_edges))
    step = manifest["steps"][1]
    assert (step["loops"], step["repeated"], step["isolated"]) == (0, 0, isolated)
    assert sizes["features"] == features[0]
    assert pq.read_metadata(tmp_path / "out" / "features.parquet").num_rows == features[1]
    edges, _ = content(tmp_path / "out")
    written = (recloss_data / name / "edges.txt").read_text().splitlines()
    assert {edge for found in edges.values() for edge in found} == {frozenset(line.split()) for line in written}
    assert all(check.ok for check in verify(tmp_path / "out", recloss_data / name))
