"""LibSVM and LETOR text: values against a parser of a few lines, and what is said of lines that are refused."""

import gzip
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.prepare.readers import libsvm, streams
from pipelines.prepare.readers.libsvm import LETOR, NODES, parse, read
from pipelines.prepare.readers.streams import packed
from recloss.errors import InputError


def naive(text, with_queries=True):
    """(line, label, query, {feature: value}, docid) of every line that holds anything, by str.split alone."""
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        content, _, comment = line.partition("#")
        words = content.split()
        if not words:
            continue
        label, rest = float(words[0]), words[1:]
        query = int(rest.pop(0).removeprefix("qid:")) if with_queries else None
        values = {int(word.split(":")[0]): np.float32(float(word.split(":")[1])) for word in rest}
        parts = comment.replace("=", " = ").split()
        docid = parts[parts.index("docid") + 2] if "docid" in parts else None
        found.append((number, np.float32(label), query, values, docid))
    return found


def rows(found):
    """What `naive` gives, of `Rows`."""
    ends = np.cumsum(found.counts)
    pieces = []
    for at, (line, label) in enumerate(zip(found.lines.tolist(), found.labels, strict=True)):
        span = slice(ends[at] - found.counts[at], ends[at])
        query = None if found.queries is None else int(found.queries[at])
        values = dict(zip(found.features[span].tolist(), found.values[span], strict=True))
        docid = None if found.documents is None else found.documents[at].as_py()
        pieces.append((line, label, query, values, docid))
    return pieces


blank = st.sampled_from([" ", "  ", "\t", " \t"])
numbers = st.one_of(
    st.floats(-1e6, 1e6, width=32).map(repr),
    st.floats(0, 1).map(lambda x: f"{x:.6f}"),
    st.sampled_from(["0", "+0.5", "-0.0", "1e-3", "2.5E+2", ".5", "3.", "1e-999"]),
)


