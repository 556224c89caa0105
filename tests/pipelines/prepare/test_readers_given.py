import zipfile

import pytest

from pipelines.prepare.readers import listed, sources
from pipelines.settings import PrepareSettings
from recloss.errors import InputError

PROCESSED = "user_procid\titem_procid\n"
USERS = "user_orgid\tuser_procid\nB\t1\nA\t0\nnever\t2\n"
ITEMS = "item_orgid\titem_procid\nx\t0\ny\t1\nz\t2\n"


def given(raw, said=None, **settings):
    log = sources(raw, PrepareSettings(split="given", **settings), (said if said is not None else []).append)
    parts = {}
    for source in log:
        rows = [row for block in source.blocks("error") for row in block.to_pylist()]
        parts[source.split] = [(row["user"], row["item"]) for row in rows]
    return log, parts


def fill(write, files):
    for name, text in files.items():
        write(name, text)


def test_train_and_test_lists(write, tmp_path):
    fill(write, {"train.txt": "0 1 2\n1 0\n", "test.txt": "0 5\n1\n"})
    said = []
    log, parts = given(tmp_path, said)
    assert parts == {"train": [("0", "1"), ("0", "2"), ("1", "0")], "test": [("0", "5")]}
    assert said == [
        "format: lists, 2 files (recognised by user item item ... in no order; given split train.txt + test.txt)"
    ]
    assert listed(log) is None


def test_lists_of_one_item_are_no_pairs_beside_longer_ones(write, tmp_path):
    for test, expected in (("0 5\n1 6\n", [("0", "5"), ("1", "6")]), ("0 5 7\n", [("0", "5"), ("0", "7")])):
        fill(write, {"train.txt": "0 1 2\n1 0\n", "test.txt": test})
        log, parts = given(tmp_path)
        assert parts["test"] == expected
        assert {source.format for source in log} == {"lists"}
    fill(write, {"train.txt": "0 1\n1 0\n", "test.txt": "0 1\n"})
    log, parts = given(tmp_path)
    assert {source.format for source in log} == {"pairs"}
    fill(write, {"train.txt": "0 1 2\n1 0 2\n", "test.txt": "0 1 2\n1 0 3\n"})
    with pytest.raises(
        InputError, match=r"^train\.txt: the format is not certain, .* may be pairs \(.*\), lists \(.*\)$"
    ):
        given(tmp_path)


def test_fit_and_valid_take_the_place_of_train(write, tmp_path):
    files = {"train.txt": "0\t1\n0\t2\n", "train_data.txt": "0 1\n", "valid_data.txt": "0 2\n", "test.txt": "0\t3\n"}
    fill(write, files)
    said = []
    _, parts = given(tmp_path, said)
    assert parts == {"train": [("0", "1")], "valid": [("0", "2")], "test": [("0", "3")]}
    left_out = "ignored: train.txt, which repeats train and validation)"
    assert said[0].endswith(f"; given split train_data.txt + valid_data.txt + test.txt; {left_out}")


@pytest.mark.parametrize(
    "names",
    [
        ("x.train.inter", "x.valid.inter", "x.test.inter"),
        ("train.inter", "validation.inter", "test.inter"),
        ("a.train.inter", "a.val.inter", "a.test.inter"),
    ],
)
def test_three_files(write, tmp_path, names):
    for n, name in enumerate(names):
        write(name, f"user_id:token\titem_id:token\n1\t{n}\n")
    _, parts = given(tmp_path)
    assert parts == {"train": [("1", "0")], "valid": [("1", "1")], "test": [("1", "2")]}


def test_several_splits_and_how_to_name_one(write, tmp_path):
    for part in ("ua", "ub"):
        fill(write, {f"{part}.base": f"1\t{ord(part[1])}\t3\t5\n", f"{part}.test": "1\t2\t3\t5\n"})
    write("u.data", "1\t2\t3\t5\n")
    with pytest.raises(
        InputError, match=r"several given splits \(ua\.base \+ ua\.test, ub\.base \+ ub\.test\); give the train"
    ):
        given(tmp_path)
    _, parts = given(tmp_path / "ub.base")
    assert parts == {"train": [("1", "98")], "test": [("1", "2")]}


@pytest.mark.parametrize("packed", [False, True])
def test_original_ids(write, tmp_path, packed):
    files = {"train.tsv": PROCESSED + "0\t1\n1\t0\n", "test.tsv": PROCESSED + "1\t2\n"}
    fill(write, files | {"user_list.tsv": USERS, "item_list.tsv": ITEMS, "summary.txt": "Number of users: 3\n"})
    raw = tmp_path
    if packed:
        raw = tmp_path / "data.zip"
        with zipfile.ZipFile(raw, "w") as archive:
            for name in ("train.tsv", "test.tsv", "user_list.tsv", "item_list.tsv", "summary.txt"):
                archive.write(tmp_path / name, f"set/{name}")
    said = []
    log, parts = given(raw, said)
    if packed:
        assert given(raw / "set" / "train.tsv")[1] == parts
    assert parts == {"train": [("A", "y"), ("B", "x")], "test": [("B", "z")]}
    lists = listed(log)
    assert lists.users.to_pylist() == ["A", "B", "never"]
    assert lists.items.to_pylist() == ["x", "y", "z"]
    assert said[0].endswith("original ids from user_list.tsv and item_list.tsv)")


