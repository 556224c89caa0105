"""Cleaning as a whole, against brute force, and the same bytes from every way to run it."""

import random
import subprocess
import sys
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipelines.prepare import engines, prepare
from pipelines.prepare.clean import clean
from pipelines.prepare.engines import LocalEngine, RayEngine
from pipelines.prepare.readers import sources
from pipelines.settings import Columns, PrepareSettings
from recloss.errors import InputError

RATED = Columns(rating="rating", timestamp="timestamp")
HEADER = "user,item,rating,timestamp\n"


def some_rows(n=900, seed=0, users=40, items=30):
    draw = np.random.default_rng(seed)
    columns = (draw.beta(1, 2, n) * users, draw.beta(1, 2, n) * items, draw.integers(1, 6, n), draw.integers(0, 50, n))
    return list(zip(*(column.astype(int).tolist() for column in columns), strict=True))


def text(rows):
    return HEADER + "".join(f"{','.join(map(str, row))}\n" for row in rows)


def cleaned(raw, engine=None, **settings):
    """Rows in original ids, the steps by name, and what was refused."""
    given = PrepareSettings.model_validate({"columns": RATED.model_dump()} | settings)
    steps = {}
    result = clean(
        engine or LocalEngine(2),
        sources(raw, given, lambda _: None),
        given,
        lambda step, degrees, **details: steps.update({step: ([d.copy() for d in degrees], details)}),
    )
    engine = engine or LocalEngine(2)
    table = pa.concat_tables(engine.tables(result.blocks))
    indexed = list(zip(*table.to_pydict().values(), strict=True))
    for side, degree in enumerate(result.degrees):
        assert degree.tolist() == [Counter(row[side] for row in indexed)[code] for code in range(len(degree))]
    users, items = result.users.to_pylist(), result.items.to_pylist()
    return [(users[user], items[item], *rest) for user, item, *rest in indexed], steps, result


def core(pairs, users, items):
    """Remove one user or item with too few at a time."""
    pairs = set(pairs)
    while True:
        degree = Counter((side, pair[side]) for pair in pairs for side in (0, 1))
        low = next((key for key, n in degree.items() if n < (users, items)[key[0]]), None)
        if low is None:
            return pairs
        pairs = {pair for pair in pairs if pair[low[0]] != low[1]}


@pytest.mark.parametrize("keep", ["any", "first", "last"])
@pytest.mark.parametrize("k", [{"users": 12, "items": 3}, {"users": 1, "items": 25}, {"users": 6, "items": 6}])
def test_the_steps_against_brute_force(write, keep, k):
    raw = write("log.csv", text(some_rows()))
    found, steps, _ = cleaned(raw, keep=keep, k_core=k, min_rating=2)
    rated = sorted(
        (row for row in some_rows() if row[2] >= 2), key=lambda row: (row[3], row[2]), reverse=keep != "last"
    )
    one = {row[:2]: row for row in rated}
    kept = core(one, **k)
    assert found == [(str(u), str(i), float(r), t) for u, i, r, t in sorted(one[pair] for pair in kept)]
    sizes = {step: int(degrees[0].sum()) for step, (degrees, _) in steps.items()}
    assert sizes == {"read": 900, "rating": len(rated), "distinct": len(one), "k_core": len(kept), "index": len(kept)}
    details = steps["k_core"][1]
    assert details["passes"] == len(details["after_passes"]) >= 1
    users, items = (len({pair[side] for pair in kept}) for side in (0, 1))
    assert details["after_passes"][-1] == {"rows": len(kept), "users": users, "items": items}


