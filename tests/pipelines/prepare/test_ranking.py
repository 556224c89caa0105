"""Judged lists of documents: files to prepared datasets."""

import gzip
import hashlib
import json
import shutil
import struct
import zipfile
from math import ceil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.commands import run
from pipelines.prepare import load, prepare
from pipelines.prepare.dataset import SPLITS
from pipelines.prepare.look import look
from pipelines.prepare.ranking import write as writing
from pipelines.prepare.verify import verify
from pipelines.settings import PrepareSettings, parse
from recloss.errors import InputError

RANK = PrepareSettings(task="rank")


def letor(queries, docid=True):
    """LETOR text of {query: [(grade, {feature: value})]}, in the order given."""
    lines = []
    for query, documents in queries.items():
        for place, (grade, values) in enumerate(documents):
            features = " ".join(f"{feature}:{value}" for feature, value in values.items())
            comment = f" #docid = d{query}-{place}" if docid else ""
            lines.append(f"{grade} qid:{query} {features}{comment}")
    return "\n".join(lines) + "\n"


def some_queries(ids, seed=0, features=4):
    rng = np.random.default_rng(seed)
    return {
        int(query): [
            (
                int(rng.integers(3)),
                {f: round(float(rng.random()), 3) for f in range(1, features + 1) if rng.random() < 0.7},
            )
            for _ in range(rng.integers(1, 6))
        ]
        for query in ids
    }


def content(out):
    """{split: {query id: [(document id, grade, features)]}}."""
    users, items = (pq.read_table(out / f"{side}.parquet")["id"].to_pylist() for side in ("users", "items"))
    found = {}
    for split in SPLITS:
        queries: dict[str, list] = {}
        for row in pq.read_table(out / split).to_pylist():
            queries.setdefault(users[row["user"]], []).append((items[row["item"]], row["grade"], row["features"]))
        found[split] = queries
    return found


def expected(queries, features, docid=True):
    def dense(values):
        return [float(np.float32(values.get(f, 0))) for f in range(1, features + 1)]

    return {
        str(query): [
            (f"d{query}-{place}" if docid else f"{query}/{place + 1}", float(grade), dense(values))
            for place, (grade, values) in enumerate(documents)
        ]
        for query, documents in queries.items()
    }


@pytest.fixture
def folder(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "train.txt").write_text(letor(some_queries([30, 4, 17, 101, 2, 55])))
    (raw / "test.txt").write_text(letor(some_queries([3, 40], seed=1)))
    return raw


def prepared(raw, out, **changed):
    return prepare(raw, out, PrepareSettings(task="rank", **changed), engine="local")


