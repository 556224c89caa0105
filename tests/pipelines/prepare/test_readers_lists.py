import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipelines.prepare.readers import streams
from recloss.errors import InputError

LISTS = st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=6), min_size=1, max_size=8)


@pytest.mark.parametrize("size", [None, 1, 9])
def test_lists(write, read, monkeypatch, size):
    if size:
        monkeypatch.setattr(streams, "BLOCK_BYTES", size)
    path = write("train.txt", "7 a b\n8\n9  c\td \r\n\n")
    assert read(path, format="lists") == {"user": ["7", "7", "9", "9"], "item": ["a", "b", "c", "d"]}
    assert read(path, format="sequences")["position"] == [0, 1, 0, 1]


@hypothesis_settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lists=LISTS, size=st.integers(1, 60))
def test_lists_counted_lists_and_padded_sequences_against_loops(write, read, lists, size):
    streams_size, streams.BLOCK_BYTES = streams.BLOCK_BYTES, size
    try:
        rows = [(str(user), str(item), at) for user, items in enumerate(lists) for at, item in enumerate(items)]
        users, items, positions = (list(column) for column in zip(*rows, strict=True))
        text = "".join(f"{user} {' '.join(map(str, items))}\n" for user, items in enumerate(lists))
        expected = {"user": users, "item": items, "position": positions}
        assert read(write("a.txt", text), format="sequences") == expected
        text = "".join(f"{len(items)} {' '.join(map(str, items))}\n" for items in lists)
        assert read(write("b.txt", text), format="counted-lists") == {"user": users, "item": items}
        text = "".join(",".join(map(str, [0] * (6 - len(items)) + items)) + "\n" for items in lists)
        assert read(write("c.txt", text), format="padded-sequences") == expected
    finally:
        streams.BLOCK_BYTES = streams_size


@pytest.mark.parametrize(
    ("format", "lines", "line", "message"),
    [
        ("lists", ["1 2", "", "3 4"], 2, "the line is empty"),
        ("sequences", ["1 2", "  ", "3 4"], 2, "the line is empty"),
        ("lists", ["1 2", "3 \xff"], 2, "not UTF-8 text"),
        ("counted-lists", ["1 5", "3 1 2", "1 4"], 2, "the first number '3' is not 2, the count of items"),
        ("counted-lists", ["1 5", "x 1 2", "1 4"], 2, "the first number 'x' is not 2, the count of items"),
        ("counted-lists", ["1 5", "", "1 4"], 2, "the line is empty"),
        ("padded-sequences", ["0,1,2", "0,0,3,4", "0,0,5"], 2, "4 values, expected 3"),
        (
            "padded-sequences",
            ["0,1,2", "1,0,2", "0,0,5"],
            2,
            "0 (padding) after an item; it is accepted on the left only",
        ),
        ("padded-sequences", ["0,1,2", "0,1,x", "0,0,5"], 2, "item 'x' is not a whole number"),
        ("padded-sequences", ["0,1,2", "0,0,0", "0,0,5"], 2, "no item, 0 (padding) alone"),
        ("padded-sequences", ["0,1,2", "", "0,0,5"], 2, "1 values, expected 3"),
    ],
)
@pytest.mark.parametrize("size", [None, 7])
def test_bad_lines(write, read, monkeypatch, format, lines, line, message, size):
    if size:
        monkeypatch.setattr(streams, "BLOCK_BYTES", size)
    path = write("x.txt", "\n".join(lines).encode("latin-1") + b"\n")
    with pytest.raises(InputError) as raised:
        read(path, format=format)
    assert str(raised.value) == f"x.txt, line {line}: {message}"
    rows = read(path, "skip", format=format)
    refused = [at for at, text in enumerate(rows["refused"]) if text is not None]
    assert [rows["refused"][at] for at in refused] == [f"x.txt, line {line}: {message}"]
    assert all(rows[column][refused[0]] is None for column in rows if column != "refused")
    good = write("good.txt", "\n".join(text for at, text in enumerate(lines, 1) if at != line) + "\n")
    expected = read(good, format=format)["item"]
    assert [item for item in rows["item"] if item is not None] == expected
    if format not in ("lists", "sequences"):
        users = {user for user in rows["user"] if user is not None}
        assert users == {str(at) for at in range(len(lines)) if at != line - 1}, "the others keep their numbers"


@pytest.mark.parametrize("format", ["lists", "sequences", "counted-lists", "padded-sequences"])
def test_nothing(write, read, format):
    with pytest.raises(InputError, match=r"x\.txt: (the file is empty|no interactions)"):
        read(write("x.txt", "\n\n"), format=format)
