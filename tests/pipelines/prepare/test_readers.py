import codecs
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.prepare import readers
from pipelines.prepare.readers import parquet, streams
from pipelines.settings import Columns, PrepareSettings
from recloss.errors import InputError

RATED = Columns(rating="rating", timestamp="timestamp")
ROWS = {"user": ["1", "2"], "item": ["10", "20"], "rating": [3.0, 4.5], "timestamp": [881250949, 881250950]}


def read(raw, say=lambda _: None, **settings):
    found = readers.sources(raw, PrepareSettings(**settings), say)
    return pa.concat_tables(block for source in found for block in source.blocks("error")).to_pydict()


def file(folder, name, content):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


FILES = {
    "u.data": "1\t10\t3\t881250949\n2\t20\t4.5\t881250950\n",
    "ratings.dat": "1::10::3::881250949\n2::20::4.5::881250950\n",
    "ratings.csv": "userId,movieId,rating,timestamp\n1,10,3.0,881250949\n2,20,4.5,881250950\n",
    "x.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    "1\t10\t3\t881250949\n2\t20\t4.5\t881250950.0\n",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("format", ["movielens", "auto"])
@pytest.mark.parametrize("write", ["plain", "bom", "crlf", "blank end"])
def test_movielens_layouts(tmp_path, name, format, write):
    text = FILES[name].encode()
    text = {
        "plain": text,
        "bom": codecs.BOM_UTF8 + text,
        "crlf": text.replace(b"\n", b"\r\n"),
        "blank end": text + b"\r\n\n",
    }[write]
    assert read(file(tmp_path, name, text), format=format) == ROWS


def test_auto_says_what_it_decided(tmp_path):
    said = []
    read(file(tmp_path, "anything", FILES["u.data"]), said.append)
    assert said == ["format: MovieLens u.data, 1 file (recognised by user, item, rating, time on the first line)"]
    said.clear()
    read(tmp_path / "anything", said.append, format="movielens")
    assert said == ["format: MovieLens u.data, 1 file"]


def test_inter_without_rating_and_with_further_columns(tmp_path):
    text = "timestamp:float\titem_id:token\tx:float\tuser_id:token\n5\tb\t\ta\n"
    assert read(file(tmp_path, "x.inter", text)) == {"user": ["a"], "item": ["b"], "timestamp": [5]}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("format", ["csv", "auto"])
def test_csv_with_named_columns(tmp_path, delimiter, format):
    header = ["when", '"Who"', "stars", "title", "what"]
    rows = [header, ["7", " ü ", "2", '"a, ;""b"""', "x"], ["8", "9", "1e0", "", "y"]]
    text = "".join(delimiter.join(row) + "\n" for row in rows)
    columns = Columns(user="Who", item="what", rating="stars", timestamp="when")
    path = file(tmp_path, "log.txt", text)
    expected = {"user": ["ü", "9"], "item": ["x", "y"], "rating": [2.0, 1.0], "timestamp": [7, 8]}
    assert read(path, format=format, columns=columns) == expected


def test_csv_reads_only_the_named_columns(tmp_path):
    text = b"user,item,note\n1,2,\xff\n"
    assert read(file(tmp_path, "log.csv", text)) == {"user": ["1"], "item": ["2"]}


@pytest.mark.parametrize(
    ("users", "timestamps"),
    [
        (pa.array([1, 2], pa.int64()), pa.array([881250949.0, 881250950.0])),
        (
            pa.array(["1", "2"]).dictionary_encode(),
            pa.array([881250949_999_999, 881250950_000_000], pa.timestamp("us")),
        ),
        (pa.array(["1", "2"]), pa.array([881250949, 881250950], pa.timestamp("s", "Europe/Berlin"))),
        (pa.array([1, 2], pa.int8()).dictionary_encode(), pa.array([881250949_000, 881250950_999])),
        (pa.array([" 1", "2"]), pa.array(["1997-12-04T15:55:49Z", "1997-12-04T16:55:50+01:00"])),
        (pa.array(["1", "2"], pa.large_string()), pa.array([881250949, 881250950], pa.int32())),
    ],
)
def test_parquet(tmp_path, users, timestamps):
    table = pa.table({"timestamp": timestamps, "item": ["10", "20"], "rating": [3.0, 4.5], "user": users})
    pq.write_table(table, tmp_path / "log.parquet")
    assert read(tmp_path / "log.parquet", columns=RATED) == ROWS


def test_folder_takes_its_files_in_order_and_says_what_it_left_out(tmp_path):
    for name in ("b.csv", "a.csv"):
        file(tmp_path, name, f"user,item\n{name},1\n")
    file(tmp_path, "movies.csv", "movieId,title\n1,x\n")
    file(tmp_path, "notes.md", "...")
    said = []
    assert read(tmp_path, said.append)["user"] == ["a.csv", "b.csv"]
    because = "recognised by the columns user and item in the header"
    assert said == [f"format: csv, 2 files ({because}; ignored: movies.csv)"]


@pytest.mark.parametrize("bytes_per_block", [1, 7, 40])
def test_blocks_of_any_size_give_the_same_rows_and_line_numbers(tmp_path, monkeypatch, bytes_per_block):
    monkeypatch.setattr(streams, "BLOCK_BYTES", bytes_per_block)
    lines = [f"{n}\t{n * n}\t3\t{n}" for n in range(200)]
    path = file(tmp_path, "u.data", "\r\n".join(lines) + "\r\n\r\n")
    assert read(path)["item"] == [str(n * n) for n in range(200)]
    lines[150] = "1\t2\tbad\t3"
    with pytest.raises(InputError, match=r"^u\.data, line 151: rating 'bad' is not a number$"):
        read(file(tmp_path, "u.data", "\n".join(lines)))
    lines[150] = "1\t2"
    with pytest.raises(InputError, match=r"^u\.data, line 151: 2 columns, expected 4$"):
        read(file(tmp_path, "u.data", "\n".join(lines)))


HEADER = "userId,movieId,rating,timestamp\n"


@pytest.mark.parametrize(
    ("name", "content", "settings", "message"),
    [
        ("ratings.csv", HEADER + "1,2,3,4\n1,3,x,4\n", {}, "ratings.csv, line 3: rating 'x' is not a number"),
        ("ratings.csv", HEADER + "1,2,,4\n", {}, "ratings.csv, line 2: rating '' is not a number"),
        ("ratings.csv", HEADER + "1,2,nan,4\n", {}, "ratings.csv, line 2: rating 'nan' is not a finite number"),
        ("ratings.csv", HEADER + "1,2,-inf,4\n", {}, "ratings.csv, line 2: rating '-inf' is not a finite number"),
        ("ratings.csv", HEADER + "1,2,3,4.5\n", {}, "ratings.csv, line 2: timestamp '4.5' is not a whole number"),
        ("ratings.csv", HEADER + "1,2,3,4\n1,2,3,2020-01-01\n", {}, "line 3: timestamp '2020-01-01' is not a number"),
        ("ratings.csv", HEADER + "1,2,3,2020-01-01\n1,2,3,4\n", {}, "line 3: timestamp '4' is not a time such as 2010"),
        ("ratings.csv", HEADER + "1,2,3,2020-02-30\n", {}, "line 2: timestamp '2020-02-30' is not a time such as 2010"),
        ("ratings.csv", HEADER + "1,2,3,4\n1,2,3,-1\n", {}, "ratings.csv, line 3: timestamp '-1' is before 1970"),
        (
            "ratings.csv",
            HEADER + "1,2,3,4\n1,2,3,4102444800\n",
            {},
            "timestamp '4102444800' is after the year 2099 (seconds",
        ),
        ("ratings.csv", HEADER + "1,2,3,4\n1,2,3,1e300\n", {}, "timestamp '1e300' is after the year 2099 (seconds"),
        ("ratings.csv", HEADER + "1,2,3,4\n,2,3,4\n", {}, "ratings.csv, line 3: userId is empty"),
        ("ratings.csv", HEADER + '1,"  ",3,4\n', {}, "ratings.csv, line 2: movieId is empty"),
        ("ratings.csv", HEADER + "1,2,3,4\n\n1,3,3,4\n", {}, "ratings.csv, line 3: userId is empty"),
        ("ratings.csv", HEADER + "1,2,3,4\n1,2,3,4,5\n", {}, "ratings.csv, line 3: 5 columns, expected 4"),
        (
            "u.data",
            "1\t2\t3\t889\n1\t3\t3\t889",
            {},
            "u.data, line 2: the file ends inside this line: is it cut off?",
        ),
        (
            "ratings.csv",
            HEADER + "1,2,3,4\n1,2,3",
            {},
            "ratings.csv, line 3: the file ends inside this line: is it cut off?",
        ),
        (
            "log.csv",
            "user,item,x\n1,2,3\n1,2",
            {},
            "log.csv, line 3: 2 columns, expected 3 (the last line: is the file cut off?)",
        ),
        (
            "ratings.csv",
            HEADER + '1,2,3,4\n1,"2,3,4\n5,6",3,4\n',
            {},
            "ratings.csv, line 3: an odd number of quotes (a quoted value must not contain a line break)",
        ),
        ("ratings.csv", HEADER + "1,2,3,4\n1,2\r2,3,4\n", {}, "line 3: a carriage return inside the line"),
        (
            "ratings.csv",
            HEADER.encode() + b"1,2,3,4\n1,\xff,3,4\n",
            {},
            "ratings.csv, line 3: movieId is not UTF-8 text",
        ),
        (
            "ratings.csv",
            HEADER.encode() + b"1,2,3\xff,4\n",
            {},
            "ratings.csv, line 2: rating '3\ufffd' is not a number",
        ),
        ("ratings.csv", (HEADER + "1,2,3,4\n").encode("utf-16"), {}, "ratings.csv, line 1: not UTF-8 text; convert it"),
        ("ratings.csv", HEADER, {}, "ratings.csv: no interactions after the header line"),
        ("ratings.csv", "", {}, "ratings.csv: the file is empty"),
        ("u.data", "\n\n", {"format": "movielens"}, "u.data: not a MovieLens file; accepted: MovieLens u.data,"),
        ("u.data", "1\t2\tx\t3\n", {"format": "movielens"}, "u.data, line 1: rating 'x' is not a number"),
        ("u.data", "1\t2\t3\n", {"format": "movielens"}, "u.data, line 1: 3 columns, expected 4"),
        ("ratings.dat", "1::2::3\n", {"format": "movielens"}, "ratings.dat, line 1: 3 columns, expected 4"),
        ("a.inter", "user_id:token\titem:token\n1\t2\n", {"format": "movielens"}, "did you mean 'item:token'?"),
        ("r.csv", "userid,movieId,rating,timestamp\n1,2,3,4\n", {"format": "movielens"}, "unknown column 'userId'"),
        (
            "log.csv",
            "usr,item\n1,2\n",
            {"format": "csv"},
            "unknown column 'user'; did you mean 'usr'? (accepted: item, usr)",
        ),
        ("log.csv", "user;item;user\n1;2;3\n", {"format": "csv"}, "log.csv: 2 columns are named 'user'"),
        ("log.csv", "user,item\n1,2\n", {"columns": RATED}, "unknown column 'rating'; (accepted: item, user)"),
        ("log.csv", "user,item\n1,2\n", {"min_rating": 3}, "log.csv: min_rating 3 needs a rating column; name it"),
        (
            "log.csv",
            "a,b\nc,d\n",
            {},
            "unknown format; accepted: amazon-ratings-2014, amazon-ratings-2018, amazon-reviews",
        ),
        (
            "log.csv",
            "user,item\n1,2\n",
            {"format": "cvs"},
            "unknown format 'cvs'; did you mean 'csv'? (accepted: amazon",
        ),
        ("log.parquet", "user,item\n1,2\n", {}, "log.parquet: not a complete Parquet file ("),
    ],
)
@pytest.mark.parametrize("bytes_per_block", [None, 5])
def test_mistakes_in_text(tmp_path, monkeypatch, name, content, settings, message, bytes_per_block):
    if bytes_per_block:
        monkeypatch.setattr(streams, "BLOCK_BYTES", bytes_per_block)
    with pytest.raises(InputError) as raised:
        read(file(tmp_path, name, content), **settings)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user": ["1", None], "item": ["1", "2"]}, "log.parquet, row 2: user is missing"),
        ({"user": ["1", ""], "item": ["1", "2"]}, "log.parquet, row 2: user is empty"),
        ({"user": [1.0], "item": ["1"]}, "column 'user' has the type double; accepted for user: strings, integers"),
        ({"user": [1], "item": [[1]]}, "accepted for item: strings, integers"),
        ({"user": [1], "item": [1], "rating": [True]}, "accepted for rating: numbers"),
        ({"user": [1], "item": [1], "rating": [float("nan")]}, "log.parquet, row 1: rating nan is not a finite number"),
        ({"user": [1, 1], "item": [1, 2], "timestamp": [1.0, 1.5]}, "row 2: timestamp 1.5 is not a whole number"),
        ({"user": [1], "items": [1]}, "log.parquet: unknown column 'item'; did you mean 'items'?"),
        ({"user": pa.array([], pa.int64()), "item": pa.array([], pa.int64())}, "log.parquet: no interactions"),
    ],
)
def test_mistakes_in_parquet(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    named = Columns(**{role: role for role in ("rating", "timestamp") if role in columns})
    with pytest.raises(InputError) as raised:
        read(tmp_path / "log.parquet", columns=named)
    assert message in str(raised.value)


def test_parquet_rows_are_counted_over_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "BLOCK_ROWS", 3)
    pq.write_table(pa.table({"user": ["1"] * 7 + [""], "item": ["1"] * 8}), tmp_path / "log.parquet")
    with pytest.raises(InputError, match=r"row 8: user is empty"):
        read(tmp_path / "log.parquet")


