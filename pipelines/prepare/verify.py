"""Whether a prepared dataset is what its manifest says: every file is read again, one batch in memory at a time."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import file_digest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.doctor import Check
from pipelines.prepare.dataset import (
    MANIFEST,
    POOL,
    ROWS,
    SIDES,
    SPLITS,
    Fingerprint,
    parts,
    read_manifest,
    shard_files,
)
from pipelines.prepare.graphs.store import NEGATIVES, extra_files
from pipelines.prepare.graphs.verify import extra_checks
from pipelines.prepare.ranking.verify import whole_queries
from pipelines.prepare.run import BAD_ROWS
from pipelines.prepare.verify_order import Places
from pipelines.prepare.verify_rows import out_of_range, unusable
from recloss.errors import InputError

BATCH_ROWS = 2**20
AGAIN = "remove it and prepare it again"

Keys = NDArray[np.int64]
"""A number per (user, item) pair, ascending with the order of pairs."""


def verify(path: Path, raw: Path | None = None) -> list[Check]:
    """A check per thing that the manifest says; with ``raw``, also that the raw files are the ones it was made from.

    The pairs of validation, test and pool are held in memory, those of train are not; of sequences none.

    Raises:
        InputError: there is no prepared dataset at all, or no ``raw``.
    """
    if not (path / MANIFEST).is_file():
        read_manifest(path)
    if raw is not None and not raw.exists():
        raise InputError(f"{raw}: no such file or folder")
    try:
        manifest = read_manifest(path)
    except InputError as error:
        return [Check("manifest", False, str(error), AGAIN)]
    return _Verification(path, manifest).checks() + ([_sources(manifest, raw)] if raw else [])


@dataclass
class _Part:
    """What was seen of a split or the pool."""

    name: str
    rows: int = 0
    shards: int = 0
    problems: list[str] = field(default_factory=list)
    keys: list[Keys] = field(default_factory=list)
    common: dict[str, int] = field(default_factory=dict)
    """Pairs that are also in another part, by its name."""


class _Verification:
    """One prepared dataset."""

    def __init__(self, path: Path, manifest: dict[str, Any]):
        self.path, self.manifest, self.sizes = path, manifest, manifest["sizes"]
        self.fingerprint: Fingerprint | None = None
        self.task = manifest.get("task", "pairs")
        self.places = Places(self.sizes["users"]) if self.task == "sequence" else None

    def checks(self) -> list[Check]:
        ids = {side: self._ids(side) for side in SIDES}
        readable = [found for _, found in ids.values() if found is not None]
        if len(readable) == len(SIDES):
            self.fingerprint = Fingerprint(readable[0], readable[1], self.task)
        names = parts(self.sizes)
        seen: dict[str, _Part] = {}
        for name in sorted(names, key=["test", "valid", POOL, "train"].index):  # train last: its pairs are not kept
            seen[name] = self._part(name, list(seen.values()))
        return [
            self._steps(),
            *(check for check, _ in ids.values()),
            *(self._of_part(seen[name]) for name in names),
            self._overlap(seen) if self.places is None else _order(self.places),
            *self._of_task(),
            self._fingerprint(),
            self._others(),
        ]

    def _steps(self) -> Check:
        """The manifest agrees with itself."""
        total = sum(self.sizes[split] for split in SPLITS)
        try:
            left = int(self.manifest["steps"][-1]["rows"])
        except (KeyError, IndexError, TypeError, ValueError):
            return Check("manifest", False, "it does not say what the steps left", AGAIN)
        detail = f"the last step left {left:,} {ROWS[self.task]}, the splits have {total:,}"
        return Check("manifest", left == total, detail, AGAIN)

    def _ids(self, side: str) -> tuple[Check, pa.Array | None]:
        """The number of ids, all different; of users also that they are hashed where the settings say so."""
        file = self.path / f"{side}.parquet"
        try:
            table = pq.read_table(file, partitioning=None)
        except (pa.ArrowInvalid, OSError) as error:
            return Check(side, False, f"{file.name}: cannot be read ({_one_line(error)})", AGAIN), None
        if table.schema.remove_metadata() != pa.schema([("id", pa.string())]) or table["id"].null_count:
            return Check(side, False, f"{file.name}: expected one column, id (string), without gaps", AGAIN), None
        ids = table["id"].combine_chunks()
        different = pc.count_distinct(ids).as_py()
        problems = [] if len(ids) == self.sizes[side] else [f"the manifest says {self.sizes[side]:,}"]
        problems += [] if different == len(ids) else [f"only {different:,} are different"]
        if side == "users" and self.manifest["settings"].get("hash_ids"):
            plain = len(ids) - pc.sum(pc.match_substring_regex(ids, "^[0-9a-f]{64}$")).as_py()
            problems += [f"{plain:,} are not hashed"] if plain else []
        return Check(side, not problems, "; ".join([f"{len(ids):,} ids", *problems]), AGAIN), ids

    def _part(self, name: str, others: list[_Part]) -> _Part:
        """Read a split from the first to the last row."""
        part = _Part(name)
        kept = {other.name: np.sort(np.concatenate([*other.keys, np.empty(0, np.int64)])) for other in others}
        last = -1
        for file, batch in self._batches(part):
            if problem := unusable(batch, self.task, self.sizes):
                part.problems.append(f"{file}: {problem}")
                self.fingerprint = None
                continue
            part.problems += [f"{file}: {problem}" for problem in out_of_range(batch)]
            users, second = (batch[name].to_numpy().astype(np.int64) for name in ("user", self._second))
            keys = users << 32 | second
            steps = np.diff(keys, prepend=last)
            last = int(keys[-1])
            for at in np.flatnonzero(steps <= 0)[:1]:
                again = "repeats the pair before it" if self.places is None else "repeats the position before it"
                what = again if steps[at] == 0 else f"is not in the order of user and {self._second}"
                part.problems.append(f"{file}: row {part.rows + at + 1:,} of the split {what}")
            if self.places is not None:
                self.places.add(name, users, second)
            else:
                for other, pairs in kept.items():
                    part.common[other] = part.common.get(other, 0) + _inside(pairs, keys)
                if name != "train":
                    part.keys.append(keys)
            if self.fingerprint is not None:
                self.fingerprint.add(name, pa.Table.from_batches([batch]))
        return part

    def _batches(self, part: _Part) -> Iterator[tuple[str, pa.RecordBatch]]:
        """The batches of all shards that have rows, with the file of each."""
        for file in shard_files(self.path / part.name):
            part.shards += 1
            try:
                with pq.ParquetFile(file) as shard:
                    for batch in shard.iter_batches(self._batch_rows):
                        if batch.num_rows:
                            yield f"{part.name}/{file.name}", batch
                        part.rows += batch.num_rows
            except (pa.ArrowInvalid, OSError) as error:
                part.problems.append(f"{part.name}/{file.name}: cannot be read ({_one_line(error)})")
                self.fingerprint = None

    @property
    def _batch_rows(self) -> int:
        """Rows that are in memory at a time; of documents with features fewer."""
        return BATCH_ROWS if self.task != "rank" else max(16 * BATCH_ROWS // self.sizes["features"], 1)

    @property
    def _second(self) -> str:
        """What rows are in the order of after the user."""
        return "item" if self.places is None else "position"

    def _of_part(self, part: _Part) -> Check:
        stated = self.sizes[part.name]
        problems = part.problems + ([] if part.rows == stated else [f"the manifest says {stated:,}"])
        shards = f"{part.shards} shard{'' if part.shards == 1 else 's'}"
        fine = [f"sorted, no {'pair' if self.places is None else 'position'} twice, all in range"]
        detail = "; ".join([f"{part.rows:,} {ROWS[self.task]} in {shards}", *(problems[:3] or fine)])
        return Check(part.name, not problems, detail, AGAIN)

    def _overlap(self, seen: dict[str, _Part]) -> Check:
        """No pair is in two splits; the pool is taken from train, or copied if the settings say so."""
        noise = self.manifest["settings"].get("noise") or {}
        copied = self.sizes[POOL] if noise.get("keep_as_positive") else 0
        shared = {(part.name, other): n for part in seen.values() for other, n in part.common.items()}
        wrong = [
            f"{n:,} pairs are in {one} and {other}"
            for (one, other), n in shared.items()
            if n != (copied if (one, other) == ("train", POOL) else 0)
        ]
        return Check("overlap", not wrong, "; ".join(wrong) or "no pair is in two splits", AGAIN)

    def _of_task(self) -> list[Check]:
        """What only lists of documents or only graphs have."""
        if self.task == "rank":
            return [whole_queries(self.path)]
        if self.task != "link":
            return []
        checks, tables = extra_checks(self.path, self.sizes)
        if not all(check.ok for check in checks):
            self.fingerprint = None
        if self.fingerprint is not None:
            for name, table in tables.items():
                self.fingerprint.add_file(name, table)
        return checks

    def _fingerprint(self) -> Check:
        stated = self.manifest["fingerprint"]
        if self.fingerprint is None:
            return Check("fingerprint", False, "not computed, a file cannot be read", AGAIN)
        found = self.fingerprint.hexdigest()
        same = f"{stated[:12]}, computed again from the files"
        detail = same if found == stated else f"the content has {found}, the manifest says {stated}"
        return Check("fingerprint", found == stated, detail, AGAIN)

    def _others(self) -> Check:
        """Nothing is there that does not belong to it."""
        extra = extra_files(self.sizes) if self.task == "link" else {}
        known = {MANIFEST, *(f"{side}.parquet" for side in SIDES), *parts(self.sizes), BAD_ROWS}
        known |= {name.partition("/")[0] for name in extra}
        others = sorted(entry.name for entry in self.path.iterdir() if entry.name not in known)
        for part in parts(self.sizes):
            files = {file.name for file in shard_files(self.path / part)}
            folder = self.path / part
            others += (
                sorted(f"{part}/{e.name}" for e in folder.iterdir() if e.name not in files) if folder.is_dir() else []
            )
        if self.task == "link":
            inside = (f"{NEGATIVES}/{entry.name}" for entry in (self.path / NEGATIVES).glob("*"))
            others += sorted(name for name in inside if name not in extra)
        detail = f"also here: {', '.join(others)}" if others else "nothing else is in the folder"
        return Check("other files", not others, detail, "they are never read; remove them", required=False)


def _order(places: Places) -> Check:
    """Each sequence is there from its first position to its last."""
    broken = places.broken()
    fine = "every sequence is complete, train before validation before test"
    return Check(
        "order", not broken, f"{broken:,} sequences are not complete or not in order" if broken else fine, AGAIN
    )


def _inside(pairs: Keys, keys: Keys) -> int:
    """How many of ``keys`` are among the sorted ``pairs``."""
    if not len(pairs):
        return 0
    return int((pairs[np.minimum(np.searchsorted(pairs, keys), len(pairs) - 1)] == keys).sum())


def _sources(manifest: dict[str, Any], raw: Path) -> Check:
    """The raw files are those that the dataset was made from."""
    wrong = []
    for source in manifest["sources"]:
        file = raw / source["name"] if raw.is_dir() else raw
        if len(manifest["sources"]) > 1 and not raw.is_dir():  # one of them is given, the others are beside it
            file = raw.with_name(source["name"])
        if not file.is_file():
            wrong.append(f"{source['name']} is missing")
            continue
        with file.open("rb") as stream:
            digest = file_digest(stream, "sha256").hexdigest()
        if digest != source["sha256"]:
            wrong.append(f"{file.name} has the SHA-256 {digest}, the manifest says {source['sha256']}")
    names = ", ".join(source["name"] for source in manifest["sources"])
    detail = "; ".join(wrong) or f"{names}: as when it was prepared"
    return Check("raw files", not wrong, detail, "prepare the dataset again from these files, or find the old ones")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
