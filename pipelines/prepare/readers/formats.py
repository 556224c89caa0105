"""The formats of logs: what each is, which files of a folder it takes, and how one of them is read."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.prepare.readers.head import ITEM, TIME, USER, Head, Table, number, table
from pipelines.prepare.readers.jsonlines import JsonLines
from pipelines.prepare.readers.lists import CountedLists, Lists, Padded
from pipelines.prepare.readers.source import Layout
from pipelines.prepare.readers.text import Separated
from pipelines.prepare.readers.times import ISO
from recloss.errors import InputError

if TYPE_CHECKING:  # importing it would load torch in every reading worker
    from pipelines.settings import Columns

Opened = tuple[str, Layout]
"""What exactly a file is, and how its lines are read."""


@dataclass(frozen=True)
class Format:
    """A format; ``open`` raises InputError for a file that cannot be of it (Parquet is opened as a whole)."""

    description: str
    patterns: tuple[str, ...]
    """Files of a folder that are considered."""
    open: Callable[[Head, "Columns"], Opened] | None


INTER = {
    "user": "user_id:token",
    "item": "item_id:token",
    "rating": "rating:float",
    "timestamp": "timestamp:float",
}
RATINGS_CSV = {"user": "userId", "item": "movieId", "rating": "rating", "timestamp": "timestamp"}
AMAZON = (
    {"user": "reviewerID", "item": "asin", "rating": "overall", "timestamp": "unixReviewTime"},
    {"user": "user_id", "item": "parent_asin", "rating": "rating", "timestamp": "timestamp"},
)
"""Keys of Amazon reviews of 2014 and 2018, and of 2023."""
PROCESSED = {"user": "user_procid", "item": "item_procid"}
TIME_FROM = 10**8
"""Columns of whole numbers from here on are times (1973 in seconds), smaller ones ratings or counts."""


def movielens(head: Head, columns: "Columns") -> Opened:
    """One of the layouts of MovieLens, told apart by the separator and by ``:token`` in the first line."""
    line = head.first
    if "::" in line or ("\t" in line and ":token" not in line):
        delimiter, name = ("::", "ratings.dat") if "::" in line else ("\t", "u.data")
        return f"MovieLens {name}", _fixed(delimiter, ("user", "item", "rating", "timestamp"), ended=True)
    if "\t" in line:
        return recbole(head, columns)
    if "," not in line:
        raise InputError(f"{head.name}: not a MovieLens file; accepted: {FORMATS['movielens'].description}")
    names = line.split(",")
    roles = head.positions(names, RATINGS_CSV)
    return "MovieLens ratings.csv", Separated(",", len(names), roles, header=1, quoted=True, ended=True)


def recbole(head: Head, columns: "Columns") -> Opened:
    """Named and typed columns separated by tabs."""
    names = head.first.split("\t")
    wanted = {role: name for role, name in INTER.items() if role in ("user", "item") or name in names}
    roles = {role: (at, role) for role, (at, _) in head.positions(names, wanted).items()}
    return "RecBole .inter", Separated("\t", len(names), roles, header=1, ended=True)


def amazon_ratings(*order: str) -> Callable[[Head, "Columns"], Opened]:
    """Four values without header, in the order of an edition."""

    def open_(head: Head, columns: "Columns") -> Opened:
        values = head.first.split(",")
        if len(values) == 4 and number(values[2]) is None:
            raise InputError(f"{head.name}: has a header line; amazon-reviews reads the 2023 files, csv named columns")
        return f"Amazon ratings, {order[0]} first", _fixed(",", (*order, "rating", "timestamp"))

    return open_


def amazon_reviews(head: Head, columns: "Columns") -> Opened:
    """JSON lines of 2014, 2018 and 2023, or the CSV of 2023."""
    if not head.first.startswith("{"):
        names = head.first.split(",")
        roles = head.positions(names, AMAZON[1])
        return "Amazon ratings 2023", Separated(",", len(names), roles, header=1, quoted=True)
    keys = set(_object(head))
    fitting = next((named for named in AMAZON if {named["user"], named["item"]} <= keys), None)
    if fitting is None:
        wanted = " or ".join(f"{named['user']} and {named['item']}" for named in AMAZON)
        raise InputError(f"{head.name}, line 1: not an Amazon review, which has {wanted}")
    edition = "2014/2018" if fitting is AMAZON[0] else "2023"
    return f"Amazon reviews {edition}", _json(head, fitting)


def gowalla(head: Head, columns: "Columns") -> Opened:
    """Check-ins: user, time, latitude, longitude, location."""
    roles = {"user": (0, "user"), "item": (4, "location"), "timestamp": (1, "check-in time")}
    return "Gowalla check-ins", Separated("\t", 5, roles)


def pairs(head: Head, columns: "Columns") -> Opened:
    """User and item, then perhaps a rating and a time, in the order of a header line if it names them."""
    found = table(head)
    if found is None or not 2 <= found.width <= 4:
        width = found.width if found else 1
        raise InputError(f"{head.name}, line 1: {width} values, expected 2 to 4: user, item, rating, timestamp")
    roles = pair_roles(found)
    layout = Separated(
        found.delimiter,
        found.width,
        {role: (at, found.header[at] if found.header else role) for role, at in roles.items()},
        header=int(found.header is not None),
        quoted=found.delimiter in ",;",
    )
    return "pairs", layout


def pair_roles(found: Table) -> dict[str, int]:
    """Role -> position of the columns of a list of pairs."""
    item_first = found.named(0, ITEM) and found.named(1, USER)
    roles = {"user": int(item_first), "item": int(not item_first)}
    others = list(range(2, found.width))
    times = [at for at in others if found.named(at, TIME) or found.share(at, _is_time)]
    time = times[0] if times else 3 if found.width == 4 else None
    rating = next((at for at in others if at != time), None)
    given = {"rating": rating, "timestamp": time}
    return roles | {role: at for role, at in given.items() if at is not None}


def lists(ordered: bool) -> Callable[[Head, "Columns"], Opened]:
    """A user per line, followed by items."""

    def open_(head: Head, columns: "Columns") -> Opened:
        return "sequences" if ordered else "lists", Lists(ordered)

    return open_


def counted_lists(head: Head, columns: "Columns") -> Opened:
    """Line k holds the items of user k after their number."""
    return "counted lists", CountedLists()


def padded_sequences(head: Head, columns: "Columns") -> Opened:
    """Line k holds the items of user k after a padding of 0; the width is that of most of the first lines."""
    found = table(head)
    return "padded sequences", Padded(found.delimiter, found.width) if found else Padded(" ", 1)


def ir_benchmark(head: Head, columns: "Columns") -> Opened:
    """Numbers of user and item under a header."""
    names = head.first.split("\t")
    return "IR-Benchmark", Separated("\t", len(names), head.positions(names, PROCESSED), header=1)


def named_csv(head: Head, columns: "Columns") -> Opened:
    """Text with a header; if no separator gives the named columns, the most frequent serves the message."""
    delimiter = header_delimiter(head.first, columns) or max(",;\t", key=head.first.count)
    names = split_header(head.first, delimiter)
    return "csv", Separated(delimiter, len(names), head.positions(names, named(columns)), header=1, quoted=True)


def named_json(head: Head, columns: "Columns") -> Opened:
    """JSON objects with the keys that the settings name."""
    keys = list(_object(head))
    head.positions(keys, named(columns))
    return "JSON lines", _json(head, named(columns))


def named(columns: "Columns") -> dict[str, str]:
    """Role -> name of the columns that the settings name."""
    return {role: name for role, name in columns.model_dump().items() if name is not None}


def header_delimiter(line: str, columns: "Columns") -> str | None:
    """The separator that splits a header line into names among which are the user's and the item's."""
    fitting = (d for d in ",;\t" if {columns.user, columns.item} <= set(split_header(line, d)))
    return next(fitting, None)


def split_header(line: str, delimiter: str) -> list[str]:
    """The names in a header line; none in a line that is too long to be one."""
    try:
        return [name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return []


def _fixed(delimiter: str, order: tuple[str, ...], ended: bool = False) -> Separated:
    roles = {role: (order.index(role), role) for role in ("user", "item", "rating", "timestamp")}
    return Separated(delimiter, len(order), roles, ended=ended)


def _object(head: Head) -> dict[str, object]:
    try:
        found = json.loads(head.first)
    except (json.JSONDecodeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{head.name}, line 1: not a JSON object")
    return found


def _json(head: Head, keys: dict[str, str]) -> JsonLines:
    """The types are those of the first line; lines with others are read too, but more slowly."""
    first = _object(head)
    kinds = {}
    for role, key in keys.items():
        value = first.get(key)
        if isinstance(value, str):
            kinds[role] = pa.string()
        else:
            kinds[role] = pa.int64() if isinstance(value, int) and role != "rating" else pa.float64()
    return JsonLines({role: key for role, key in keys.items() if role in ("user", "item") or key in first}, kinds)


def _is_time(value: str) -> bool:
    found = number(value)
    return bool(ISO.fullmatch(value)) or (found is not None and found.is_integer() and found >= TIME_FROM)


TEXTS = ("*.txt", "*.tsv", "*.csv", "*.dat")
FORMATS = {
    "movielens": Format(
        "MovieLens u.data, ratings.dat, ratings.csv or RecBole .inter",
        ("u.data", "ratings.dat", "*_rating.dat", "ratings.csv", "*.inter"),
        movielens,
    ),
    "recbole": Format("RecBole atomic file .inter", ("*.inter",), recbole),
    "amazon-ratings-2014": Format(
        "Amazon 2014 ratings CSV without header: user,item,rating,time", ("*.csv",), amazon_ratings("user", "item")
    ),
    "amazon-ratings-2018": Format(
        "Amazon 2018 ratings CSV without header: item,user,rating,time", ("*.csv",), amazon_ratings("item", "user")
    ),
    "amazon-reviews": Format(
        "Amazon reviews: JSON lines of 2014, 2018, 2023, or CSV of 2023", ("*.json", "*.jsonl", "*.csv"), amazon_reviews
    ),
    "gowalla": Format("SNAP check-ins: user, time, latitude, longitude, location, by tabs", ("*.txt",), gowalla),
    "pairs": Format("user item [rating] [timestamp] per line, by tab, comma, semicolon or space", TEXTS, pairs),
    "lists": Format("user item item ... per line, in no order (LightGCN)", TEXTS, lists(ordered=False)),
    "counted-lists": Format("count item item ... per line, line k is user k (CiteULike)", TEXTS, counted_lists),
    "sequences": Format("user item item ... per line, oldest item first (S3Rec)", TEXTS, lists(ordered=True)),
    "padded-sequences": Format(
        "items per line, oldest first, 0 before them, line k is user k", TEXTS, padded_sequences
    ),
    "ir-benchmark": Format("user_procid and item_procid by tab, with lists of original ids", ("*.tsv",), ir_benchmark),
    "csv": Format("text with a header line, by comma, semicolon or tab; columns are named", TEXTS, named_csv),
    "json": Format("JSON lines; keys are named as columns", ("*.json", "*.jsonl", "*.ndjson"), named_json),
    "parquet": Format("Parquet; columns are named", ("*.parquet",), None),
}