@pytest.mark.parametrize("packing", ["plain", "gz", "zip"])
def test_a_given_split_is_kept_and_validation_held_out(tmp_path, folder, packing):
    train, test = some_queries([30, 4, 17, 101, 2, 55]), some_queries([3, 40], seed=1)
    raw = folder
    if packing == "gz":
        for file in list(folder.iterdir()):
            Path(f"{file}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
    if packing == "zip":
        raw = tmp_path / "fold.zip"
        with zipfile.ZipFile(raw, "w") as archive:
            for file in folder.iterdir():
                archive.write(file, f"Fold1/{file.name}")
    manifest = prepared(raw, tmp_path / "out", valid_ratio=0.3)
    found = content(tmp_path / "out")
    assert found["test"] == expected(test, 4)
    assert found["train"] | found["valid"] == expected(train, 4)
    assert not found["train"].keys() & found["valid"].keys()
    assert len(found["valid"]) == ceil(0.3 * 6)
    n = {split: sum(map(len, queries.values())) for split, queries in found.items()}
    assert manifest["sizes"] == {"users": 8, "items": sum(n.values()), **n, "features": 4}
    assert manifest["task"] == "rank"
    assert manifest["settings"] == {"task": "rank", "test_ratio": 0.2, "valid_ratio": 0.3, "split_seed": 0}
    assert manifest["steps"][-1]["valid_queries"] == 2
    assert [check.name for check in verify(tmp_path / "out", raw) if not check.ok] == []
    assert load(tmp_path / "out").n_users == 8


def test_queries_are_numbered_as_integers_and_documents_keep_their_order(tmp_path, folder):
    prepared(folder, tmp_path / "out")
    ids = pq.read_table(tmp_path / "out" / "users.parquet")["id"].to_pylist()
    assert ids == ["2", "3", "4", "17", "30", "40", "55", "101"]
    documents = pq.read_table(tmp_path / "out" / "items.parquet")["id"].to_pylist()
    both = expected(some_queries([30, 4, 17, 101, 2, 55]) | some_queries([3, 40], seed=1), 4)
    assert documents == [document for query in ids for document, *_ in both[query]]


def test_a_given_validation_file_is_taken(tmp_path, folder):
    held = some_queries([9, 8], seed=2)
    (folder / "vali.txt").write_text(letor(held))
    prepared(folder, tmp_path / "out")
    assert content(tmp_path / "out")["valid"] == expected(held, 4)
    for name, file in (("valid_ratio", "vali.txt"), ("test_ratio", "test.txt")):
        with pytest.raises(InputError) as raised:
            prepared(folder, tmp_path / "other", **{name: 0.5})
        assert str(raised.value) == f"{name} has no effect: {file} holds this split"
    assert not (tmp_path / "other").exists()


def test_one_file_is_divided_by_query(tmp_path, folder):
    queries = some_queries(range(40))
    (tmp_path / "all.txt").write_text(letor(queries, docid=False))
    manifest = prepared(tmp_path / "all.txt", tmp_path / "out", test_ratio=0.25, valid_ratio=0.15)
    found = content(tmp_path / "out")
    assert found["train"] | found["valid"] | found["test"] == expected(queries, 4, docid=False)
    assert [len(found[split]) for split in SPLITS] == [25, 5, 10]  # ceil(0.25 * 40), ceil(0.15 * 30)
    assert [manifest["steps"][1][f"{split}_queries"] for split in SPLITS] == [25, 5, 10]


def test_the_split_is_a_function_of_seed_and_query(tmp_path):
    """Neither the order of the queries nor that there are others before them changes where one is."""
    queries = some_queries(range(40))
    back = dict(reversed(queries.items()))
    fingerprints = {}
    for name, given_, seed in (("one", queries, 0), ("back", back, 0), ("other", queries, 1)):
        (tmp_path / f"{name}.txt").write_text(letor(given_))
        fingerprints[name] = prepared(tmp_path / f"{name}.txt", tmp_path / name, split_seed=seed)["fingerprint"]
    assert fingerprints["one"] == fingerprints["back"] != fingerprints["other"]
    assert content(tmp_path / "one") == content(tmp_path / "back")
    valid = [set(content(tmp_path / name)["valid"]) for name in ("one", "other")]
    assert valid[0] != valid[1]


queries_ = st.dictionaries(
    st.integers(0, 2**40),
    st.lists(
        st.tuples(st.integers(0, 4), st.dictionaries(st.integers(1, 6), st.floats(-9, 9, width=32), max_size=4)),
        min_size=1,
        max_size=3,
    ),
    min_size=3,
    max_size=8,
)


@given(queries_, st.booleans(), st.integers(1, 7))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip(tmp_path, queries, docid, shard_values):
    """What is prepared is what the file says, whatever the shards."""
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    queries = {q: [(g, dict(sorted(v.items()))) for g, v in documents] for q, documents in queries.items()}
    (tmp_path / "lists.dat").write_text(letor(queries, docid))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "SHARD_VALUES", shard_values)
        patch.setattr(writing, "WRITTEN_AT_ONCE", shard_values)
        manifest = prepared(tmp_path / "lists.dat", tmp_path / "out")
    found = content(tmp_path / "out")
    width = max([1, *(max(values, default=0) for documents in queries.values() for _, values in documents)])
    assert manifest["sizes"]["features"] == width
    assert found["train"] | found["valid"] | found["test"] == expected(queries, width, docid)
    assert sum(map(len, found.values())) == len(queries)
    assert all(check.ok for check in verify(tmp_path / "out"))
    whole = prepared(tmp_path / "lists.dat", tmp_path / "whole")
    shutil.rmtree(tmp_path / "whole")
    assert whole["fingerprint"] == manifest["fingerprint"]


