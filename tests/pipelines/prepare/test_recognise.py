"""What ``auto`` decides, what it says about it, and what it leaves to the user."""

import pytest

from pipelines.prepare.readers import FORMATS, sources
from pipelines.settings import Columns, PrepareSettings
from recloss.errors import InputError

ASIN_FIRST = "B00005N7P0,AH2IFH762VY5U,1.0,1005177600\n0700099867,AOSFI0JEYU4XM,5.0,1004486400\n"
USER_FIRST = "A39HTATAQ9V7YF,0205616461,5.0,1369699200\nA3JM6GV9MNOF9X,B0009PLAOK,3.0,1355443200\n"

CERTAIN = {
    "u.data": ("1\t10\t3\t881250949\n", "MovieLens u.data", {"user": "1", "item": "10", "rating": 3.0}),
    "a.dat": ("1::10::3::881250949\n", "MovieLens ratings.dat", {"user": "1", "item": "10", "timestamp": 881250949}),
    "x.inter": ("item_id:token\tuser_id:token\n10\t1\n", "RecBole .inter", {"user": "1", "item": "10"}),
    "2018.csv": (ASIN_FIRST, "Amazon ratings, item first", {"user": "AH2IFH762VY5U", "item": "B00005N7P0"}),
    "2014.csv": (USER_FIRST, "Amazon ratings, user first", {"user": "A39HTATAQ9V7YF", "item": "0205616461"}),
    "2023.csv": (
        "user_id,parent_asin,rating,timestamp\nA,B,5.0,1588687728923\n",
        "Amazon ratings 2023",
        {"user": "A", "item": "B", "rating": 5.0, "timestamp": 1588687728},
    ),
    "loc-gowalla_totalCheckins.txt": (
        "0\t2010-10-19T23:55:27Z\t30.2359091167\t-97.7951395833\t22847\n",
        "Gowalla check-ins",
        {"user": "0", "item": "22847", "timestamp": 1287532527},
    ),
    "tab.txt": ("1\t10\n2\t20\n", "pairs", {"user": "1", "item": "10"}),
    "space.txt": ("1 10\n2 20\n", "pairs", {"user": "1", "item": "10"}),
    "comma.csv": ("1,10\n2,20\n", "pairs", {"user": "1", "item": "10"}),
    "header.csv": ("user_id;movie\na;x\n", "pairs", {"user": "a", "item": "x"}),
    "swapped.csv": ("product_id,customer_id\nx,a\n", "pairs", {"user": "a", "item": "x"}),
    "filmtrust.txt": ("1 1 2\n1 2 4\n1 3 3.5\n", "pairs", {"user": "1", "item": "1", "rating": 2.0}),
    "timed.txt": ("1 1 1369699200\n1 2 1369699201\n", "pairs", {"user": "1", "item": "1", "timestamp": 1369699200}),
    "rated.txt": ("1 7 1369699200 4\n1 8 1369699201 5\n", "pairs", {"rating": 4.0, "timestamp": 1369699200}),
    "dated.tsv": ("u1\ti1\t4\t2020-01-01\n", None, {}),
    "dated.txt": ("1\t1\t2020-01-01 10:00:00\n1\t2\t2020-01-02 10:00:00\n", "pairs", {"timestamp": 1577872800}),
    "citeulike.dat": ("2 5 6\n1 7\n3 5 6 7\n", "counted lists", {"user": "0", "item": "5"}),
    "sessions.csv": (
        "0,0,0,4,5\n0,1,2,3,4\n1,2,3,4,5\n",
        "padded sequences",
        {"user": "0", "item": "4", "position": 0},
    ),
    "train.tsv": ("user_procid\titem_procid\n0\t1\n", "IR-Benchmark", {"user": "0", "item": "1"}),
    "log.csv": ("when,item,user\n5,x,a\n", "csv", {"user": "a", "item": "x"}),
}


