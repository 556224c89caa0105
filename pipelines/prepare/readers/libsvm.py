"""LibSVM text, ``label index:value index:value ...``, and its form with query ids, ``grade qid:Q 1:value ...`` (LETOR).

Pieces of whole lines are parsed as a whole, without an object per value; a piece that is not as expected is read line
by line, which finds what is wrong with it and where. Blanks and tabs separate, ``#`` begins a comment, lines without
anything else are passed over.
"""

import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from pipelines.prepare.readers.blanks import positions_of_ends, single_blanks, without_comments
from pipelines.prepare.readers.streams import File, line_ends, whole_lines
from recloss.errors import InputError, plain

NUMBER = re.compile(rb"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
DOCUMENT = r"docid\s*=\s*(?P<id>\S+)"
LARGEST_INDEX = 2**31 - 1
LARGEST_QUERY = 2**53
_SEPARATORS = b" :\n"
_OTHERS = bytes(set(range(256)) - set(_SEPARATORS))
_ONE_PER_LINE = bytes.maketrans(_SEPARATORS, b"\n\n\n")


@dataclass(frozen=True)
class Kind:
    """What the lines of a file mean."""

    label: str
    """The name of the first value in messages ..."""
    least: float
    """... and the least that it may be."""
    first: int
    """The number of the first feature."""
    queries: bool
    """Whether lines may have a ``qid``."""


LETOR = Kind("grade", 0.0, 1, queries=True)
NODES = Kind("class", -np.inf, 0, queries=False)


@dataclass(frozen=True, eq=False)
class Rows:
    """The lines of a piece that hold anything."""

    lines: NDArray[np.int64]
    """Number of each line in the file, from 1."""
    labels: NDArray[np.float32]
    queries: NDArray[np.int64] | None
    """The ``qid`` of each line, where there are any."""
    counts: NDArray[np.int64]
    """Values of each line ..."""
    features: NDArray[np.int32]
    """... and of all lines, one after the other, the features' numbers, ascending in a line, ..."""
    values: NDArray[np.float32]
    documents: pa.Array | None
    """The ``docid`` in the comment of each line, null where it has none; None where no line has a comment."""

    def dense(self, first: int, width: int) -> NDArray[np.float32]:
        """(n, width) values, 0 where a line does not have the feature; column 0 is the feature ``first``."""
        if width and len(self.counts) * width == len(self.values):  # every line has every feature
            return self.values.reshape(-1, width)
        whole = np.zeros((len(self.counts), width), np.float32)
        whole[np.repeat(np.arange(len(self.counts)), self.counts), self.features - first] = self.values
        return whole


def read(file: File, kind: Kind, workers: int) -> Iterator[Rows]:
    """The rows of a file, piece by piece, parsed by ``workers`` threads.

    Raises:
        InputError: a line is refused, or the file cannot be read or has no rows.
    """
    empty, with_queries = True, False
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Rows]] = deque()
        pieces = whole_lines(file, 0)
        try:
            while True:
                while len(waiting) <= workers and (piece := next(pieces, None)):
                    waiting.append(pool.submit(parse, piece[1], kind, file.name, piece[0]))
                if not waiting:
                    break
                rows = waiting.popleft().result()
                if not len(rows.lines):
                    continue
                if not empty and with_queries != (rows.queries is not None):
                    wrong = ("no", "one") if with_queries else ("a", "none")
                    raise InputError(
                        f"{file.name}, line {rows.lines[0]}: {wrong[0]} qid, but lines before it have {wrong[1]}"
                    )
                empty, with_queries = False, rows.queries is not None
                yield rows
        finally:
            pool.shutdown(cancel_futures=True)
    if empty:
        raise InputError(f"{file.name}: holds no lines; expected {expected(kind)}")


def expected(kind: Kind) -> str:
    """A line as it would be accepted."""
    query = "qid:Q " if kind.queries else ""
    return f"'{kind.label} {query}{kind.first}:value {kind.first + 1}:value ...' on every line"


def parse(text: bytes, kind: Kind, name: str, before: int) -> Rows:
    """The rows of whole lines; ``before`` lines of the file ``name`` came before them.

    Raises:
        InputError: naming the first line that is refused.
    """
    text = text if text.endswith(b"\n") else text + b"\n"
    content, comments = without_comments(text) if b"#" in text else (text, None)
    content = single_blanks(content)
    lines = before + 1 + np.arange(line_ends(content))
    if content.startswith(b"\n") or b"\n\n" in content:
        filled = np.diff(positions_of_ends(content), prepend=-1) > 1
        lines = lines[filled]
        comments = None if comments is None else comments.filter(pa.array(filled))
        content = re.sub(rb"\n+", b"\n", content).removeprefix(b"\n")
    documents = None if comments is None else pc.struct_field(pc.extract_regex(comments, DOCUMENT), "id")
    found = _at_once(content, kind) or _line_by_line(content, kind, name, lines)
    return Rows(lines, *found, documents)


_Found = tuple[NDArray[np.float32], NDArray[np.int64] | None, NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]
"""Labels, queries, counts, features and values of `Rows`."""


