"""Lists of ids that come with a given split: which original id each number in its files stands for."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pipelines.prepare.readers.streams import BLOCK_BYTES, BOM, File
from recloss.errors import InputError


@dataclass(frozen=True)
class Listed:
    """Original ids in the order of the numbers that stand for them."""

    users: pa.StringArray
    items: pa.StringArray


@dataclass(frozen=True)
class Numbering:
    """The two list files; small to pickle, read once per process."""

    user: File
    item: File

    @property
    def files(self) -> dict[str, File]:
        """The list file of each side."""
        return {"user": self.user, "item": self.item}

    def listed(self) -> Listed:
        """The lists.

        Raises:
            InputError: a list file is damaged.
        """
        return Listed(_ids(self.user), _ids(self.item))

    def originals(self, role: str, numbers: pa.StringArray) -> tuple[pa.StringArray, pa.BooleanArray]:
        """The original id of each number (null for what is not listed), and which are not listed."""
        ids = _ids(self.files[role])
        at = pc.index_in(numbers, value_set=_decimals(len(ids)))
        return ids.take(at), at.is_null()


@lru_cache(maxsize=4)
def _decimals(n: int) -> pa.StringArray:
    return pa.array(np.arange(n)).cast(pa.string())


@lru_cache(maxsize=4)
def _ids(file: File) -> pa.StringArray:
    """Original ids of a list file (header, then original id and number on each line, in any order)."""
    text = b"".join(file.pieces(BLOCK_BYTES)).removeprefix(BOM).rstrip(b"\r\n ")
    delimiter = "\t" if b"\t" in text[: text.find(b"\n")] else " "
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(text),
            pa.csv.ReadOptions(column_names=["id", "number"], skip_rows=1, use_threads=False),
            pa.csv.ParseOptions(delimiter=delimiter, quote_char=False),
            pa.csv.ConvertOptions(column_types={"id": pa.string(), "number": pa.int64()}, null_values=[]),
        )
    except pa.ArrowInvalid:
        raise InputError(
            f"{file.name}: not a list of ids: a header, then an original id and a number per line"
        ) from None
    ids = pc.ascii_trim_whitespace(table["id"].combine_chunks())
    order = np.argsort(table["number"].to_numpy(), kind="stable")
    numbers = table["number"].to_numpy()[order]
    wrong = np.flatnonzero(numbers != np.arange(len(numbers)))
    if len(wrong):
        raise InputError(f"{file.name}: the numbers are not 0 to {len(numbers) - 1}, each once ({wrong[0]} is missing)")
    if len(pc.unique(ids)) < len(ids):
        raise InputError(f"{file.name}: an original id is listed twice")
    return ids.take(order)