def test_each_pass_drops_items_then_users(write):
    # items a, b, c of 3, 2, 2 users; with 2 of each asked, user 4 has too little, then nothing else
    pairs = [(1, "a"), (1, "b"), (2, "a"), (2, "c"), (3, "b"), (3, "c"), (4, "a"), (5, "d"), (5, "a")]
    raw = write("log.csv", "user,item\n" + "".join(f"{u},{i}\n" for u, i in pairs))
    _, steps, _ = cleaned(raw, columns={}, k_core=2)
    assert steps["k_core"][1] == {"k": 2, "passes": 1, "after_passes": [{"rows": 6, "users": 3, "items": 3}]}


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    pairs=st.sets(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1),
    users=st.integers(1, 4),
    items=st.integers(1, 4),
)
def test_the_two_sided_core_is_the_fixed_point(tmp_path_factory, pairs, users, items):
    raw = tmp_path_factory.mktemp("core") / "log.csv"
    raw.write_text("user,item\n" + "".join(f"{u},{i}\n" for u, i in pairs))
    kept = core(pairs, users, items)
    given = PrepareSettings(k_core={"users": users, "items": items})
    engine = LocalEngine(2)
    result = clean(engine, sources(raw, given, lambda _: None), given, lambda *_, **__: None)
    tables = list(engine.tables(result.blocks))
    found = pa.concat_tables(tables).to_pydict() if tables else {"user": [], "item": []}
    names = (result.users.to_pylist(), result.items.to_pylist())
    assert {(int(names[0][u]), int(names[1][i])) for u, i in zip(*found.values(), strict=True)} == kept
    assert [len(side) for side in names] == [len({pair[side] for pair in kept}) for side in (0, 1)]


def test_keep_needs_a_timestamp(write):
    raw = write("log.csv", "user,item\n1,2\n")
    with pytest.raises(InputError, match=r"log\.csv: keep last needs a timestamp column; name it in the settings"):
        cleaned(raw, columns={}, keep="last")


# --- bad rows


def test_bad_rows_are_left_out_counted_and_the_first_told_in_order(write, monkeypatch):
    monkeypatch.setattr(engines, "PART_BYTES", 300)
    rows = [(u, i, "many" if n % 7 == 0 else r, t) for n, (u, i, r, t) in enumerate(some_rows())]
    found, steps, result = cleaned(write("log.csv", text(rows)), on_bad_row="skip")
    bad = [n for n in range(900) if n % 7 == 0]
    assert result.refused.count == steps["read"][1]["refused"] == len(bad)
    assert result.refused.messages == [f"log.csv, line {n + 2}: rating 'many' is not a number" for n in bad[:100]]
    good = [row for n, row in enumerate(some_rows()) if n % 7]
    assert int(steps["read"][0][0].sum()) == len(good)
    assert {(int(u), int(i)) for u, i, *_ in found} == {row[:2] for row in good}


def test_skipping_without_bad_rows_changes_nothing_but_says_so(write):
    raw = write("log.csv", text(some_rows()))
    (found, steps, result), (usual, *_) = cleaned(raw, on_bad_row="skip"), cleaned(raw)
    assert found == usual
    assert (result.refused.count, result.refused.messages, steps["read"][1]["refused"]) == (0, [], 0)


def test_a_log_of_bad_rows_only_is_one_line(write):
    raw = write("log.csv", HEADER + "1,2,x,3\n,2,3,4\n")
    with pytest.raises(InputError) as raised:
        cleaned(raw, on_bad_row="skip")
    assert str(raised.value) == "log.csv: none of the 2 rows can be read; log.csv, line 2: rating 'x' is not a number"


def test_the_report_of_bad_rows_is_in_the_prepared_folder(write, tmp_path):
    rows = some_rows()
    raw = write("log.csv", text([*rows[:5], (1, 2, "x,y", 3), *rows[5:]]))
    said = []
    settings = PrepareSettings(columns=RATED, on_bad_row="skip")
    manifest = prepare(raw, tmp_path / "out", settings, on_step=said.append)
    assert manifest["steps"][0]["refused"] == 1
    lines = (tmp_path / "out" / "bad_rows.csv").read_text().splitlines()
    assert lines == ["refused", '"log.csv, line 7: 5 columns, expected 4"']
    assert any(line.startswith("1 bad row") for line in said)


