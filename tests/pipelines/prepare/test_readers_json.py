import json

import pytest

from pipelines.settings import Columns
from recloss.errors import InputError

OLD = {
    "overall": 5.0,
    "verified": True,
    "reviewerID": "A1",
    "asin": "B1",
    "reviewText": "{…}\n",
    "unixReviewTime": 1252800000,
}
NEW = {"rating": 4, "title": "t", "images": [], "parent_asin": "B2", "user_id": "A2", "timestamp": 1588687728923}


def lines(*rows):
    return "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)


def test_amazon_reviews_of_2014_and_2018(write, read):
    rows = read(write("x.json", lines(OLD, OLD | {"overall": 3, "style": {"Size:": "M"}})))
    assert rows == {"user": ["A1"] * 2, "item": ["B1"] * 2, "rating": [5.0, 3.0], "timestamp": [1252800000] * 2}


def test_amazon_reviews_of_2023(write, read):
    rows = read(write("x.jsonl", lines(NEW, NEW | {"rating": 2.0})))
    assert rows == {"user": ["A2"] * 2, "item": ["B2"] * 2, "rating": [4.0, 2.0], "timestamp": [1588687728] * 2}
    rows = read(write("x.csv", "user_id,parent_asin,rating,timestamp\nA2,B2,4.0,1588687728923\n"))
    assert rows == {"user": ["A2"], "item": ["B2"], "rating": [4.0], "timestamp": [1588687728]}


def test_named_keys(write, read):
    columns = Columns(user="user_id", item="business_id", rating="stars", timestamp="date")
    yelp = {"review_id": "r", "user_id": 7, "business_id": "b", "stars": 4.0, "date": "2016-03-09 16:44:24"}
    expected = {"user": ["7", "8"], "item": ["b", "b"], "rating": [4.0, 1.0], "timestamp": [1457541864, 1457541865]}
    text = lines(yelp, yelp | {"user_id": 8, "stars": 1, "date": "2016-03-09T16:44:25Z"})
    for settings in ({}, {"format": "json"}):
        assert read(write("review.json", text), columns=columns, **settings) == expected


def test_lines_of_other_types_are_read_too(write, read):
    text = lines(OLD, OLD | {"reviewerID": 12, "overall": "4.5", "unixReviewTime": "1252800001"})
    rows = read(write("x.json", text))
    assert (rows["user"], rows["rating"], rows["timestamp"]) == (["A1", "12"], [5.0, 4.5], [1252800000, 1252800001])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"reviewerID": "A1", "asin"\n', "not a JSON object"),
        ("[1, 2]\n", "not a JSON object"),
        ("\n", "not a JSON object"),
        (json.dumps(OLD) + json.dumps(OLD) + "\n", "not a JSON object"),
        ("[" * 100_000 + "\n", "not a JSON object"),
        (OLD | {"asin": None}, "asin is missing"),
        ({"asin": "B1"}, "reviewerID is missing"),
        (OLD | {"reviewerID": " "}, "reviewerID is empty"),
        (OLD | {"reviewerID": {"a": 1}}, "reviewerID is not a text or whole number"),
        (OLD | {"reviewerID": 1.5}, "reviewerID is not a text or whole number"),
        (OLD | {"reviewerID": True}, "reviewerID is not a text or whole number"),
        (OLD | {"overall": "x"}, "overall 'x' is not a number"),
        (OLD | {"overall": float("nan")}, "overall 'NaN' is not a finite number"),
        (OLD | {"overall": [5]}, "overall '[5]' is not a number"),
        (OLD | {"unixReviewTime": 1.5}, "unixReviewTime '1.5' is not a whole number"),
        (
            OLD | {"unixReviewTime": 1252800000000},
            "unixReviewTime '1252800000000' is in milliseconds, but x.json, line 1",
        ),
    ],
)
def test_bad_lines(write, read, row, message):
    path = write("x.json", lines(OLD, row, OLD))
    with pytest.raises(InputError) as raised:
        read(path)
    assert str(raised.value).startswith(f"x.json, line 2: {message}")
    rows = read(path, "skip")
    assert [text and text.startswith(f"x.json, line 2: {message}") for text in rows["refused"]] == [None, True, None]
    assert rows["user"] == ["A1", None, "A1"]


def test_bytes_that_are_not_text(write, read):
    good = json.dumps(OLD).encode() + b"\n"
    with pytest.raises(InputError, match=r"^x\.json, line 2: not UTF-8 text$"):
        read(write("x.json", good + good.replace(b"A1", b"A\xff")))
    path = write("x.json", good + b"{\n" + good.replace(b"A1", b"A\xff"))
    expected = [None, "x.json, line 2: not a JSON object", "x.json, line 3: not UTF-8 text"]
    assert read(path, "skip")["refused"] == expected


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        (lines({"a": 1}), {}, "unknown format"),
        (
            lines({"a": 1}),
            {"format": "amazon-reviews"},
            "x.json, line 1: not an Amazon review, which has reviewerID and",
        ),
        ("{\n", {"format": "amazon-reviews"}, "x.json, line 1: not a JSON object"),
        (lines({"usr": 1, "item": 2}), {"format": "json"}, "x.json: unknown column 'user'; did you mean 'usr'?"),
    ],
)
def test_files_that_do_not_fit(write, read, text, settings, message):
    with pytest.raises(InputError) as raised:
        read(write("x.json", text), **settings)
    assert message in str(raised.value)
