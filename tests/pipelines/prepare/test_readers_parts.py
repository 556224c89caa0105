import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipelines.prepare.readers import sources
from pipelines.settings import Columns, PrepareSettings
from recloss.errors import InputError

HEADER = "userId,movieId,rating,timestamp\n"


def log(raw, **settings):
    (source,) = sources(raw, PrepareSettings(**settings), lambda _: None)
    return source


def rows(source, on_bad_row="error"):
    return pa.concat_tables(source.blocks(on_bad_row)).to_pydict()


def joined(parts, on_bad_row="error"):
    tables = [rows(pickle.loads(pickle.dumps(part)), on_bad_row) for part in parts]
    return {column: [value for table in tables for value in table[column]] for column in tables[0]}


@hypothesis_settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    users=st.lists(st.text("abü", min_size=1, max_size=9), min_size=1, max_size=40),
    size=st.integers(1, 300),
    mark=st.sampled_from(["", "\ufeff"]),
    end=st.sampled_from(["\n", "\r\n"]),
    blank=st.integers(0, 30),
    header=st.booleans(),
)
def test_parts_of_a_text_hold_its_rows_in_order(write, users, size, mark, end, blank, header):
    lines = [f"{user}\t{n}\t{n % 5}\t{n}" for n, user in enumerate(users)]
    names = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    text = mark + end.join([*names, *lines] if header else lines) + end + blank * end
    source = (
        log(write("x.inter", text), format="movielens") if header else log(write("u.data", text), format="movielens")
    )
    parts = source.parts(size)
    assert joined(parts) == rows(source)
    assert rows(source)["user"] == users
    assert len(parts) <= len(users)
    if size == 1:
        assert len(parts) == len(users)


@pytest.mark.parametrize("bad", range(0, 200, 13))
def test_places_are_right_in_every_part(write, bad):
    lines = [f"{n},{n},3,{n}" for n in range(200)]
    lines[bad] = "1,2,x,4"
    source = log(write("ratings.csv", HEADER + "\n".join(lines) + "\n"))
    parts = source.parts(150)
    assert len(parts) > 10
    refused = [text for text in joined(parts, "skip")["refused"] if text]
    assert refused == [f"ratings.csv, line {bad + 2}: rating 'x' is not a number"]
    raised = []
    for part in parts:
        try:
            rows(part)
        except InputError as error:
            raised.append(str(error))
    assert raised == refused


def test_blank_lines_between_parts_are_refused_and_at_the_end_left_out(write):
    text = HEADER + "1,2,3,4\n" * 10 + "\n" * 50 + "1,2,3,4\n" * 10 + "\n" * 500
    source = log(write("ratings.csv", text))
    for size in (1, 20, 70, 1000):
        table = joined(source.parts(size), "skip")
        assert len(table["user"]) == 70
        assert [text for text in table["refused"] if text] == [
            f"ratings.csv, line {n}: userId is empty" for n in range(12, 62)
        ]


def test_header_only_is_one_part_that_says_so(write):
    (part,) = log(write("ratings.csv", HEADER + "\n\n")).parts(1)
    with pytest.raises(InputError, match=r"^ratings\.csv: no interactions after the header line$"):
        rows(part)


@pytest.mark.parametrize(
    ("name", "text", "format"),
    [("c.txt", "1 2\n" * 50, "counted-lists"), ("p.txt", "0,0,0,1\n" * 50, "padded-sequences")],
)
def test_lists_without_user_ids_are_not_divided(write, name, text, format):
    source = log(write(name, text), format=format)
    assert source.parts(10) == [source]


@pytest.mark.parametrize("size", [1, 500, 3000, 10**9])
def test_parts_of_parquet_are_runs_of_row_groups(tmp_path, size):
    table = pa.table({"user": [f"u{n % 7}" for n in range(100)], "item": list(range(100))})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=10)
    source = log(tmp_path / "x.parquet")
    parts = source.parts(size)
    assert joined(parts) == rows(source)
    assert {1: 10, 10**9: 1}.get(size, len(parts)) == len(parts)


def test_rows_of_parquet_parts_are_counted_from_the_beginning(tmp_path):
    table = pa.table({"user": ["1"] * 34 + [""] + ["1"] * 5, "item": ["1"] * 40})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=10)
    parts = log(tmp_path / "x.parquet").parts(1)
    assert [text for text in joined(parts, "skip")["refused"] if text] == ["x.parquet, row 35: user is empty"]
    with pytest.raises(InputError, match=r"^x\.parquet, row 35: user is empty$"):
        rows(parts[3])


def test_a_unit_decided_at_the_beginning_holds_for_all_parts(write):
    text = HEADER + "".join(f"{n},{n},3,{10**12 + 1000 * n}\n" for n in range(100)) + "1,2,3,1000000000\n"
    parts = log(write("ratings.csv", text)).parts(100)
    assert joined(parts[:-1])["timestamp"] == [10**9 + n for n in range(len(joined(parts[:-1])["timestamp"]))]
    with pytest.raises(InputError) as raised:
        rows(parts[-1])
    place = "ratings.csv, line 2 (1000000000000)"
    expected = f"timestamp '1000000000' is in seconds, but {place} in milliseconds: one log has one unit"
    assert str(raised.value) == f"ratings.csv, line 102: {expected}"


def test_columns_of_parquet_and_their_dictionaries(tmp_path):
    names = ["a", " a", "b "] * 100
    table = pa.table(
        {"u": pa.array(names).dictionary_encode(), "i": pa.array(range(300), pa.uint16()), "r": [1.5] * 300}
    )
    pq.write_table(table, tmp_path / "x.parquet")
    source = log(tmp_path / "x.parquet", columns=Columns(user="u", item="i", rating="r"))
    (block,) = source.blocks("error")
    assert block["user"].chunk(0).dictionary.to_pylist() == ["a", "b"]
    assert block.to_pydict() == {
        "user": ["a", "a", "b"] * 100,
        "item": [str(n) for n in range(300)],
        "rating": [1.5] * 300,
    }