# --- the same whatever runs it

SETTINGS = PrepareSettings(columns=RATED, min_rating=2, k_core=3, keep="last")


def contents(folder):
    files = {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}
    del files["manifest.json"]
    return files


@pytest.fixture
def expected(write, tmp_path):
    manifest = prepare(write("log.csv", text(some_rows(3000))), tmp_path / "expected", SETTINGS, workers=1)
    return manifest, contents(tmp_path / "expected")


def shuffled(tmp_path, write, seed):
    """The same rows in another order, in files of other lengths."""
    rows = some_rows(3000)
    order = random.Random(seed)
    order.shuffle(rows)
    cuts = sorted(order.sample(range(1, 3000), 4))
    for at, (start, end) in enumerate(zip([0, *cuts], [*cuts, 3000], strict=True)):
        write(f"parts-{seed}/{order.random()}-{at}.csv", text(rows[start:end]))
    return tmp_path / f"parts-{seed}"


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_threads_give_the_same_bytes(write, tmp_path, expected, monkeypatch, workers):
    monkeypatch.setattr(engines, "PART_BYTES", 1000 * workers)
    monkeypatch.setattr(engines, "GROUP_ROWS", 100 * workers)
    manifest = prepare(shuffled(tmp_path, write, workers), tmp_path / "out", SETTINGS, engine="local", workers=workers)
    assert contents(tmp_path / "out") == expected[1]
    assert manifest | {"sources": None} == expected[0] | {"sources": None}


def test_ray_gives_the_same_bytes(write, tmp_path, expected, monkeypatch, ray_local):
    monkeypatch.setattr(engines, "PART_BYTES", 5000)
    monkeypatch.setattr(engines, "GROUP_ROWS", 300)
    manifest = prepare(shuffled(tmp_path, write, 9), tmp_path / "out", SETTINGS, engine="ray")
    assert contents(tmp_path / "out") == expected[1]
    assert manifest | {"sources": None} == expected[0] | {"sources": None}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
def test_a_ray_of_any_number_of_workers_gives_the_same_bytes(write, tmp_path, expected, workers):
    program = f"""
import sys
from pathlib import Path
from pipelines.prepare import engines, prepare
from pipelines.settings import Columns, PrepareSettings
engines.PART_BYTES, engines.GROUP_ROWS = 5000, 300
settings = PrepareSettings(columns=Columns(rating="rating", timestamp="timestamp"), min_rating=2, k_core=3, keep="last")
prepare(Path(sys.argv[1]), Path(sys.argv[2]), settings, engine="ray", workers={workers}, memory=10**8)
"""
    raw = shuffled(tmp_path, write, workers)
    done = subprocess.run([sys.executable, "-c", program, raw, tmp_path / "out"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(tmp_path / "out") == expected[1]


def test_the_file_shards_are_sorted_by_user_and_item(expected, tmp_path):
    table = pq.read_table(tmp_path / "expected" / "train")
    pairs = list(zip(table["user"].to_pylist(), table["item"].to_pylist(), strict=True))
    assert pairs == sorted(set(pairs))


def test_both_engines_hash_and_skip_alike(write, tmp_path, monkeypatch, ray_local):
    monkeypatch.setenv("RECLOSS_HASH_KEY", "a secret of more than 16 bytes")
    monkeypatch.setattr(engines, "PART_BYTES", 5000)
    rows = [(u, i, "x" if n % 11 == 0 else r, t) for n, (u, i, r, t) in enumerate(some_rows())]
    raw = write("log.csv", text(rows))
    results = [cleaned(raw, engine, hash_ids=True, on_bad_row="skip") for engine in (LocalEngine(2), RayEngine())]
    assert results[0][0] == results[1][0]
    assert results[0][2].refused == results[1][2].refused
    assert all(len(user) == 64 for user, *_ in results[0][0])