def test_every_number_is_in_the_fingerprint(tmp_path):
    queries = some_queries(range(6), features=3)
    changed = {"same": {}, "grade": {}, "value": {}, "query": {}}
    for name in changed:
        documents = {q: [(g, dict(v)) for g, v in d] for q, d in queries.items()}
        if name == "grade":
            documents[3][0] = (4, documents[3][0][1])
        if name == "value":
            documents[3][0][1][3] = 7
        if name == "query":
            documents[33] = documents.pop(3)
        text = letor(documents).replace("d33-", "d3-")
        (tmp_path / f"{name}.txt").write_text(text)
        changed[name] = prepared(tmp_path / f"{name}.txt", tmp_path / name)["fingerprint"]
    (tmp_path / "again.txt").write_text(letor(queries))
    again = prepared(tmp_path / "again.txt", tmp_path / "again")["fingerprint"]
    assert again == changed["same"]
    assert len(set(changed.values())) == 4


def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def ids_hash(ids):
    encoded = [text.encode() for text in ids]
    return sha(struct.pack(f"<{len(ids) + 1}q", len(ids), *map(len, encoded)), *encoded)


def test_fingerprint_is_the_documented_hash(tmp_path, folder):
    manifest = prepared(folder, tmp_path / "out")
    users, items = (
        pq.read_table(tmp_path / "out" / f"{side}.parquet")["id"].to_pylist() for side in ("users", "items")
    )
    rows = {split: pq.read_table(tmp_path / "out" / split).to_pylist() for split in SPLITS}
    pairs = [sha(*(struct.pack("<2i", row["user"], row["item"]) for row in rows[split])) for split in SPLITS]
    grades = [sha(*(struct.pack("<f", row["grade"]) for row in rows[split])) for split in SPLITS]
    features = [sha(*(struct.pack("<4f", *row["features"]) for row in rows[split])) for split in SPLITS]
    content_ = [b"rank/1", ids_hash(users), ids_hash(items), *pairs, b"grade/1", *grades, b"features/1", *features]
    assert manifest["fingerprint"] == sha(*content_).hex()


def test_documents_may_be_judged_for_several_queries(tmp_path):
    lines = ["1 qid:1 1:1 #docid = b", "0 qid:1 1:2 #docid = a", "2 qid:2 1:3 #docid = a", "0 qid:2 1:4 #docid = b"]
    (tmp_path / "lists.txt").write_text("\n".join([*lines, "0 qid:3 1:5"]) + "\n")
    manifest = prepared(tmp_path / "lists.txt", tmp_path / "out")
    assert manifest["sizes"]["items"] == 3
    found = content(tmp_path / "out")
    whole = found["train"] | found["valid"] | found["test"]
    assert {q: [(d, g, f[0]) for d, g, f in documents] for q, documents in whole.items()} == {
        "1": [("b", 1, 1), ("a", 0, 2)],
        "2": [("b", 0, 4), ("a", 2, 3)],  # in the order of the documents' numbers
        "3": [("3/1", 0, 5)],
    }
    (tmp_path / "twice.txt").write_text("\n".join([*lines, "0 qid:2 1:5 #docid = a"]) + "\n")
    with pytest.raises(InputError) as raised:
        prepared(tmp_path / "twice.txt", tmp_path / "other")
    assert str(raised.value) == "twice.txt: document 'a' comes twice in query 2; each is judged once for a query"


# --- LightGBM's form


def counted(tmp_path, train_counts="2\n1\n3\n", test_counts="2\n"):
    raw = tmp_path / "counted"
    raw.mkdir(exist_ok=True)
    (raw / "rank.train").write_text("".join(f"{n % 3} 2:{n}\n" for n in range(6)))
    (raw / "rank.test").write_text("1 1:1\n0 3:2\n")
    (raw / "rank.train.query").write_text(train_counts)
    (raw / "rank.test.query").write_text(test_counts)
    return raw


