"""A made log of any length for `prepare.py`: Zipf-distributed users and items, ratings, timestamps; seeded.

python benchmarks/made_log.py ROWS FILE
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

ROWS_PER_USER, ROWS_PER_ITEM = 12, 60
USER_EXPONENT, ITEM_EXPONENT = 0.8, 1.0
STARS = (0.06, 0.10, 0.22, 0.34, 0.28)
"""Shares of the ratings 1 to 5."""
PIECE = 2**20
SEED = 20260101


def write_log(file: Path, rows: int) -> None:
    """A CSV file with the header ``user,item,rating,timestamp``, 26 bytes a row; the same bytes for the same rows.

    The n-th of rows/12 users and of rows/60 items are drawn with probabilities proportional to n^-0.8 and n^-1; ids
    are numbers in an order of their own. Of 10 million rows, 16 % are rated below 3, 17 % of the rest are repeated
    pairs, and the 10-core keeps 3.7 million.
    """
    rng = np.random.default_rng(SEED)
    sides = [
        (_cumulative(rows // per, exponent), rng.permutation(rows // per).astype(np.int32))
        for per, exponent in ((ROWS_PER_USER, USER_EXPONENT), (ROWS_PER_ITEM, ITEM_EXPONENT))
    ]
    schema = pa.schema({"user": pa.int32(), "item": pa.int32(), "rating": pa.float32(), "timestamp": pa.int64()})
    with pa.csv.CSVWriter(file, schema, write_options=pa.csv.WriteOptions(quoting_style="none")) as writer:
        for start in range(0, rows, PIECE):
            n = min(PIECE, rows - start)
            users, items = (names[np.searchsorted(sums, rng.random(n))] for sums, names in sides)
            stars = rng.choice(np.arange(1, 6, dtype=np.float32), n, p=STARS)
            seconds = rng.integers(1_000_000_000, 1_700_000_000, n)
            writer.write_table(pa.table([users, items, stars, seconds], schema=schema))


def _cumulative(n: int, exponent: float) -> np.ndarray:
    """Cumulative probabilities of n ranks, each proportional to its rank to the power of -exponent."""
    sums = np.cumsum(np.arange(1, n + 1) ** -exponent)
    return sums / sums[-1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=int)
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    write_log(arguments.file, arguments.rows)
