"""Whatever a file holds: rows or one line of error, the same ones wherever the file is cut."""

import json

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipelines.prepare.readers import FORMATS, sources, streams
from pipelines.settings import Columns, PrepareSettings
from recloss.errors import InputError

BEGINNINGS = {
    "movielens": ["", "1\t2\t3\t4\n", "1::2::3::4\n", "userId,movieId,rating,timestamp\n"],
    "recbole": ["user_id:token\titem_id:token\trating:float\n", "item_id:token\ttimestamp:float\tuser_id:token\n"],
    "amazon-reviews": [
        json.dumps({"reviewerID": "a", "asin": "b", "overall": 3, "unixReviewTime": 4}) + "\n",
        "user_id,parent_asin,rating,timestamp\n",
    ],
    "gowalla": ["0\t2010-10-19T23:55:27Z\t30.2\t-97.7\t22847\n"],
    "csv": ["user,item,rating,timestamp\n", "item;user;x\n"],
    "json": ['{"user": "a", "item": 5}\n'],
    "padded-sequences": ["0,0,1\n"],
    "ir-benchmark": ["user_procid\titem_procid\n"],
}
NUMBERS = ["1", "12", "007", "0", "-3", "4.5", "1_0", "nan", "1e400", "99999999999999999999"]
TIMES = ["1500000000", "1500000000000", "2010-10-19T23:55:27Z", "2010-02-30"]
TEXTS = ["x", "", " ", '"', '"a"', '"a,b"', '"a\tb"', "\xfc", "\x00", "\x1f", "\r", "::"]
VALUE = st.sampled_from([*NUMBERS, *TIMES, *TEXTS])
LINE = st.one_of(
    st.builds(
        lambda values, separator, end: separator.join(values) + end,
        st.lists(VALUE, max_size=6),
        st.sampled_from([",", "\t", " ", "::", ";"]),
        st.sampled_from(["\n", "\n", "\r\n", ""]),
    ),
    st.sampled_from(
        [
            '{"user": 1, "item": "x"}\n',
            '{"reviewerID": "a", "asin": "b"}\n',
            '{"user": [1]}\n',
            "{\n",
            "1,2,3,4\n",
            "1\t2\n",
        ]
    ),
)


def _assert_one_line(error):
    assert "\n" not in str(error)


def table(blocks):
    return pa.concat_tables(blocks).to_pydict()


@hypothesis_settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("format", ["auto", *(name for name in FORMATS if name != "parquet")])
def test_any_lines(write, format, data):
    lines = data.draw(st.lists(LINE, max_size=8))
    beginning = data.draw(st.sampled_from(BEGINNINGS.get(format, [""])))
    mark = data.draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf"]))
    path = write("x.txt", mark + (beginning + "".join(lines)).encode(data.draw(st.sampled_from(["utf-8", "latin-1"]))))
    try:
        (source,) = sources(path, PrepareSettings(format=format), lambda _: None)
        rows = table(source.blocks("skip"))
    except InputError as error:
        return _assert_one_line(error)
    bad = [text is not None for text in rows["refused"]]
    for column in source.columns:
        assert [value is None for value in rows[column]] == bad
    for side in ("user", "item"):
        assert all(value == value.strip(" \t\n\r\v\f") != "" for value in rows[side] if value is not None)
    refused = [text for text in rows.pop("refused") if text]
    if refused:
        with pytest.raises(InputError) as raised:
            table(source.blocks("error"))
        assert str(raised.value) == refused[0]
    else:
        assert table(source.blocks("error")) == rows
    usual, streams.BLOCK_BYTES = streams.BLOCK_BYTES, data.draw(st.integers(1, 60))
    try:
        size = data.draw(st.integers(1, 100))
        again = table(block for part in source.parts(size) for block in part.blocks("skip"))
    finally:
        streams.BLOCK_BYTES = usual
    assert [text for text in again.pop("refused") if text] == refused
    assert again == rows


NAMED = Columns(user="u", item="i", rating="r", timestamp="t")


@hypothesis_settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), min_size=1, max_size=8),
            st.integers(-(2**40), 2**70),
            st.floats(allow_nan=False, allow_infinity=False),
            st.integers(0, 10**11 - 1).filter(lambda time: time < 4_102_444_800),
        ).filter(lambda row: row[0].strip(" \t\v\f")),
        min_size=1,
        max_size=20,
    ),
    delimiter=st.sampled_from([",", ";", "\t"]),
)
def test_what_is_written_is_read(write, read, rows, delimiter):
    quoted = [[f'"{user.replace(chr(34), 2 * chr(34))}"', *map(repr, others)] for user, *others in rows]
    text = "".join(delimiter.join(row) + "\n" for row in [["u", "i", "r", "t"], *quoted])
    found = read(write("x.csv", text), columns=NAMED)
    assert found["user"] == [user.strip(" \t\v\f") for user, *_ in rows]
    assert found["item"] == [str(item) for _, item, *_ in rows]
    assert found["rating"] == [rating for *_, rating, _ in rows]
    assert found["timestamp"] == [time for *_, time in rows]
    lines = [json.dumps(dict(zip("uirt", row, strict=True))) + "\n" for row in rows]
    assert read(write("x.json", "".join(lines)), columns=NAMED) == found
