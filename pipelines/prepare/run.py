"""The preparation of a dataset: the steps in order, their counts, and the folder they end in."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.prepare import sequences
from pipelines.prepare.clean import Refused, clean
from pipelines.prepare.dataset import Fingerprint
from pipelines.prepare.divide import Divided, divide
from pipelines.prepare.engines import Engine, running
from pipelines.prepare.folder import ShardWriter, occupied, publish, staging, write
from pipelines.prepare.noise import add_noise
from pipelines.prepare.origin import check_unchanged, found, origin_of, paths_of, states
from pipelines.prepare.readers import Source, sources
from pipelines.prepare.readers.times import MICRO
from pipelines.prepare.steps import Steps
from recloss.errors import InputError

if TYPE_CHECKING:
    from pipelines.settings import PrepareSettings

BAD_ROWS = "bad_rows.csv"
"""In a prepared dataset: the first rows that were skipped because they were malformed."""


def prepare(
    raw: Path,
    out: Path,
    settings: "PrepareSettings",
    *,
    engine: Literal["auto", "local", "ray"] = "auto",
    workers: int | None = None,
    memory: int | None = None,
    on_step: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Write the prepared dataset ``out`` from the log ``raw`` (a file, folder or zip) and return its manifest.

    Steps: read; drop ratings below ``min_rating``; keep one of repeated (user, item) pairs; k-core to the fixed
    point; index users and items; split; put noise into train; write. The files are the same, byte for byte, for both
    engines and for any order of rows or division of the log into files (the manifest names the source files).
    Of sequences repeated pairs stay, and the order of rows counts where their times are equal.
    ``auto`` starts Ray for raw files above ``LOCAL_BYTES``; its workers read ``raw`` at the same path, the caller
    writes ``out``. If ``out`` is what this call would write, nothing is done.

    Raises:
        InputError: the log cannot be read, nothing is left after a step, or ``out`` holds something else.
    """
    say = on_step or (lambda _: None)
    if settings.task in ("rank", "link"):
        from pipelines.prepare.whole import prepare_whole  # loads torch, which the workers that read logs do without

        return prepare_whole(raw, out, settings, engine, workers, say)
    log = sources(raw, settings, say)
    _check_columns(log, settings)
    files = states(paths_of(log))
    origin = origin_of(files, settings)
    if occupied(out):
        return found(out, origin, log[0].format, settings, say)
    size = sum(source["bytes"] for source in origin["sources"])
    with staging(out) as folder, running(engine, size, workers, memory) as chosen:
        manifest = origin | _steps(chosen, log, settings, raw, folder, say)
        check_unchanged(files)
        if not publish(folder, out, manifest):
            return found(out, origin, log[0].format, settings, say)
    say(f"wrote {out}")
    return manifest


_IN_TIME = {"temporal": ("timestamp",), "leave_last": ("timestamp", "position")}
"""Splits that need an order in time, and the columns that give it."""


def _check_columns(log: list[Source], settings: "PrepareSettings") -> None:
    """Refuse a split in time of a log without.

    Raises:
        InputError: naming the columns it needs.
    """
    needed = _IN_TIME.get(settings.split)
    if needed and not set(needed) & set(log[0].columns):
        raise InputError(
            f"{log[0].name}: split {settings.split} needs a {' or '.join(needed)} column; "
            "name it in the settings (columns.timestamp) or choose another split"
        )


def _steps(
    engine: Engine, log: list[Source], settings: "PrepareSettings", raw: Path, folder: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Do all steps, write into ``folder`` and return the manifest's sizes, steps and fingerprint."""
    steps = Steps(raw, say)
    cleaned = clean(engine, log, settings, steps.note)
    if cleaned.refused.count:
        say(_report(cleaned.refused, folder))
    divided = divide(engine, cleaned, settings, raw, steps.note)
    del cleaned  # and its blocks
    if settings.noise:
        divided = add_noise(engine, divided, settings.noise, raw, steps.note)
    users, items = divided.users, divided.items
    write(pa.table({"id": users}), folder / "users.parquet")
    write(pa.table({"id": items}), folder / "items.parquet")
    return {
        "sizes": {"users": len(users), "items": len(items), **divided.sizes},
        "steps": steps.done,
        **({"distinct": _distinct(engine, divided)} if settings.task == "sequence" else {}),
        "fingerprint": _write(engine, divided, folder, settings.task),
    }


def _distinct(engine: Engine, divided: Divided) -> dict[str, int]:
    """Distinct pairs in each split of sequences."""
    counts = pa.concat_tables(engine.tables(engine.map(divided.blocks, sequences.distinct)))
    return {split: pc.sum(counts[split]).as_py() for split in counts.column_names}


def _report(refused: Refused, folder: Path) -> str:
    """Write what is wrong with the rows that were skipped, as far as it was kept; returns a line that says so."""
    with (folder / BAD_ROWS).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["refused"], *([message] for message in refused.messages)])
    return f"{refused.count:,} bad rows left out; {BAD_ROWS} has the first {len(refused.messages):,}"


def _write(engine: Engine, divided: Divided, folder: Path, task: str) -> str:
    """Write the shards of the splits, and of the pool if there is one; returns the fingerprint."""
    writers = {part: ShardWriter(folder / part) for part in divided.sizes}
    fingerprint = Fingerprint(divided.users, divided.items, task)
    last = -1
    for table in engine.tables(divided.blocks):
        first, end = pc.min_max(table["user"]).as_py().values()
        if first <= last:
            raise RuntimeError(f"blocks out of order: user {first} after user {last}")
        last = end
        which = table["split"]
        table = table.drop_columns("split")
        if "rating" in table.column_names:
            at = table.column_names.index("rating")
            table = table.set_column(at, "rating", table["rating"].cast(pa.float32()))
        if task == "sequence" and "timestamp" in table.column_names:
            at = table.column_names.index("timestamp")
            table = table.set_column(at, "timestamp", pa.array(table["timestamp"].to_numpy() // MICRO))
        for code, part in enumerate(writers):
            rows = table.filter(pc.equal(which, code))
            writers[part].add(rows)
            fingerprint.add(part, rows)
    for writer in writers.values():
        writer.close()
    return fingerprint.hexdigest()
