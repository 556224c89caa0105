"""Lines of text without comments and superfluous blanks, many at a time."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_BLANKS = bytes.maketrans(b"\t\r", b"  ")


def without_comments(text: bytes) -> tuple[bytes, pa.Array]:
    """The lines without what follows ``#``, and that of each line."""
    characters = np.frombuffer(text, np.uint8)
    ends, hashes = positions_of_ends(text), np.flatnonzero(characters == ord("#"))
    commented, first = np.unique(np.searchsorted(ends, hashes), return_index=True)
    begins = ends.copy()
    begins[commented] = hashes[first]
    change = np.zeros(len(characters), np.int8)
    change[hashes[first]] += 1
    change[ends[commented]] -= 1
    inside = np.cumsum(change, dtype=np.int8).astype(bool)
    offsets = np.concatenate([[0], np.cumsum(ends - begins)])
    buffers: list[Any] = [None, pa.py_buffer(offsets.astype(np.int64)), pa.py_buffer(characters[inside].tobytes())]
    comments = pa.Array.from_buffers(pa.large_binary(), len(ends), buffers)
    return characters[~inside].tobytes(), _text(comments)


def _text(values: pa.Array) -> pa.Array:
    """As strings, what is not UTF-8 replaced."""
    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([value.decode(errors="replace") for value in values.to_pylist()], pa.string())


def single_blanks(text: bytes) -> bytes:
    """Lines with one blank between values, and none around them."""
    if b"\t" in text or b"\r" in text:
        text = text.translate(_BLANKS)
    while b"  " in text:
        text = text.replace(b"  ", b" ")
    return text.replace(b" \n", b"\n").replace(b"\n ", b"\n").removeprefix(b" ")


def positions_of_ends(text: bytes) -> NDArray[np.int64]:
    """Where the line ends are."""
    return np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n"))
