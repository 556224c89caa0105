"""User ids are personal data: keyed hashes in their place, which nobody can invert or repeat without the key."""

import hmac
import os

import pyarrow as pa

from recloss.errors import InputError

VARIABLE = "RECLOSS_HASH_KEY"
LEAST_BYTES = 16


def hash_key() -> bytes:
    """The key in the environment.

    Raises:
        InputError: there is none, or it is short enough to be guessed.
    """
    key = os.environ.get(VARIABLE, "").encode()
    if len(key) < LEAST_BYTES:
        found = f"has {len(key)} bytes" if key else "is not set"
        raise InputError(
            f"hash_ids: the environment variable {VARIABLE} {found}; set it to a secret of at least {LEAST_BYTES} bytes"
        )
    return key


def check_value(key: bytes) -> str:
    """8 hex digits that tell whether two preparations had the same key, and nothing else of it."""
    return hmac.digest(key, b"recloss: check value of the key", "sha256").hex()[:8]


def hashed(block: pa.Table, key: bytes) -> pa.Table:
    """Replace the ids in the dictionaries of the column ``user`` by the hex digits of their HMAC-SHA256."""
    chunks = [
        pa.DictionaryArray.from_arrays(chunk.indices, hashed_ids(chunk.dictionary, key))
        for chunk in block["user"].chunks
    ]
    kind = pa.dictionary(pa.int32(), pa.string())
    return block.set_column(block.column_names.index("user"), "user", pa.chunked_array(chunks, kind))


def hashed_ids(ids: pa.Array, key: bytes) -> pa.Array:
    """The hashes of ids, null for null."""
    hashes = [None if id is None else hmac.digest(key, id.encode(), "sha256").hex() for id in ids.to_pylist()]
    return pa.array(hashes, pa.string())
