"""The preparation of a dataset: the steps in order, their counts, and the folder they end in."""

import json
from collections.abc import Callable
from hashlib import file_digest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.prepare import blocks as do
from pipelines.prepare.dataset import MANIFEST, SCHEMA_VERSION, SPLITS, Fingerprint, load
from pipelines.prepare.engines import Engine, running
from pipelines.prepare.folder import ShardWriter, staging, write
from pipelines.prepare.readers import Source, sources
from recloss.errors import InputError

if TYPE_CHECKING:
    from pipelines.settings import PrepareSettings


def prepare(
    raw: Path,
    out: Path,
    settings: "PrepareSettings",
    *,
    engine: Literal["auto", "local", "ray"] = "auto",
    on_step: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Write the prepared dataset ``out`` from the file or folder ``raw`` and return its manifest.

    Steps: read; drop ratings below ``min_rating``; keep one of repeated (user, item) pairs; k-core to the
    fixed point; index users and items; split per user; write. The files are the same, byte for byte, for both
    engines and for any order of rows or division of the log into files (the manifest names the source files).
    ``auto`` starts Ray for raw files above ``LOCAL_BYTES``; its workers read ``raw`` at the same path, the caller
    writes ``out``. If ``out`` is what this call would write, nothing is done.

    Raises:
        InputError: the log cannot be read, nothing is left after a step, or ``out`` holds something else.
    """
    say = on_step or (lambda _: None)
    log = sources(raw, settings, say)
    origin: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "task": "pairs",
        "sources": [_checksum(source.path) for source in log],
        "settings": settings.content(),
    }
    if _occupied(out):
        return _unchanged(out, origin, say)
    size = sum(source["bytes"] for source in origin["sources"])
    with staging(out) as folder, running(engine, size) as chosen:
        manifest = origin | _Preparation(chosen, settings, raw, say).run(log, folder)
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        try:
            folder.rename(out)
        except OSError:
            if not _occupied(out):
                raise
            return _unchanged(out, origin, say)  # written meanwhile by another run
    say(f"wrote {out}")
    return manifest


def _checksum(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        return {
            "name": file.name,
            "bytes": file.stat().st_size,
            "sha256": file_digest(stream, "sha256").hexdigest(),
        }


def _occupied(out: Path) -> bool:
    return out.exists() and not (out.is_dir() and not any(out.iterdir()))


def _unchanged(out: Path, origin: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """The manifest of what is in ``out``, if it has this origin."""
    advice = "remove it or choose another --out"
    try:
        manifest = load(out).manifest
    except InputError as error:
        raise InputError(f"{error}; {advice}") from None
    changed = [key for key in origin if manifest.get(key) != origin[key]]
    if changed:
        raise InputError(f"{out}: prepared before with other {' and '.join(changed)}; {advice}")
    say(f"unchanged: {out}")
    return manifest


class _Preparation:
    """One run: the engine, the settings, and the counts of the steps done so far."""

    def __init__(self, engine: Engine, settings: "PrepareSettings", raw: Path, say: Callable[[str], None]):
        self.engine = engine
        self.settings = settings
        self.raw = raw
        self.say = say
        self.steps: list[dict[str, Any]] = []

    def run(self, log: list[Source], folder: Path) -> dict[str, Any]:
        """Do all steps, write into ``folder`` and return the manifest's sizes, steps and fingerprint."""
        engine, settings = self.engine, self.settings
        blocks = engine.read(log)
        ids, orders = zip(*(_in_order(keys) for keys in self._ids(blocks)), strict=True)
        shape = (len(ids[0]), len(ids[1]))
        blocks = engine.map(blocks, do.encode, users=ids[0], items=ids[1])
        degrees = self._count(blocks, shape, "read", format=log[0].format)
        if settings.min_rating is not None:
            blocks = engine.map(blocks, do.at_least, min_rating=settings.min_rating)
            degrees = self._count(blocks, shape, "rating", min_rating=settings.min_rating)
        blocks = engine.map(engine.by_user(blocks), do.distinct)
        degrees = self._count(blocks, shape, "distinct")
        blocks, degrees = self._core(blocks, degrees)
        kept = [np.flatnonzero(degree) for degree in degrees]
        numbers = [(np.cumsum(degree > 0) - 1).astype(np.int32) for degree in degrees]
        blocks = engine.map(blocks, do.renumber, users=numbers[0], items=numbers[1])
        users, items = (side.take(pa.array(codes)) for side, codes in zip(ids, kept, strict=True))
        self._note("index", degrees, user_order=orders[0], item_order=orders[1])
        ratios = {
            "test_ratio": settings.test_ratio,
            "valid_ratio": settings.valid_ratio,
            "seed": settings.split_seed,
        }
        blocks = engine.map(blocks, do.split, **ratios)
        write(pa.table({"id": users}), folder / "users.parquet")
        write(pa.table({"id": items}), folder / "items.parquet")
        sizes, fingerprint = self._write(blocks, Fingerprint(users, items), folder)
        self._note("split", degrees, **sizes)
        return {
            "sizes": {"users": len(users), "items": len(items), **sizes},
            "steps": self.steps,
            "fingerprint": fingerprint,
        }

    def _ids(self, blocks: Any) -> list[pa.Array]:
        """The distinct user ids and item ids of the log."""
        tallies = pa.concat_tables(self.engine.tables(self.engine.map(blocks, do.tally)))
        return [pc.unique(tallies.filter(pc.equal(tallies["side"], side))["key"]) for side in (0, 1)]

    def _core(self, blocks: Any, degrees: list[NDArray[np.int64]]) -> tuple[Any, list[NDArray[np.int64]]]:
        """Drop users and items with fewer than k interactions until there are none; a pass drops both."""
        k, passes = self.settings.k_core, 0
        while any(((degree > 0) & (degree < k)).any() for degree in degrees):
            users, items = (degree >= k for degree in degrees)
            blocks = self.engine.map(blocks, do.keep, users=users, items=items)
            degrees = self._degrees(blocks, (len(users), len(items)))
            passes += 1
        self._note("k_core", degrees, k=k, passes=passes)
        return blocks, degrees

    def _count(self, blocks: Any, shape: tuple[int, int], step: str, **details: Any) -> list[NDArray[np.int64]]:
        degrees = self._degrees(blocks, shape)
        self._note(step, degrees, **details)
        return degrees

    def _degrees(self, blocks: Any, shape: tuple[int, int]) -> list[NDArray[np.int64]]:
        """Interactions per user and per item, summed over the blocks."""
        degrees = [np.zeros(size, np.int64) for size in shape]
        for tally in self.engine.tables(self.engine.map(blocks, do.tally)):
            sides, keys, counts = (column.to_numpy() for column in tally.columns)
            for side, degree in enumerate(degrees):
                np.add.at(degree, keys[sides == side], counts[sides == side])
        return degrees

    def _note(self, step: str, degrees: list[NDArray[np.int64]], **details: Any) -> None:
        """Add a step to the manifest.

        Raises:
            InputError: the step left nothing.
        """
        users, items = (int((degree > 0).sum()) for degree in degrees)
        rows = int(degrees[0].sum())
        described = f"{step} ({', '.join(f'{key} {value}' for key, value in details.items())})" if details else step
        if rows == 0:
            before = "{rows:,} interactions of {users:,} users and {items:,} items".format(**self.steps[-1])
            raise InputError(f"{self.raw}: nothing is left after the step {described}; before it: {before}")
        self.steps.append({"step": step, "rows": rows, "users": users, "items": items, **details})
        self.say(f"{described}: {rows:,} interactions, {users:,} users, {items:,} items")

    def _write(self, blocks: Any, fingerprint: Fingerprint, folder: Path) -> tuple[dict[str, int], str]:
        """Write the shards of the splits; returns their sizes and the fingerprint.

        Raises:
            InputError: a split would be empty.
        """
        writers = {split: ShardWriter(folder / split) for split in SPLITS}
        last = -1
        for table in self.engine.tables(blocks):
            first, end = pc.min_max(table["user"]).as_py().values()
            if first <= last:
                raise RuntimeError(f"blocks out of order: user {first} after user {last}")
            last = end
            which = table["split"]
            table = table.drop_columns("split")
            if "rating" in table.column_names:
                at = table.column_names.index("rating")
                table = table.set_column(at, "rating", table["rating"].cast(pa.float32()))
            for code, split in enumerate(SPLITS):
                part = table.filter(pc.equal(which, code))
                writers[split].add(part)
                fingerprint.add(split, part["user"].to_numpy(), part["item"].to_numpy())
        for split, writer in writers.items():
            writer.close()
            if writer.written == 0:
                raise InputError(f"{self.raw}: the {split} split would be empty, the users have too few interactions")
        return {split: writer.written for split, writer in writers.items()}, fingerprint.hexdigest()


def _in_order(ids: pa.StringArray) -> tuple[pa.Array, str]:
    """Sorted ids and the order: ``integer`` if all are decimal integers below 10^18, else ``bytes``."""
    texts = pa.table({"id": ids})
    if not pc.all(pc.match_substring_regex(texts["id"], r"^-?[0-9]{1,18}$")).as_py():
        return texts.sort_by("id")["id"].combine_chunks(), "bytes"
    numbered = texts.append_column("number", texts["id"].cast(pa.int64()))
    return numbered.sort_by([("number", "ascending"), ("id", "ascending")])["id"].combine_chunks(), "integer"