def test_counted_queries(tmp_path):
    manifest = prepared(counted(tmp_path), tmp_path / "out")
    found = content(tmp_path / "out")
    assert found["test"] == {"test/1": [("test/1/1", 1, [1, 0, 0]), ("test/1/2", 0, [0, 0, 2])]}
    assert found["train"] | found["valid"] == {
        "train/1": [("train/1/1", 0, [0, 0, 0]), ("train/1/2", 1, [0, 1, 0])],
        "train/2": [("train/2/1", 2, [0, 2, 0])],
        "train/3": [("train/3/1", 0, [0, 3, 0]), ("train/3/2", 1, [0, 4, 0]), ("train/3/3", 2, [0, 5, 0])],
    }
    names = ["rank.train", "rank.train.query", "rank.test", "rank.test.query"]
    assert [source["name"] for source in manifest["sources"]] == names
    prepared(tmp_path / "counted" / "rank.train", tmp_path / "alone")
    assert sorted(q for split in content(tmp_path / "alone").values() for q in split) == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("2\n1\n2\n", "rank.train.query: its 3 queries have 5 documents together, rank.train has 6"),
        ("2\nx\n4\n", "rank.train.query, line 2: 'x' is not a number of documents from 1"),
        ("2\n4\n0\n", "rank.train.query, line 3: '0' is not a number of documents from 1"),
        ("2\n\n4\n", "rank.train.query, line 2: '' is not a number of documents from 1"),
    ],
)
def test_counts_that_are_wrong(tmp_path, counts, message):
    with pytest.raises(InputError) as raised:
        prepared(counted(tmp_path, counts), tmp_path / "out")
    assert str(raised.value) == message
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


# --- refusals


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train.txt": "1 qid:1 1:1\n0 qid:2 1:1\n1 qid:1 1:2\n", "test.txt": "1 qid:3 1:1\n"},
         "train.txt, line 3: query 1 comes again after another one; the documents of a query must be on neighbouring "
         "lines"),
        ({"train.txt": "1 qid:1 1:1\n0 qid:2 1:1\n", "test.txt": "1 qid:2 1:1\n"},
         "test.txt: query 2 is in train.txt too; a query belongs to one split"),
        ({"train.txt": "1 1:1\n", "test.txt": "1 qid:2 1:1\n"},
         "train.txt, line 1: no qid; expected 'grade qid:Q 1:value 2:value ...' on every line, or beside it a file "
         "train.txt.query with the number of documents of each query"),
        ({"train.txt": "1 qid:1 1:1\n", "train.txt.query": "1\n", "test.txt": "1 qid:2 1:1\n", "test.txt.query": "1\n"},
         "train.txt: its lines have a qid, and train.txt.query beside it counts them; remove it"),
        ({"train.txt": "1 1:1\n", "train.txt.query": "1\n", "test.txt": "1 qid:2 1:1\n"},
         "raw: a .query file belongs to each file of the split or to none"),
        ({"train.txt": "1 qid:1 1:1\n", "test.txt": "1 qid:2 1:1\n"},
         "train.txt: 1 of 1 queries would be held out for valid, none is left"),
        ({"train.txt": "1 qid:1 100001:1\n", "test.txt": "1 qid:2 1:1\n"},
         "train.txt, line 1: feature 100,001; every document keeps every feature, so they are accepted up to 100,000"),
        ({"a.txt": "1 qid:1 1:1\n", "b.txt": "1 qid:2 1:1\n"},
         "raw: no train and test file of one name, such as train.txt and test.txt, or rank.train and rank.test; to "
         "divide the queries of one file, give the file"),
        ({"train.txt": "", "test.txt": "", "b.train.txt": "", "b.test.txt": ""},
         "raw: several splits (b.train.txt + b.test.txt; train.txt + test.txt); give a folder with the files of one"),
        ({"train.txt": "", "test.txt": "", "valid.txt": "", "vali.txt": ""},
         "valid.txt and vali.txt are both the valid file; give a folder with one"),
        ({"train.txt": "1 qid:1 1:1\n0 qid:2 1:1\n", "test.txt": ""},
         "test.txt: holds no lines; expected 'grade qid:Q 1:value 2:value ...' on every line"),
    ],
)  # fmt: skip
def test_what_cannot_be_prepared_is_refused_in_one_line(tmp_path, files, message):
    raw = tmp_path / "raw"
    raw.mkdir()
    for name, text in files.items():
        (raw / name).write_text(text)
    with pytest.raises(InputError) as raised:
        prepared(raw, tmp_path / "out")
    assert str(raised.value).removeprefix(f"{tmp_path}/") == message
    assert not (tmp_path / "out").exists()


