import random

import pytest

from pipelines.prepare.readers import streams
from pipelines.settings import Columns
from recloss.errors import InputError

RATED = Columns(rating="rating", timestamp="timestamp")
HEADER = "user,item,rating,timestamp\n"

BAD = {
    "1,2,3": "3 columns, expected 4",
    "1,2,3,4,5": "5 columns, expected 4",
    ",2,3,4": "user is empty",
    "1,,3,4": "item is empty",
    "1,2,,4": "rating '' is not a number",
    "1,2,x,4": "rating 'x' is not a number",
    "1,2,nan,4": "rating 'nan' is not a finite number",
    "1,2,1e999,4": "rating '1e999' is not a finite number",
    "1,2,3,": "timestamp '' is not a number",
    "1,2,3,4.5": "timestamp '4.5' is not a whole number",
    "1,2,3,-4": "timestamp '-4' is before 1970",
    "1,2,3,99999999999": "timestamp '99999999999' is after the year 2099 (seconds expected)",
    '1,"2,3,4': "an odd number of quotes (a quoted value must not contain a line break)",
    "1,2\r2,3,4": "a carriage return inside the line",
    "": "user is empty",
    "\xff,2,3,4": "user is not UTF-8 text",
    "x,y,z,w": "rating 'z' is not a number",
}


@pytest.mark.parametrize("size", [None, 60])
def test_every_bad_row_is_named_and_every_good_row_kept(write, read, monkeypatch, size):
    if size:
        monkeypatch.setattr(streams, "BLOCK_BYTES", size)
    rows = [(f"{n},{n * 7},{n % 5},{n}", None) for n in range(1, 60)] + list(BAD.items())
    random.Random(3).shuffle(rows)
    path = write("log.csv", HEADER.encode() + "\n".join(row for row, _ in rows).encode("latin-1") + b"\n")
    found = read(path, "skip", columns=RATED, format="csv", timestamp_unit="s")
    expected = [wrong and f"log.csv, line {line}: {wrong}" for line, (_, wrong) in enumerate(rows, 2)]
    assert found["refused"] == expected
    kept = [tuple(found[column][at] for column in HEADER.strip().split(",")) for at in range(len(rows))]
    assert kept == [
        (None,) * 4 if wrong else (n[0], n[1], float(n[2]), int(n[3]))
        for (row, wrong) in rows
        for n in [row.split(",") if not wrong else None]
    ]


@pytest.mark.parametrize("row", BAD)
def test_each_of_them_is_an_error(write, read, row):
    path = write("log.csv", f"{HEADER}1,2,3,4\n{row}\n1,3,3,4\n".encode("latin-1"))
    with pytest.raises(InputError) as raised:
        read(path, columns=RATED, timestamp_unit="s")
    assert str(raised.value) == f"log.csv, line 3: {BAD[row]}"


def test_the_first_bad_row_is_the_one_named(write, read):
    path = write("log.csv", HEADER + "1,2,3,4\n1,2,3,-4\n,2,3,4\n1,2\n")
    with pytest.raises(InputError, match=r"^log\.csv, line 3: timestamp '-4' is before 1970$"):
        read(path, columns=RATED)


def test_good_files_have_an_empty_column(write, read):
    assert read(write("log.csv", HEADER + "1,2,3,4\n"), "skip")["refused"] == [None]


def test_only_bad_rows(write, read):
    found = read(write("log.csv", HEADER + "1,2,3\n" * 3), "skip")
    assert found["refused"] == [f"log.csv, line {n}: 3 columns, expected 4" for n in (2, 3, 4)]
    assert found["user"] == [None] * 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.csv", b"", "log.csv: the file is empty"),
        ("log.csv", HEADER.encode(), "log.csv: no interactions after the header line"),
        ("ratings.csv", b"userId,movieId,rating,timestamp\n\n", "ratings.csv: no interactions after the header line"),
        ("log.csv", (HEADER + "1,2,3,4\n").encode("utf-16"), "log.csv, line 1: not UTF-8 text"),
        ("log.parquet", b"PAR1 and no more", "log.parquet: not a complete Parquet file"),
    ],
)
def test_files_that_cannot_be_read_are_errors_all_the_same(write, read, name, content, message):
    with pytest.raises(InputError) as raised:
        read(write(name, content), "skip")
    assert str(raised.value).startswith(message)


def test_names_with_quoted_separators_blanks_and_other_scripts(write, read):
    text = 'user,item\n"a, b"," ü  ö "\n東京,"say ""hi"""\nNA,null\n"",x\n'
    found = read(write("log.csv", text), "skip")
    assert found["user"] == ["a, b", "東京", "NA", None]
    assert found["item"] == ["ü  ö", 'say "hi"', "null", None]


def test_no_part_of_a_value_with_line_breaks_is_taken_for_a_row(write, read):
    found = read(write("log.csv", 'user,item\na,1\n"b\nc",2\n"d""",3\ne"",""4\n'), "skip")
    assert found["user"] == ["a", None, None, 'd"', 'e""']
    odd = "an odd number of quotes (a quoted value must not contain a line break)"
    assert found["refused"] == [None, f"log.csv, line 3: {odd}", f"log.csv, line 4: {odd}", None, None]


def test_hidden_values(write, read):
    rows = [
        "1,2,alice,4",
        "1,2,nan,4",
        "1,2,3,bob",
        "1,2,3,4.5",
        "1,2,3,-4",
        "1,2,3,4000000000000",
        "alice,2",
        ",2,3,4",
    ]
    path = write("log.csv", HEADER + "1,2,3,4\n" + "\n".join(rows) + "\n")
    found = read(path, "skip", columns=RATED, hash_ids=True)
    assert [text and text.partition(": ")[2] for text in found["refused"]] == [
        None,
        "rating is not a number",
        "rating is not a finite number",
        "timestamp is not a number",
        "timestamp is not a whole number",
        "timestamp is before 1970",
        "timestamp is in milliseconds, but log.csv, line 2 in seconds: one log has one unit",
        "2 columns, expected 4",
        "user is empty",
    ]


@pytest.mark.parametrize(
    "settings", [{"format": "csv"}, {"format": "movielens"}, {"format": "json"}, {"format": "pairs"}]
)
def test_hidden_first_lines(write, read, settings):
    text = '{"alice": 1, "x": 2}\n' if settings["format"] == "json" else "alice,b,c,d,e\n"
    with pytest.raises(InputError) as raised:
        read(write("log.csv", text), hash_ids=True, **settings)
    assert "alice" not in str(raised.value)
    if settings["format"] != "pairs":
        with pytest.raises(InputError, match="alice"):
            read(write("log.csv", text), **settings)