@st.composite
def lines(draw, first=1, with_queries=True):
    """A line as LETOR files have them, with more blanks than they have."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from(["", "  ", "# a comment", "\t"]))
    between = draw(blank)
    words = [draw(st.sampled_from(["0", "1", "+2", "4", "0.5"]))]
    if with_queries:
        words.append(f"qid:{draw(st.integers(0, 2**53))}")
    features = sorted(draw(st.sets(st.integers(first, 12), max_size=6)))
    words += [f"{feature}:{draw(numbers)}" for feature in features]
    end = draw(st.sampled_from(["", " ", "\r", " #docid = GX-1 inc = 0.5", "#docid=é7", " # none", "#"]))
    return draw(st.sampled_from(["", " "])) + between.join(words) + end


@given(st.lists(lines(), max_size=8), st.booleans())
def test_any_regular_text_is_read_as_by_hand(written, ended):
    text = "\n".join(written) + "\n" * ended
    assert rows(parse(text.encode(), LETOR, "x", 0)) == naive(text)


@given(st.lists(lines(0, with_queries=False), max_size=8))
def test_any_text_without_queries_is_read_as_by_hand(written):
    text = "\n".join(written)
    assert rows(parse(text.encode(), NODES, "x", 0)) == naive(text, with_queries=False)


@given(st.lists(lines().filter(lambda line: line.split("#")[0].strip()), min_size=1, max_size=6))
def test_both_ways_of_reading_agree(written):
    text = "\n".join(" ".join(line.partition("#")[0].split()) for line in written).encode() + b"\n"
    slow = libsvm._line_by_line(text, LETOR, "x", np.arange(len(written)) + 1)
    fast = libsvm._at_once(text, LETOR)
    if b"1e-999" not in text:
        assert fast is not None, "a regular text is read at once"
    for one, other in zip(fast or slow, slow, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


def test_negative_labels_are_classes_but_no_grades():
    assert parse(b"-1\n3 0:1\n", NODES, "x", 0).labels.tolist() == [-1, 3]
    with pytest.raises(InputError, match=r"^x, line 1: grade '-1' is not a number from 0$"):
        parse(b"-1 qid:1 1:1\n", LETOR, "x", 0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x qid:1 1:1", "grade 'x' is not a number from 0"),
        ("nan qid:1 1:1", "grade 'nan' is not a number from 0"),
        ("inf qid:1 1:1", "grade 'inf' is not a number from 0"),
        ("-0.5 qid:1 1:1", "grade '-0.5' is not a number from 0"),
        ("1:1 qid:1", "grade '1:1' is not a number from 0"),
        ("1 1:1 2:1", "no qid after the grade, where other lines have one"),
        ("1", "no qid after the grade, where other lines have one"),
        ("1 1:1 qid:1", "no qid after the grade, where other lines have one"),
        ("1 -1:5 qid:1 1:1", "no qid after the grade, where other lines have one"),
        ("1 1:1 2:1 qid:2", "no qid after the grade, where other lines have one"),
        ("1 qid:1 qid:2 1:1", "'qid:2' is not a feature and its value, such as 7:0.25"),
        ("1 qid:a 1:1", "qid 'a' is not a whole number from 0"),
        ("1 qid:-3 1:1", "qid '-3' is not a whole number from 0"),
        ("1 qid:1.5 1:1", "qid '1.5' is not a whole number from 0"),
        ("1 qid: 1:1", "qid '' is not a whole number from 0"),
        ("1 qid:1 0:1", "feature '0', features are numbered from 1"),
        ("1 qid:1 -1:1", "feature '-1', features are numbered from 1"),
        ("1 qid:1 2:1 2:1", "feature 2 comes twice; they must ascend, each once"),
        ("1 qid:1 3:1 2:1", "feature 2 comes after 3; they must ascend, each once"),
        ("1 qid:1 1.5:1", "'1.5:1' is not a feature and its value, such as 7:0.25"),
        ("1 qid:1 1", "'1' is not a feature and its value, such as 7:0.25"),
        ("1 qid:1 1:1:2", "feature 1 has the value '1:2', which is not a finite number"),
        ("1 qid:1 1 :2", "'1' is not a feature and its value, such as 7:0.25"),
        ("1 qid:1 1:", "feature 1 has the value '', which is not a finite number"),
        ("1 qid:1 1:nan", "feature 1 has the value 'nan', which is not a finite number"),
        ("1 qid:1 1:-inf", "feature 1 has the value '-inf', which is not a finite number"),
        ("1 qid:1 1:1e39", "feature 1 has the value '1e39', which is not a finite number"),
        ("1 qid:1 1:1e999", "feature 1 has the value '1e999', which is not a finite number"),
        ("1 qid:1 1:0x10", "feature 1 has the value '0x10', which is not a finite number"),
        ("1 qid:1 1:1\x01", "feature 1 has the value '1', which is not a finite number"),
        ("1 qid:1 3000000000:1", "feature '3000000000', features are numbered from 1"),
    ],
)
def test_the_first_bad_line_is_named(tmp_path, line, message):
    good = ["0 qid:1 1:0.5 2:1", "# none", "", "1 qid:1 2:0.25"]
    file = tmp_path / "train.txt"
    for more in ([], ["x"]):  # another one after it changes nothing
        file.write_text("\n".join([*good, line, *good, *more]) + "\n")
        with pytest.raises(InputError) as raised:
            list(read(packed(file), LETOR, 1))
        assert str(raised.value) == f"train.txt, line 5: {message}"


@pytest.mark.parametrize("workers", [1, 3])
def test_pieces_give_the_same_rows(tmp_path, monkeypatch, workers):
    rng = np.random.default_rng(0)
    lines = []
    for query in range(300):
        values = " ".join(f"{feature}:{rng.random():.6f}" for feature in range(1, 9))
        end = " #docid = d" if query % 3 else "\n"
        lines.append(f"{rng.integers(5)} qid:{query} {values}{end}")
    text = "\n".join(lines)
    file = tmp_path / "lists.gz"
    file.write_bytes(gzip.compress(text.encode()))
    monkeypatch.setattr(streams, "BLOCK_BYTES", 1000)
    pieces = list(read(packed(file), LETOR, workers))
    assert len(pieces) > 10
    assert [row for piece in pieces for row in rows(piece)] == naive(text)


def test_a_bad_line_is_counted_over_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "BLOCK_BYTES", 100)
    file = tmp_path / "train.txt"
    file.write_text("1 qid:1 1:0.5\n" * 50 + "1 qid:1 1:a\n" + "1 qid:1 1:b\n")
    with pytest.raises(InputError, match=r"^train\.txt, line 51: feature 1 has the value 'a'"):
        list(read(packed(file), LETOR, 2))


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        ("1 qid:1 1:0.5\n", "1 1:0.5\n", "no qid, but lines before it have one"),
        ("1 1:0.5\n", "1 qid:1 1:0.5\n", "a qid, but lines before it have none"),
    ],
)
def test_qids_are_in_all_pieces_or_in_none(tmp_path, monkeypatch, first, then, message):
    monkeypatch.setattr(streams, "BLOCK_BYTES", 10 * len(first))
    file = tmp_path / "train.txt"
    file.write_text(first * 20 + then * 40)
    with pytest.raises(InputError) as raised:
        list(read(packed(file), LETOR, 1))
    assert str(raised.value) == f"train.txt, line 21: {message}"


@pytest.mark.parametrize("content", ["", "\n\n", "# only comments\n"])
def test_a_file_without_rows_is_refused(tmp_path, content):
    (tmp_path / "train.txt").write_text(content)
    with pytest.raises(InputError) as raised:
        list(read(packed(tmp_path / "train.txt"), LETOR, 1))
    wanted = "'grade qid:Q 1:value 2:value ...' on every line"
    assert str(raised.value) == f"train.txt: holds no lines; expected {wanted}"


def test_missing_features_are_zero():
    found = parse(b"1 qid:1 2:0.5\n0 qid:1\n2 qid:1 1:3 4:-1\n", LETOR, "x", 0)
    assert found.dense(1, 4).tolist() == [[0, 0.5, 0, 0], [0, 0, 0, 0], [3, 0, 0, -1]]


def test_no_object_per_value(monkeypatch):
    """A regular file is never read line by line."""
    monkeypatch.setattr(libsvm, "_line_by_line", None)
    text = b"2 qid:7 1:0.5 3:1e-3 #docid = a\r\n0 qid:7\t1:-4 \n"
    found = parse(text, LETOR, "x", 0)
    assert found.values.tolist() == [0.5, np.float32(1e-3), -4]
    assert found.labels.tolist() == [2, 0]
    assert math.isclose(found.values[1], 1e-3, rel_tol=1e-7)


def test_as_many_qids_as_lines_are_not_one_on_each():
    with pytest.raises(InputError, match=r"^x, line 1: 'qid:2' is not a feature and its value"):
        parse(b"1 qid:1 qid:2 1:1\n1\n", LETOR, "x", 0)
    with pytest.raises(InputError, match=r"^x, line 1: no qid after the grade"):
        parse(b"1 -1:7 2:1\n1 qid:1 qid:2 1:1\n", LETOR, "x", 0)