def test_ray_is_refused(tmp_path, folder):
    with pytest.raises(InputError) as raised:
        prepare(folder, tmp_path / "out", RANK, engine="ray")
    assert str(raised.value) == (
        "engine 'ray' cannot be used with task 'rank', whose data one process prepares; accepted: auto, local"
    )


@pytest.mark.parametrize(
    ("task", "name", "value", "fitting"),
    [
        ("rank", "k_core", 5, "pairs, sequence"),
        ("rank", "format", "csv", "pairs, sequence"),
        ("rank", "split", "given", "pairs, sequence"),
        ("rank", "hash_ids", True, "pairs, sequence"),
        ("rank", "on_bad_row", "skip", "pairs, sequence"),
        ("rank", "negatives", "hard", "link"),
        ("link", "test_ratio", 0.1, "pairs, sequence, rank"),
        ("link", "min_rating", 3, "pairs, sequence"),
        ("link", "columns", {"user": "a"}, "pairs, sequence"),
        ("pairs", "negatives_per_edge", 5, "link"),
        ("sequence", "negatives", "hard", "link"),
    ],
)
def test_settings_without_effect_are_refused_by_name(task, name, value, fitting):
    with pytest.raises(InputError) as raised:
        parse(PrepareSettings, {"task": task, name: value}, "sweep.yaml")
    assert str(raised.value) == f"sweep.yaml: {name} has no effect with task {task!r}, only with {fitting}"


# --- what is there already, damage, a look


def test_the_same_command_does_nothing_and_another_is_refused(tmp_path, folder):
    first = prepared(folder, tmp_path / "out")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*")}
    said = []
    again = prepare(folder, tmp_path / "out", RANK, on_step=said.append)
    assert again == first
    assert said[-1] == f"unchanged: {tmp_path / 'out'}"
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*")}
    for changed, what in (({"split_seed": 1}, "settings"), ({"valid_ratio": 0.5}, "settings")):
        with pytest.raises(InputError, match=f"out: prepared before with other {what}; remove it"):
            prepared(folder, tmp_path / "out", **changed)
    (folder / "test.txt").write_text(letor(some_queries([3, 41], seed=1)))
    with pytest.raises(InputError, match="out: prepared before with other sources; remove it"):
        prepared(folder, tmp_path / "out")


