"""The published files are read with the counts that are known of them."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipelines.prepare.readers import listed, sources
from pipelines.settings import PrepareSettings
from recloss.errors import InputError

KNOWN = {
    "ml-100k/u.data": {
        "users": 943,
        "items": 1682,
        "rows": 100000,
        "rating": (1, 5),
        "timestamp": (874724710, 893286638),
    },
    "ml-100k/ml-100k.inter": {"users": 943, "items": 1682, "rows": 100000, "timestamp": (874724710, 893286638)},
    "ml-latest-small": {
        "users": 671,
        "items": 9066,
        "rows": 100004,
        "rating": (0.5, 5),
        "timestamp": (789652009, 1476640644),
    },
    "ml-1m": {"users": 6040, "items": 3416, "rows": 999611, "timestamp": (956703932, 1046454590)},
    "ml-1m-sample": {
        "users": 5958,
        "items": 3312,
        "rows": 100000,
        "rating": (1, 5),
        "timestamp": (956704519, 1046368462),
    },
    "beauty-seq": {"users": 22332, "items": 12086, "rows": 198215, "timestamp": (1023840000, 1406073600)},
    "amazon-magazine": {
        "users": 72098,
        "items": 2428,
        "rows": 89689,
        "repeats": 1371,
        "rating": (1, 5),
        "timestamp": (1004054400, 1537315200),
    },
    "amazon-all-beauty-5core": {
        "users": 991,
        "items": 85,
        "rows": 5269,
        "repeats": 1177,
        "rating": (1, 5),
        "timestamp": (1095724800, 1534982400),
    },
    "filmtrust": {"users": 1508, "items": 2071, "rows": 35497, "repeats": 3, "rating": (0.5, 4)},
    "lastfm": {"users": 1892, "items": 17632, "rows": 92834, "rating": (1, 352698)},
    "citeulike-a": {"users": 5551, "items": 16980, "rows": 204986},
    "diginetica": {"users": 62502, "items": 43229, "rows": 467631, "position": (0, 19)},
    "beauty-s3rec": {"users": 22363, "items": 12101, "rows": 198502, "position": (0, 203)},
    "gowalla/train.txt.gz": {"users": 29858, "items": 40981, "rows": 810128},
}
STATED = {"beauty-s3rec": "sequences", "gowalla/train.txt.gz": "lists"}

GIVEN = {
    "beauty": {"users": 15603, "items": 8692, "train": 87688, "valid": 18394, "test": 33472},
    "gowalla": {"users": 29858, "items": 40981, "train": 810128, "test": 217242, "listed": (29858, 40981)},
    "gowalla-40988": {"users": 29858, "items": 40988, "train": 810128, "test": 217336, "listed": (29858, 40988)},
    "electronics": {"users": 13455, "items": 8360, "train": 159418, "valid": 22980, "test": 52123},
    "electronics-temporal": {"users": 12312, "items": 7375, "train": 140712, "test": 24668, "listed": (13455, 8360)},
    "health": {"users": 1974, "items": 1200, "train": 37784, "test": 10405, "listed": (1974, 1200)},
    "ml-100k": {"users": 943, "items": 1682, "train": 90570, "test": 9430},
    "ml-100k-10core": {"users": 939, "items": 1016, "train": 63944, "test": 16449, "listed": (939, 1016)},
}


def rows(log, size=2**20):
    blocks = [block for source in log for part in source.parts(size) for block in part.blocks("error")]
    return pa.concat_tables(blocks).unify_dictionaries()


def counts(table):
    pairs = table.select(["user", "item"]).group_by(["user", "item"]).aggregate([]).num_rows
    found = {
        "users": len(pc.unique(table["user"])),
        "items": len(pc.unique(table["item"])),
        "rows": table.num_rows,
        "repeats": table.num_rows - pairs,
    }
    ranges = [column for column in ("rating", "timestamp", "position") if column in table.column_names]
    return found | {column: tuple(pc.min_max(table[column]).as_py().values()) for column in ranges}


@pytest.mark.parametrize("name", KNOWN)
def test_known_counts(recloss_data, name):
    settings = PrepareSettings(format=STATED.get(name, "auto"))
    found = counts(rows(sources(recloss_data / name, settings, lambda _: None)))
    assert found | {"repeats": 0} | KNOWN[name] == found | {"repeats": KNOWN[name].get("repeats", 0)}


@pytest.mark.parametrize("name", GIVEN)
def test_known_counts_of_given_splits(recloss_data, name):
    log = sources(recloss_data / name, PrepareSettings(split="given"), lambda _: None)
    found = counts(rows(log))
    found |= {source.split: rows([source]).num_rows for source in log}
    lists = listed(log)
    found |= {"listed": (len(lists.users), len(lists.items))} if lists else {}
    assert found | GIVEN[name] == found
    assert found["repeats"] == 0
    assert ("listed" in GIVEN[name]) == (lists is not None)


def test_both_gowallas_have_the_same_pairs_but_for_seven_items(recloss_data):
    """Only if the numbers of both are turned into the original ids."""
    tables = []
    for mark, name in enumerate(("gowalla", "gowalla-40988"), 1):
        table = rows(sources(recloss_data / name, PrepareSettings(split="given"), lambda _: None)).select(
            ["user", "item"]
        )
        tables.append(table.append_column("mark", pa.array([mark] * table.num_rows)))
    both = pa.concat_tables(tables).unify_dictionaries().group_by(["user", "item"]).aggregate([("mark", "sum")])
    assert {value["values"]: value["counts"] for value in pc.value_counts(both["mark_sum"]).to_pylist()} == {
        3: 1_027_370,
        2: 94,
    }
    assert len(pc.unique(both.filter(pc.equal(both["mark_sum"], 2))["item"])) == 7


def test_ratings_of_magazines_and_films(recloss_data):
    def ratings(name):
        table = rows(sources(recloss_data / name, PrepareSettings(), lambda _: None))
        return {value["values"]: value["counts"] for value in pc.value_counts(table["rating"]).to_pylist()}

    assert ratings("amazon-magazine") == {1: 11029, 2: 5223, 3: 6971, 4: 12676, 5: 53790}
    assert ratings("amazon-all-beauty-5core") == {1: 115, 2: 64, 3: 109, 4: 332, 5: 4649}
    assert ratings("ml-100k/u.data") == {1: 6110, 2: 11370, 3: 27145, 4: 34174, 5: 21201}


def test_sequences_keep_their_order(recloss_data):
    table = rows(sources(recloss_data / "beauty-s3rec", PrepareSettings(format="sequences"), lambda _: None))
    lines = [line.split() for line in (recloss_data / "beauty-s3rec" / "Beauty.txt").read_text().splitlines()]
    expected = [(line[0], item, at) for line in lines for at, item in enumerate(line[1:])]
    names = ("user", "item", "position")
    assert table.cast(pa.schema(zip(names, (pa.string(), pa.string(), pa.int64()), strict=True))).equals(
        pa.table(dict(zip(names, zip(*expected, strict=True), strict=True)))
    )


@pytest.mark.parametrize(
    "name", ["cora/ind.cora.test.index", "ltr-lightgbm/rank.train.query", "ltr-mq2008/test.txt.gz"]
)
def test_files_that_are_no_logs_are_not_taken_for_one(recloss_data, name):
    with pytest.raises(InputError, match="unknown format"):
        sources(recloss_data / name, PrepareSettings(), lambda _: None)