@pytest.mark.parametrize("name", [name for name, (_, format, _) in CERTAIN.items() if format])
@pytest.mark.parametrize("whole", [False, True], ids=["file", "folder"])
def test_certain(write, read, name, whole, tmp_path):
    text, format, expected = CERTAIN[name]
    path = tmp_path if whole else tmp_path / name
    write(name, text)
    said = []
    (source,) = sources(path, PrepareSettings(), said.append)
    assert source.format == format
    assert said[0].startswith(f"format: {format}, 1 file (recognised by ")
    first = {column: values[0] for column, values in read(path).items()}
    assert first | expected == first


UNCERTAIN = {
    "lists or sequences": ("0 5 6 7\n1 8\n2 5 9\n", ("lists", "sequences")),
    "two lines that may be counted": ("2 5 6\n1 7\n", ("lists", "sequences", "counted-lists")),
    "three values, no user twice": ("1 5 6\n2 7 8\n3 5 9\n", ("pairs", "lists", "sequences")),
    "four values, four candidates": (
        "196,242,3,881250949\n186,302,3,891717742\n",
        ("pairs", "amazon-ratings-2014", "amazon-ratings-2018"),
    ),
    "ids of neither form": (
        "u1,B00005N7P0,3,881250949\nu2,B00005N7P0,3,881250949\n",
        ("pairs", "amazon-ratings-2014", "amazon-ratings-2018"),
    ),
}


@pytest.mark.parametrize("case", UNCERTAIN)
def test_uncertain_files_name_the_candidates_and_can_be_read_as_each(write, read, case):
    text, candidates = UNCERTAIN[case]
    path = write("log.txt", text)
    with pytest.raises(
        InputError, match=r"^log\.txt: the format is not certain, state it \(format\): it may be "
    ) as raised:
        read(path)
    assert "\n" not in str(raised.value)
    for format in candidates:
        assert f"{format} (" in str(raised.value)
        read(path, format=format)


UNKNOWN = [
    "movieId,title\n1,x\n2,y\n",
    "movieId,title,genres\n1,Toy Story (1995),Animation\n",
    "1::F::1::10::48067\n",
    "1::Toy Story (1995)::Animation\n",
    "a b\nc d\n",
    "u1\ti1\t4\t2020-01-01\n",
    "Some words about the data.\nAnd more of them, in a file.\n",
    "one\ntwo\n",
    "1\n2\n",
    '{"a": 1}\n',
    "0 qid:1 1:0.5 2:0.25\n1 qid:1 1:0.1 2:0.2\n",
    "3,0,5,0,6\n1,2,3,4,5\n",
    "1.5,2.5\n3.5,4.5\n",
]


@pytest.mark.parametrize("text", UNKNOWN)
def test_unknown_files_are_refused_alone_and_left_out_of_a_folder(write, read, text, tmp_path):
    write("other.txt", text)
    with pytest.raises(InputError) as raised:
        read(tmp_path / "other.txt")
    assert "unknown format; accepted: amazon-ratings-2014," in str(raised.value)
    write("log.csv", "user,item\n1,2\n")
    said = []
    (source,) = sources(tmp_path, PrepareSettings(), said.append)
    assert source.name == "log.csv"
    assert said[0].endswith("; ignored: other.txt)")


def test_a_few_bad_lines_do_not_change_what_is_recognised(write, read):
    lines = [f"{n % 7} {n}" for n in range(100)]
    lines[50] = "7"
    with pytest.raises(InputError, match=r"^x\.txt, line 51: 1 columns, expected 2$"):
        read(write("x.txt", "\n".join(lines) + "\n"))


@pytest.mark.parametrize("format", ["pairs", "csv", "json", "parquet"])
def test_a_stated_format_is_not_questioned(write, read, format):
    with pytest.raises(InputError, match=r"^(log\.txt|log\.txt, line 1): (?!.*unknown format)"):
        read(write("log.txt", "one\ntwo\n"), format=format)