def test_a_file_that_changes_meanwhile_is_refused(tmp_path, folder, monkeypatch):
    read = writing.read_lists

    def slowly(source, workers):
        found = read(source, workers)
        (folder / "train.txt").write_text("1 qid:1 1:1\n")
        return found

    monkeypatch.setattr(writing, "read_lists", slowly)
    with pytest.raises(InputError, match=r"train\.txt: changed while it was read"):
        prepared(folder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_any_flipped_byte_is_found(tmp_path, folder):
    prepared(folder, tmp_path / "out")
    files = sorted(path for path in (tmp_path / "out").rglob("*.parquet"))
    assert len(files) == 5
    for file in files:
        whole, rows = file.read_bytes(), pq.read_table(file)
        found = 0
        for at in range(4, len(whole) // 3, max(len(whole) // 30, 1)):  # the first third holds values
            damaged = bytearray(whole)
            damaged[at] ^= 0x10
            file.write_bytes(damaged)
            fine = all(check.ok for check in verify(tmp_path / "out"))
            assert not fine or pq.read_table(file).equals(rows), (file, at)  # some bytes are never looked at
            found += not fine
        assert found
        file.write_bytes(whole)
    assert all(check.ok for check in verify(tmp_path / "out"))


def replaced(out, split, change):
    """The rows of a split, changed, where the manifest does not know of it."""
    file = out / split / "part-00000.parquet"
    table = pq.read_table(file)
    pq.write_table(change(table), file)


def test_verify_finds_what_is_wrong_with_values(tmp_path, folder):
    prepared(folder, tmp_path / "out")
    original = shutil.copytree(tmp_path / "out", tmp_path / "kept")

    def failed(change, split="train"):
        shutil.rmtree(tmp_path / "out")
        shutil.copytree(original, tmp_path / "out")
        replaced(tmp_path / "out", split, change)
        return {check.name: check.detail for check in verify(tmp_path / "out") if not check.ok}

    def with_grade(value):
        return lambda table: table.set_column(2, "grade", [np.full(len(table), value, np.float32)])

    assert set(failed(with_grade(1))) == {"fingerprint"}
    assert "a grade that is not a number from 0" in failed(with_grade(-1))["train"]
    assert "a grade that is not a number from 0" in failed(with_grade(np.nan))["train"]
    assert "columns user (int32), item (int32), grade" in failed(lambda t: t.drop_columns("features"))["train"]
    moved = pq.read_table(original / "test" / "part-00000.parquet")[:1]
    assert failed(lambda _: moved, "valid")["queries"] == "1 queries are in two splits"
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    del manifest["sizes"]["features"]
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="not the manifest of a prepared dataset"):
        load(tmp_path / "out")


def test_look(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    train = {q: [(q % 3, {1: 0.5, 2: q}), (0, {1: 0.5})] for q in range(10)}
    (raw / "train.txt").write_text(letor(train))
    (raw / "test.txt").write_text(letor({77: [(0, {2: 3}), (0, {1: 1}), (0, {})], 78: [(2, {1: 1})]}))
    prepared(raw, tmp_path / "out")
    text = "\n".join(look(tmp_path / "out"))
    assert "Read 24 judged documents of 12 queries, 2 features (LETOR)." in text
    assert "Split by query, train and test as given, validation ceil(10 %) of the training queries at random" in text
    assert "12 queries, 24 judged documents (all different), 2 features" in text
    valid = next(iter(content(tmp_path / "out")["valid"]))
    relevant = {"train": sum(q % 3 == 0 for q in range(10) if str(q) != valid), "test": 1}
    lines = [line.split() for line in text.split("\n")]
    assert ["train", "18", "9", str(relevant["train"]), f"({relevant['train'] / 9:.1%})"] in lines
    assert ["test", "4", "2", "1", "(50.0%)"] in lines
    assert ["test", "3", "(75.0%)", "0", "(0.0%)", "1", "(25.0%)"] in lines
    assert "1 features have one value only" in text
    assert "d77" not in text


def test_by_command(tmp_path, folder, capsys):
    out = str(tmp_path / "out")
    arguments = ["prepare", "--task", "rank", "--raw", str(folder), "--valid-ratio", "0.5", "--out", out]
    assert run(arguments) == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["settings"]["valid_ratio"] == 0.5
    documents = manifest["sizes"]["items"]
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == f"{out}: 8 queries, {documents} documents, fingerprint {manifest['fingerprint'][:12]}"
    assert run(["data", "verify", out]) == 0
    assert "no query is in two splits" in capsys.readouterr().out
    assert run(["data", "inspect", out]) == 0
    assert "documents per query" in capsys.readouterr().out
    assert run([*arguments[:-1], str(tmp_path / "other"), "--k-core", "3"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "other").exists()


# --- real data


@pytest.mark.parametrize(
    ("name", "train", "test", "grades", "without"),
    [
        ("ltr-mq2008", (471, 9630), (156, 2874), ([7820, 1223, 587], [2319, 378, 177]), (132, 51)),
        ("ltr-lightgbm", (201, 3005), (50, 768), ([645, 1211, 858, 222, 69], [206, 256, 252, 44, 10]), (3, 0)),
    ],
)
def test_real_counts(tmp_path, recloss_data, name, train, test, grades, without):
    manifest = prepared(recloss_data / name, tmp_path / "out")
    found = content(tmp_path / "out")
    fit = found["train"] | found["valid"]
    for queries, (n_queries, n_documents), levels, none in zip(
        (fit, found["test"]), (train, test), grades, without, strict=True
    ):
        assert (len(queries), sum(map(len, queries.values()))) == (n_queries, n_documents)
        counted_ = np.bincount([int(grade) for documents in queries.values() for _, grade, _ in documents])
        assert counted_.tolist() == levels
        assert sum(all(grade == 0 for _, grade, _ in documents) for documents in queries.values()) == none
    assert len(found["valid"]) == ceil(train[0] / 10)
    assert manifest["sizes"]["features"] == {"ltr-mq2008": 46, "ltr-lightgbm": 300}[name]
    assert all(check.ok for check in verify(tmp_path / "out", recloss_data / name))
