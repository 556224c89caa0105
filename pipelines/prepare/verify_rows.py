"""Whether rows of a prepared dataset are what its manifest says, a batch at a time."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

COLUMNS = {
    "user": pa.int32(),
    "item": pa.int32(),
    "rating": pa.float32(),
    "timestamp": pa.int64(),
    "position": pa.int64(),
    "grade": pa.float32(),
    "features": pa.list_(pa.float32(), 0),
}
"""What a shard has, in this order: rating, timestamp and position where the log has them, sequences always a position,
lists of documents a grade and as many features as the manifest says."""


def unusable(batch: pa.RecordBatch, task: str, sizes: dict[str, int]) -> str:
    """Other columns than a shard has, or an index out of range; empty if neither."""
    columns = COLUMNS | {"features": pa.list_(pa.float32(), sizes.get("features", 0))}
    there = set(batch.schema.names) | ({"grade", "features"} if task == "rank" else set())
    if batch.schema.names != [name for name in columns if name in there] or any(
        field.type != columns[field.name] for field in batch.schema
    ):
        return f"columns {', '.join(f'{field.name} ({field.type})' for field in batch.schema)}"
    for side, size in (("user", sizes["users"]), ("item", sizes["items"])):
        column = batch[side]
        least, most = pc.min_max(column).as_py().values()
        if column.null_count or least < 0 or most >= size:
            return f"{side} index out of range, the manifest has {size:,}"
    if task == "sequence":
        if "position" not in batch.schema.names:
            return "no column position"
        least, most = pc.min_max(batch["position"]).as_py().values()
        if batch["position"].null_count or least < 0 or most >= 2**31:
            return "a position is missing or out of range"
    return ""


def out_of_range(batch: pa.RecordBatch) -> list[str]:
    """What is wrong with values that are not indices; they may be missing where noise was added."""
    names = batch.schema.names
    problems = [f"a {name} below 0" for name in ("timestamp", "position") if name in names and _least(batch[name]) < 0]
    if "rating" in names and pc.all(pc.is_finite(batch["rating"])).as_py() is False:
        problems.append("a rating that is not finite")
    if "grade" in names and not _finite(batch["grade"], 0.0):
        problems.append("a grade that is not a number from 0")
    if "features" in names and not _finite(batch["features"].flatten(), -np.inf):
        problems.append("a feature that is not finite")
    return problems


def _finite(column: pa.Array, least: float) -> bool:
    """Whether all are finite numbers from ``least``, none missing."""
    values = column.fill_null(np.nan).to_numpy()
    return bool(np.isfinite(values).all() and (values >= least).all())


def _least(column: pa.Array) -> int:
    least = pc.min(column).as_py()
    return 0 if least is None else least
