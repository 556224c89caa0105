"""Ids of users and items: dictionaries of one block, and the index that numbers those of the whole log."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_SPREAD = 8
"""Integers are looked up in a table if their range is at most this many times their number."""


def integers(texts: pa.Array) -> NDArray[np.int64] | None:
    """The numbers that ``texts`` (strings, none missing) are, or None if one is not the usual form of an int64.

    The usual form is the one Python prints: no leading zeros, no plus sign, no blanks.
    """
    characters = np.frombuffer(texts.buffers()[2] or b"", np.uint8)[slice(*_extent(texts))]
    if len(texts) == 0 or characters.max(initial=0) > ord("9"):
        return None
    try:
        numbers = texts.cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid:
        return None
    return numbers if len(characters) == _digits(numbers) else None


def _extent(texts: pa.Array) -> tuple[int, int]:
    """Where the characters of ``texts`` lie in its buffer."""
    offsets = np.frombuffer(texts.buffers()[1] or bytes(4), np.int32)
    return offsets[texts.offset], offsets[texts.offset + len(texts)] if len(texts) else offsets[texts.offset]


def _digits(numbers: NDArray[np.int64]) -> int:
    """Characters needed to print all numbers; no other way to write an integer needs fewer."""
    characters = len(numbers) + np.count_nonzero(numbers < 0)
    sizes = np.abs(numbers).view(np.uint64)  # the absolute value of -2^63 is 2^63 here
    power, largest = 10, int(sizes.max())
    while power <= largest:
        characters += np.count_nonzero(sizes >= power)
        power *= 10
    return int(characters)


def dictionary(ids: pa.Array) -> pa.DictionaryArray:
    """Dictionary-encode ids; integers that are written as strings several times as fast as other strings."""
    numbers = integers(ids) if pa.types.is_string(ids.type) and not ids.null_count else None
    if numbers is None:
        return ids.dictionary_encode()
    values, (codes,) = _merged([numbers])
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(values).cast(pa.string()))


@dataclass(frozen=True, eq=False)
class Index:
    """All ids of one side in their order, and where the ids of each list they came from are in it."""

    ids: pa.Array
    order: str
    """``integer``: by number, then by bytes, if all are decimal integers below 10^18; else ``bytes``."""
    places: list[NDArray[np.int32]]
    """Of each list: the index of each of its ids."""

    @staticmethod
    def of(lists: Sequence[pa.Array]) -> "Index":
        """Number the ids of several lists (strings), at least one; an id may be in more than one list."""
        numbers = [integers(ids) if len(ids) else np.zeros(0, np.int64) for ids in lists]
        usual = [n for n in numbers if n is not None and n.min(initial=0) > -(10**18) and n.max(initial=0) < 10**18]
        if len(usual) == len(lists):
            values, places = _merged(usual)
            return Index(pa.array(values).cast(pa.string()), "integer", places)
        whole = pa.chunked_array([_as_dictionary(ids) for ids in lists]).unify_dictionaries()
        texts = whole.chunk(0).dictionary
        sequence, order = _order(texts)
        rank = np.empty(len(texts), np.int32)
        rank[sequence] = np.arange(len(texts), dtype=np.int32)
        return Index(texts.take(pa.array(sequence)), order, [rank[c.indices.to_numpy()] for c in whole.chunks])


def _merged(lists: list[NDArray[np.int64]]) -> tuple[NDArray[np.int64], list[NDArray[np.int32]]]:
    """The distinct numbers of all lists in ascending order, and the places of each list's numbers among them."""
    filled = [numbers for numbers in lists if len(numbers)]
    low, high = min(int(n.min()) for n in filled), max(int(n.max()) for n in filled)
    if high - low >= _SPREAD * sum(map(len, filled)):
        values = np.unique(np.concatenate(filled))
        return values, [np.searchsorted(values, numbers).astype(np.int32) for numbers in lists]
    seen = np.zeros(high - low + 1, np.bool_)
    for numbers in filled:
        seen[numbers - low] = True
    before = _before(seen)
    return (np.flatnonzero(seen) + low).astype(np.int64), [before[numbers - low] for numbers in lists]


def _before(seen: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The place of each marked position among the marked ones."""
    places: NDArray[np.int32] = np.cumsum(seen, dtype=np.int32)
    places -= 1
    return places


def _as_dictionary(ids: pa.Array) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.arange(len(ids), dtype=np.int32)), ids)


def _order(texts: pa.Array) -> tuple[NDArray[np.int64], str]:
    if not pc.all(pc.match_substring_regex(texts, r"^-?[0-9]{1,18}$")).as_py():
        return pc.sort_indices(texts).to_numpy(), "bytes"
    numbered = pa.table({"id": texts, "number": texts.cast(pa.int64())})
    return pc.sort_indices(numbered, [("number", "ascending"), ("id", "ascending")]).to_numpy(), "integer"