def test_original_ids_of_lists(write, tmp_path):
    lists = {"user_list.txt": "org_id remap_id\n70 0\n80 1\n", "item_list.txt": "org_id remap_id\n7 1\n8 0\n"}
    fill(write, {"train.txt": "0 1 0\n1 0\n", "test.txt": "1 1\n"} | lists)
    log, parts = given(tmp_path)
    assert parts == {"train": [("70", "7"), ("70", "8"), ("80", "8")], "test": [("80", "7")]}
    assert listed(log).items.to_pylist() == ["8", "7"]


def test_ids_that_are_not_listed(write, tmp_path):
    files = {"train.tsv": PROCESSED + "0\t1\n0\t3\nx\t1\n", "test.tsv": PROCESSED + "1\t2\n"}
    fill(write, files | {"user_list.tsv": USERS, "item_list.tsv": ITEMS})
    with pytest.raises(InputError, match=r"^train\.tsv, line 3: item_procid '3' is not listed in item_list\.tsv$"):
        given(tmp_path)
    with pytest.raises(InputError, match=r"^train\.tsv, line 3: item_procid is not listed in item_list\.tsv$"):
        given(tmp_path, hash_ids=True)
    log = sources(tmp_path, PrepareSettings(split="given"), lambda _: None)
    (block,) = log[0].blocks("skip")
    assert block["refused"].to_pylist()[2] == "train.tsv, line 4: user_procid 'x' is not listed in user_list.tsv"
    assert block["user"].to_pylist() == ["A", None, None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item_list.tsv": "item_orgid\titem_procid\nx\t0\ny\t2\nz\t3\n"}, "item_list.tsv: the numbers are not 0 to 2"),
        ({"item_list.tsv": "item_orgid\titem_procid\nx\t0\ny\t0\nz\t1\n"}, "item_list.tsv: the numbers are not 0 to 2"),
        (
            {"item_list.tsv": "item_orgid\titem_procid\nx\t0\nx\t1\nz\t2\n"},
            "item_list.tsv: an original id is listed twice",
        ),
        ({"item_list.tsv": "item_orgid\titem_procid\nx\ty\n"}, "item_list.tsv: not a list of ids: a header, then"),
        ({"item_list.tsv": "item_orgid\titem_procid\nx\t1\t2\n"}, "item_list.tsv: not a list of ids: a header, then"),
        ({"item_list.tsv": None}, "user_list.tsv: lists the users, but there is no item_list file beside it"),
        ({"test.tsv": None}, "no given split; it needs a train and a test file of one name"),
        (
            {"test.tsv": "1::2::3::4\n"},
            "given split differ in format, or have none that is known: train.tsv (ir-benchmark), test.tsv (movielens)",
        ),
        ({"test.tsv": "some words\n"}, "known: train.tsv (ir-benchmark), test.tsv (unknown format)"),
        ({"test.tsv": PROCESSED}, "test.tsv: no interactions after the header line"),
    ],
)
def test_mistakes(write, tmp_path, change, message):
    files = {
        "train.tsv": PROCESSED + "0\t1\n",
        "test.tsv": PROCESSED + "1\t2\n",
        "user_list.tsv": USERS,
        "item_list.tsv": ITEMS,
    }
    fill(write, {name: text for name, text in (files | change).items() if text is not None})
    with pytest.raises(InputError) as raised:
        given(tmp_path)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_given_split_without_the_setting(write, tmp_path):
    fill(write, {"train.txt": "0 1\n", "test.txt": "0 5\n"})
    with pytest.raises(InputError) as raised:
        sources(tmp_path, PrepareSettings(), lambda _: None)
    advice = "use split 'given', or give one file to split it anew"
    assert str(raised.value) == f"{tmp_path}: holds a given split (train.txt + test.txt); {advice}"
    (source,) = sources(tmp_path / "train.txt", PrepareSettings(), lambda _: None)
    assert source.split is None


def test_files_of_a_given_split_beside_a_whole_log_are_left_out(write, tmp_path):
    fill(write, {"ua.base": "1\t2\t3\t5\n", "ua.test": "1\t2\t3\t5\n", "u.data": "1\t2\t3\t5\n"})
    said = []
    (source,) = sources(tmp_path, PrepareSettings(), said.append)
    assert (source.name, source.split) == ("u.data", None)
    assert said[0].endswith("; ignored: ua.base, ua.test)")
