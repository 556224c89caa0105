"""One run of one side of `prepare.py`, in a process of its own: prints its seconds and what was left.

    python benchmarks/prepare_sides.py SIDE LOG OUT [MEMORY]

Ratings from 3, the earliest of repeated pairs, the 10-core, indices, per user ceil(20 %) test and ceil(10 %) of the
rest validation, zstd Parquet. The clock starts when the libraries are imported (Ray is imported and started by
`prepare`: that counts) and stops when all files are written and Ray has ended.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

THREADS = 2
MIN_RATING, K = 3, 10


def recloss(engine: str) -> Callable[[Path, Path, int | None], tuple[int, int, int]]:
    """`recloss prepare` on an engine."""
    from pipelines.prepare import prepare
    from pipelines.settings import Columns, PrepareSettings

    settings = PrepareSettings(columns=Columns(rating="rating", timestamp="timestamp"), min_rating=MIN_RATING, k_core=K)

    def run(log: Path, out: Path, memory: int | None) -> tuple[int, int, int]:
        given = {"workers": THREADS, "memory": memory if engine == "ray" else None}
        sizes = prepare(log, out, settings, engine=engine, on_step=said, **given)["sizes"]  # type: ignore[arg-type]
        return sum(sizes[split] for split in ("train", "valid", "test")), sizes["users"], sizes["items"]

    return run


def polars(packed: bool) -> Callable[[Path, Path, int | None], tuple[int, int, int]]:
    """The same steps in polars; ``packed``: user and item are sorted as one number, several times as fast as two."""
    import polars as pl

    def first_of_pairs(log: pl.DataFrame) -> pl.DataFrame:
        if not packed:
            ordered = log.sort("user", "item", "timestamp", "rating")
            return ordered.unique(["user", "item"], keep="first", maintain_order=True)
        log = log.with_columns(pair=pl.col("user") * 2**32 + pl.col("item")).sort("pair", "timestamp", "rating")
        return log.filter(pl.col("pair") != pl.col("pair").shift(1).fill_null(-1)).drop("pair")

    def run(log: Path, out: Path, memory: int | None) -> tuple[int, int, int]:
        table = pl.read_csv(log).filter(pl.col("rating") >= MIN_RATING)
        said("rated")
        table = first_of_pairs(table)
        said("distinct")
        before = None
        while table.height != before:
            before = table.height
            table = table.filter((pl.len().over("user") >= K) & (pl.len().over("item") >= K))
        said("k_core")
        ids = [table.select(pl.col(side).unique().sort()).with_row_index(f"{side}_index") for side in ("user", "item")]
        for side, numbered in zip(("user", "item"), ids, strict=True):
            table = table.join(numbered, on=side, maintain_order="left")
        said("index")
        rest = (pl.len() - (pl.len() * 0.2).ceil()).over("user_index")
        table = table.with_columns(draw=pl.struct("user_index", "item_index").hash(0)).with_columns(
            place=pl.col("draw").rank("ordinal").over("user_index") - 1,
            test=pl.len().over("user_index") - rest,
            valid=(rest * 0.1).ceil(),
        )
        place, test, valid = (pl.col(name) for name in ("place", "test", "valid"))
        splits = {
            "test": place < test,
            "valid": (place >= test) & (place < test + valid),
            "train": place >= test + valid,
        }
        said("split")
        out.mkdir()
        columns = ["user_index", "item_index", pl.col("rating").cast(pl.Float32), "timestamp"]
        for split, rows in splits.items():
            table.filter(rows).select(columns).write_parquet(out / f"{split}.parquet", compression="zstd")
        for side, numbered in zip(("user", "item"), ids, strict=True):
            numbered.write_parquet(out / f"{side}.parquet")
        return table.height, ids[0].height, ids[1].height

    return run


SIDES: dict[str, Callable[[], Callable[[Path, Path, int | None], tuple[int, int, int]]]] = {
    "local": lambda: recloss("local"),
    "ray": lambda: recloss("ray"),
    "polars": lambda: polars(packed=False),
    "polars, pairs as one number": lambda: polars(packed=True),
}


def said(step: str) -> None:
    print(f"{time.perf_counter() - started:7.2f} s  {step}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    side, log, out, *memory = sys.argv[1:]
    run = SIDES[side]()
    started = time.perf_counter()
    left = run(Path(log), Path(out), int(memory[0]) if memory else None)
    print(json.dumps({"seconds": time.perf_counter() - started, "left": left}))
