"""Which format a file has, where that is certain."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.prepare.readers.formats import (
    AMAZON,
    INTER,
    PROCESSED,
    RATINGS_CSV,
    header_delimiter,
    pair_roles,
)
from pipelines.prepare.readers.head import ITEM, USER, Head, Table, number, table, whole
from pipelines.prepare.readers.times import ISO

if TYPE_CHECKING:
    from pipelines.settings import Columns

ASIN = re.compile(r"B[0-9A-Z]{9}|\d{9}[\dX]")
REVIEWER = re.compile(r"A[0-9A-Z]{10,}")
LISTS = {"lists": "user item item ... in no order", "sequences": "user item item ..., oldest item first"}


def formats_of(head: Head, columns: "Columns") -> dict[str, str]:
    """The formats a file may have, each with what speaks for it; several if its lines do not tell them apart."""
    columns_given = columns != type(columns)()
    if head.first.startswith("{"):
        return _of_json(head, columns)
    by_name = header_delimiter(head.first, columns) is not None
    if columns_given and by_name:
        return {"csv": "the named columns in its header"}
    if head.first == ",".join(RATINGS_CSV.values()):
        return {"movielens": "its header"}
    names = set(head.first.split("\t"))
    if {INTER["user"], INTER["item"]} <= names:
        return {"movielens": "its header"}
    if set(PROCESSED.values()) <= names:
        return {"ir-benchmark": "its header"}
    if {AMAZON[1]["user"], AMAZON[1]["item"]} <= set(head.first.split(",")):
        return {"amazon-reviews": "its header"}
    if _is_movielens(head.first):
        return {"movielens": "user, item, rating, time on the first line"}
    if by_name:
        return {"csv": "the columns user and item in the header"}
    found = table(head)
    if found is None:
        return {}
    return _of_rows(found) if found.regular else _of_lists(head)


def formats_of_parts(heads: Sequence[Head], columns: "Columns") -> dict[str, str]:
    """The formats that all files of a given split may have; in such files lists are in no order."""
    each = [formats_of(head, columns) for head in heads]
    options = [set(found) - {"sequences"} for found in each]
    two = [found == {"pairs"} and len(head.first.split()) == 2 for head, found in zip(heads, options, strict=True)]
    if not all(two):  # a list of one item looks like a pair
        options = [found | {"lists"} if is_two else found for found, is_two in zip(options, two, strict=True)]
    common = set.intersection(*options)
    return {name: reason for found in reversed(each) for name, reason in found.items() if name in common}


def _of_json(head: Head, columns: "Columns") -> dict[str, str]:
    for keys in AMAZON:
        if all(f'"{keys[role]}"' in head.first for role in ("user", "item")):
            return {"amazon-reviews": f"the keys {keys['user']} and {keys['item']}"}
    if all(f'"{name}"' in head.first for name in (columns.user, columns.item)):
        return {"json": f"the keys {columns.user} and {columns.item}"}
    return {}


def _is_movielens(line: str) -> bool:
    """Whether a first line has four values of the right kinds, separated by ``::`` or tabs."""
    values = line.split("::" if "::" in line else "\t")
    if len(values) != 4:
        return False
    user, item, rating, timestamp = values
    return all(whole(value) for value in (user, item, timestamp)) and rating.replace(".", "", 1).isdecimal()


def _of_rows(found: Table) -> dict[str, str]:
    """Formats with the same number of values on every line."""
    if found.delimiter == "\t" and found.width == 5 and found.share(1, ISO.fullmatch):
        return {"gowalla": "user, time, latitude, longitude and location on every line"}
    if found.width > 4:
        return _of_padded(found)
    if found.header is not None:
        words = found.named(0, USER) and found.named(1, ITEM)
        swapped = found.named(0, ITEM) and found.named(1, USER)
        return {"pairs": "its header"} if words or swapped else {}
    if any(
        not found.share(at, lambda value: number(value) is not None or ISO.fullmatch(value))
        for at in range(2, found.width)
    ):
        return {}
    if found.delimiter == "," and found.width == 4:
        return _of_amazon(found)
    if not (found.share(0, whole) and found.share(1, whole)):
        return {}
    roles = pair_roles(found)
    seen = f"{', '.join(sorted(roles, key=lambda role: roles[role]))} on every line"
    users = [row[0] for row in found.rows]
    if found.delimiter in " \t" and found.width == 3 and "rating" in roles and len(set(users)) == len(users):
        return {"pairs": seen} | LISTS
    return {"pairs": seen}


def _of_amazon(found: Table) -> dict[str, str]:
    """Four values by commas: which of the first two is the user is told by the form of Amazon's ids only."""
    first = {
        "amazon-ratings-2014": (REVIEWER, ASIN),
        "amazon-ratings-2018": (ASIN, REVIEWER),
    }
    for name, forms in first.items():
        if all(found.share(at, form.fullmatch) for at, form in enumerate(forms)):
            return {name: f"{'user' if name.endswith('4') else 'item'} ids in the first column"}
    return {"pairs": "user first", "amazon-ratings-2014": "user first", "amazon-ratings-2018": "item first"}


def _of_padded(found: Table) -> dict[str, str]:
    zeros = any("0" in row for row in found.rows)
    left = all(row == sorted(row, key=lambda value: value != "0") for row in found.rows)
    if zeros and left and all(found.share(at, whole) for at in range(found.width)):
        return {"padded-sequences": "whole numbers with 0 on the left only"}
    return {}


def _of_lists(head: Head) -> dict[str, str]:
    """Formats with a number of values that differs from line to line."""
    lines = [line.split() for line in head.lines]
    if not all(whole(value) for line in lines for value in line):
        return {}
    if not all(line and int(line[0]) == len(line) - 1 for line in lines):
        return LISTS
    counted = {"counted-lists": "the first number of every line counts the others"}
    return counted if len(lines) > 2 else counted | LISTS