def _at_once(text: bytes, kind: Kind) -> _Found | None:
    """What lines with single blanks hold, or None if one of them may not be accepted."""
    structure = np.frombuffer(text.translate(None, _OTHERS), np.uint8)
    blank, colon = structure == ord(" "), structure == ord(":")
    if len(structure) and (colon[0] or not np.array_equal(blank[:-1], colon[1:])):
        return None
    ends = np.flatnonzero(structure == ord("\n"))
    counts = np.diff(ends, prepend=-1) // 2
    queries = text.count(b" qid:") if kind.queries else 0
    if queries:
        if queries != len(ends) or not counts.all():
            return None
        text = text.replace(b" qid:", b" -1:")
    numbers = _numbers(text.translate(_ONE_PER_LINE))
    if numbers is None:
        return None
    labels, pairs = _divided(numbers, ends, counts)
    index, value = pairs[:, 0], pairs[:, 1]
    starts = np.cumsum(counts) - counts
    of_query = None
    if queries:
        of_query = value[starts]
        if not _whole(of_query, 0, LARGEST_QUERY):  # a qid elsewhere is found below, as a feature -1
            return None
        kept = np.ones(len(index), bool)
        kept[starts] = False
        index, value, counts = index[kept], value[kept], counts - 1
        starts = np.cumsum(counts) - counts
    rises = np.diff(index) > 0
    rises[starts[(starts > 0) & (starts < len(index))] - 1] = True
    with np.errstate(over="ignore"):
        label, values = labels.astype(np.float32), value.astype(np.float32)
    if not (
        rises.all() and _whole(index, kind.first, LARGEST_INDEX) and np.isfinite(values).all()
        and np.isfinite(label).all() and (label >= kind.least).all()
    ):  # fmt: skip
        return None
    whole = None if of_query is None else of_query.astype(np.int64)
    return label, whole, counts.astype(np.int64), index.astype(np.int32), values


def _numbers(text: bytes) -> NDArray[np.float64] | None:
    """The numbers of a text with one per line; None if it has anything else."""
    if not text:
        return np.zeros(0)
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(text),
            pa.csv.ReadOptions(use_threads=False, column_names=["number"], block_size=len(text) + 1),
            pa.csv.ParseOptions(delimiter="\x01", quote_char=False, ignore_empty_lines=False),
            pa.csv.ConvertOptions(column_types={"number": pa.float64()}, null_values=[]),
        )
    except pa.ArrowInvalid:
        return None
    return table["number"].combine_chunks().to_numpy()


def _divided(
    numbers: NDArray[np.float64], ends: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The first number of each line, and the pairs of all others."""
    if len(counts) and (counts == counts[0]).all():
        table = numbers.reshape(len(counts), -1)
        return table[:, 0], table[:, 1:].reshape(-1, 2)
    first = ends - 2 * counts
    rest = np.ones(len(numbers), bool)
    rest[first] = False
    return numbers[first], numbers[rest].reshape(-1, 2)


def _whole(numbers: NDArray[np.float64], least: int, most: int) -> bool:
    return not len(numbers) or bool(
        numbers.min() >= least and numbers.max() <= most and (numbers == np.floor(numbers)).all()
    )


def _line_by_line(text: bytes, kind: Kind, name: str, lines: NDArray[np.int64]) -> _Found:
    """What `_at_once` gives, slowly, and what is wrong with the first line that is refused."""
    with_queries = kind.queries and b" qid:" in text
    labels, queries, counts, features, values = [], [], [], [], []
    for number, line in zip(lines.tolist(), text.splitlines(), strict=True):
        place = f"{name}, line {number}"
        label, *pairs = line.split(b" ")
        grade = _finite(label)
        if grade is None or grade < kind.least:
            least = "" if kind.least == -np.inf else f" from {kind.least:g}"
            raise InputError(f"{place}: {kind.label} {_shown(label)} is not a number{least}")
        labels.append(grade)
        if with_queries:
            if not pairs or not pairs[0].startswith(b"qid:"):
                raise InputError(f"{place}: no qid after the {kind.label}, where other lines have one")
            queries.append(_query(pairs.pop(0).removeprefix(b"qid:"), place))
        last = kind.first - 1
        for pair in pairs:
            last, value = _pair(pair, last, kind, place)
            features.append(last)
            values.append(value)
        counts.append(len(pairs))
    return (
        np.array(labels, np.float32),
        np.array(queries, np.int64) if with_queries else None,
        np.array(counts, np.int64),
        np.array(features, np.int32),
        np.array(values, np.float32),
    )


def _query(text: bytes, place: str) -> int:
    number = _finite(text)
    if number is None or not (0 <= number <= LARGEST_QUERY and number.is_integer()):
        raise InputError(f"{place}: qid {_shown(text)} is not a whole number from 0")
    return int(number)


def _pair(pair: bytes, last: int, kind: Kind, place: str) -> tuple[int, float]:
    """A feature and its value; ``last`` is the feature before it."""
    index, colon, text = pair.partition(b":")
    number = _finite(index)
    if not colon or number is None or not number.is_integer():
        raise InputError(f"{place}: {_shown(pair)} is not a feature and its value, such as 7:0.25")
    if not kind.first <= number <= LARGEST_INDEX:
        raise InputError(f"{place}: feature {_shown(index)}, features are numbered from {kind.first}")
    if number <= last:
        wrong = "comes twice" if number == last else f"comes after {last}"
        raise InputError(f"{place}: feature {int(number)} {wrong}; they must ascend, each once")
    value = _finite(text)
    if value is None:
        raise InputError(f"{place}: feature {int(number)} has the value {_shown(text)}, which is not a finite number")
    return int(number), value


def _finite(text: bytes) -> float | None:
    """The number, None if it is none that float32 can hold."""
    if not NUMBER.fullmatch(text):
        return None
    with np.errstate(over="ignore"):
        return float(text) if np.isfinite(np.float32(float(text))) else None


def _shown(text: bytes) -> str:
    return repr(plain(text[:60].decode(errors="replace")))