def test_pairs_of_any_text_if_stated(write, read):
    path = write("x.txt", "alice\tthe item\nbob\tother\n")
    assert read(path, format="pairs") == {"user": ["alice", "bob"], "item": ["the item", "other"]}
    path = write("y.csv", 'alice,"a, b",4\nbob,c,5\nbob,d,5\n')
    assert read(path, format="pairs")["item"] == ["a, b", "c", "d"]


def test_amazon_formats_do_not_take_other_editions(write, read):
    path = write("2023.csv", CERTAIN["2023.csv"][0])
    for edition in ("2014", "2018"):
        with pytest.raises(InputError, match=r"^2023\.csv: has a header line; amazon-reviews reads the 2023 files"):
            read(path, format=f"amazon-ratings-{edition}")


def test_named_columns_come_first(write, read):
    path = write("ratings.csv", "userId,movieId,rating,timestamp\n1,2,3,4\n")
    assert read(path, columns=Columns(user="movieId", item="userId")) == {"user": ["2"], "item": ["1"]}


def test_columns_cannot_be_named_where_there_are_no_names(write, read):
    path = write("u.data", "1\t2\t3\t4\n")
    with pytest.raises(
        InputError, match=r"^u\.data: columns can be named in csv, json and parquet, not in MovieLens u\.data"
    ):
        read(path, columns=Columns(rating="rating"))


def test_a_first_line_longer_than_any_header(write, read):
    items = " ".join(str(n) for n in range(60_000))
    path = write("train.txt", f"7 {items}\n8 1\n")
    with pytest.raises(InputError, match="it may be lists"):
        read(path)
    assert len(read(path, format="lists")["item"]) == 60_001


def test_every_format_has_a_line_of_description():
    assert {"movielens", "pairs", "lists", "sequences", "csv", "parquet"} < set(FORMATS)
    assert all(text and "\n" not in text for text in FORMATS.values())


@pytest.mark.parametrize(
    ("times", "unit", "expected"),
    [
        ([10**11 - 1], "auto", None),
        ([10**11], "auto", [10**8]),
        ([1500000000999], "auto", [1500000000]),
        ([0, 99], "auto", [0, 99]),
        ([99_999], "ms", [99]),
        ([4102444799], "s", [4102444799]),
        ([4102444799999], "ms", [4102444799]),
        ([4102444800], "s", None),
        ([4102444800000], "ms", None),
        ([4102444800000], "auto", None),
        ([1500000000999], "s", None),
        ([1, 10**12], "auto", None),
        ([10**12, 1], "auto", None),
    ],
)
def test_units_of_time(write, read, times, unit, expected):
    rows = "".join(f"1,{at},{time}\n" for at, time in enumerate(times))
    path = write("log.csv", "user,item,t\n" + rows)
    settings = {"columns": Columns(timestamp="t"), "timestamp_unit": unit}
    if expected is None:
        with pytest.raises(
            InputError, match=r"^log\.csv, line \d: t '\d+' is (after the year 2099|in (milli)?seconds, but)"
        ):
            read(path, **settings)
    else:
        assert read(path, **settings)["timestamp"] == expected


def test_the_unit_is_that_of_the_whole_log(write, read, tmp_path):
    write("parts/a.csv", "user,item,t\n1,1,-3\n1,2,1500000000\n")
    write("parts/b.csv", "user,item,t\n1,1,1500000000000\n")
    settings = {"columns": Columns(timestamp="t")}
    rows = read(tmp_path / "parts", "skip", **settings)
    assert rows["timestamp"] == [None, 1500000000, None]
    mixed = "t '1500000000000' is in milliseconds, but a.csv, line 3 (1500000000) in seconds: one log has one unit"
    assert rows["refused"] == ["a.csv, line 2: t '-3' is before 1970", None, f"b.csv, line 2: {mixed}"]