def test_truncated_parquet(tmp_path):
    pq.write_table(pa.table({"user": ["1"] * 1000, "item": ["1"] * 1000}), tmp_path / "log.parquet")
    whole = (tmp_path / "log.parquet").read_bytes()
    with pytest.raises(InputError, match=r"^log\.parquet: not a complete Parquet file"):
        read(file(tmp_path, "log.parquet", whole[:-20]))


def test_missing_file():
    with pytest.raises(InputError, match=r"^nowhere/u\.data: no such file or folder$"):
        read(Path("nowhere/u.data"))


def test_folder_without_logs(tmp_path):
    with pytest.raises(InputError, match=r"no file here is named u\.data, ratings\.dat, .*; give the file itself"):
        read(tmp_path, format="movielens")


def test_ambiguous_folder(tmp_path):
    for name in ("u.data", "x.inter"):
        file(tmp_path, name, FILES[name])
    with pytest.raises(InputError, match=r"differ in format, .*: u\.data \(MovieLens u\.data: .*x\.inter \(RecBole"):
        read(tmp_path)


def test_files_of_a_folder_must_have_the_same_columns(tmp_path):
    file(tmp_path, "a.inter", FILES["x.inter"])
    file(tmp_path, "b.inter", "user_id:token\titem_id:token\n1\t2\n")
    with pytest.raises(InputError, match="differ in format"):
        read(tmp_path)
