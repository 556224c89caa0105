"""The first half of a preparation: read, drop what is filtered out, keep one of repeated pairs, k-core, index."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.prepare import blocks as do
from pipelines.prepare import sequences
from pipelines.prepare.catalogue import catalogue
from pipelines.prepare.engines import Engine
from pipelines.prepare.hash_ids import hash_key, hashed, hashed_ids
from pipelines.prepare.ids import Index
from pipelines.prepare.readers import Source, listed
from pipelines.prepare.steps import Degrees
from recloss.errors import InputError

if TYPE_CHECKING:
    from pipelines.settings import PrepareSettings


@dataclass(frozen=True, eq=False)
class Cleaned:
    """A log after cleaning."""

    blocks: Any
    """Of the engine: sorted by (user, item), sequences by (user, position); each user completely in one block, blocks
    in order of users."""
    users: pa.Array
    """Original ids in the order of the index ..."""
    items: pa.Array
    degrees: Degrees
    """Interactions per user and per item."""
    columns: tuple[str, ...]
    """What the log has: user, item and maybe rating, timestamp, position."""
    refused: "Refused"


@dataclass(frozen=True)
class Refused:
    """Rows that were skipped: how many, and what is wrong with the first of them in the order of the log."""

    count: int
    messages: list[str]


def clean(engine: Engine, log: Sequence[Source], settings: "PrepareSettings", note: Callable[..., None]) -> Cleaned:
    """Read the log and do all steps up to the index; ``note(step, degrees, **details)`` hears of each.

    Interactions stay with the engine. This process holds the distinct ids of every block that was read (an id as
    often as there are blocks with it), then the distinct ids of the log, 8 bytes of counts for each of them, and for
    each pass of the k-core the counts of one block at a time.

    Raises:
        InputError: the log cannot be read, or nothing is left after a step.
    """
    return _Cleaning(engine, log, settings, note).run()


class _Cleaning:
    """One run: the engine, the log, the settings, and whom to tell of the steps."""

    def __init__(self, engine: Engine, log: Sequence[Source], settings: "PrepareSettings", note: Callable[..., None]):
        self.engine = engine
        self.log = log
        self.settings = settings
        self.note = note

    def run(self) -> Cleaned:
        """All steps."""
        engine, log, settings = self.engine, self.log, self.settings
        if settings.task == "pairs" and settings.keep != "any" and "timestamp" not in log[0].columns:
            raise InputError(
                f"{log[0].name}: keep {settings.keep} needs a timestamp column; "
                "name it in the settings (columns.timestamp) or keep any"
            )
        blocks = engine.read(log, settings.on_bad_row)
        if settings.hash_ids:
            blocks = engine.map(blocks, hashed, key=hash_key())
        blocks = engine.hold(blocks)
        refused = self._refused(blocks) if settings.on_bad_row == "skip" else Refused(0, [])
        indices, blocks, degrees = self._encoded(blocks, refused)
        blocks = engine.by_user(blocks, degrees[0])
        if settings.split == "given":
            blocks = engine.hold(engine.map(blocks, do.ordered))
            left = [np.ones(len(degree), bool) for degree in degrees]
        else:
            blocks, degrees = self._unrepeated(blocks, degrees)
            degrees = self._core(blocks, degrees)
            left = [degree > 0 for degree in degrees]
            blocks = engine.map(blocks, do.keep, users=left[0], items=left[1])
        numbers = [(np.cumsum(mask) - 1).astype(np.int32) for mask in left]
        blocks = engine.map(blocks, do.renumber, users=numbers[0], items=numbers[1])
        users, items = (index.ids.filter(pa.array(mask)) for index, mask in zip(indices, left, strict=True))
        degrees = [degree[mask] for degree, mask in zip(degrees, left, strict=True)]
        self.note("index", degrees, user_order=indices[0].order, item_order=indices[1].order)
        if settings.task == "sequence":
            blocks = self._in_sequence(blocks, degrees)
        return Cleaned(blocks, users, items, degrees, tuple(log[0].columns), refused)

    def _refused(self, blocks: Any) -> Refused:
        tables = list(self.engine.tables(self.engine.map(blocks, do.refused)))
        messages = [message for table in tables for message in table["messages"][0].as_py()]
        return Refused(sum(table["count"][0].as_py() for table in tables), messages[: do.SHOWN])

    def _encoded(self, blocks: Any, refused: Refused) -> tuple[list[Index], Any, Degrees]:
        """Number the ids, and drop ratings below ``min_rating``: what is left, as indices, is not held."""
        engine, source, settings = self.engine, self.log[0], self.settings
        tables = list(engine.tables(engine.map(blocks, do.occurrences, min_rating=settings.min_rating)))
        if not tables:
            raise InputError(f"{source.name}: none of the {refused.count:,} rows can be read; {refused.messages[0]}")
        sides = [list(side) for side in zip(*map(_by_side, tables), strict=True)]
        indices = self._indices([[table["id"].combine_chunks() for table in side] for side in sides])
        read, kept = (
            [_summed(index, side, count) for index, side in zip(indices, sides, strict=True)]
            for count in ("read", "kept")
        )
        skipped = {"refused": refused.count} if settings.on_bad_row == "skip" else {}
        self.note("read", read, format=source.format, **skipped)
        numbers = [table["number"][0].as_py() for table in tables]
        if len(set(numbers)) < len(numbers):
            raise RuntimeError("a block that was read has been divided")
        if settings.task == "sequence":
            rows = np.cumsum([0, *(pc.sum(table["read"]).as_py() for table in sides[0])]).tolist()
            blocks = engine.map(blocks, sequences.placed, before=dict(zip(numbers, rows, strict=False)))
        starts = [np.cumsum([0, *(table.num_rows for table in side)]).tolist() for side in sides]
        blocks = engine.map(
            blocks,
            do.encode,
            starts=dict(zip(numbers, zip(*starts, strict=True), strict=False)),
            users=np.concatenate(indices[0].places),
            items=np.concatenate(indices[1].places),
        )
        if settings.min_rating is not None:
            blocks = engine.map(blocks, do.at_least, min_rating=settings.min_rating)
            self.note("rating", kept, min_rating=settings.min_rating)
        return indices, blocks, kept

    def _indices(self, sides: list[list[pa.Array]]) -> list[Index]:
        """The index of each side; ``sides``: the distinct ids of each block."""
        if self.settings.split != "given":
            return [Index.of(lists) for lists in sides]
        named = listed(self.log)
        users = named and (hashed_ids(named.users, hash_key()) if self.settings.hash_ids else named.users)
        besides = (users, named and named.items)
        return [
            Index.of([*lists, catalogue(pc.unique(pa.concat_arrays(lists)), more, self.settings)])
            for lists, more in zip(sides, besides, strict=True)
        ]

    def _unrepeated(self, blocks: Any, degrees: Degrees) -> tuple[Any, Degrees]:
        """Blocks in their order with the repeated pairs that ``keep`` says, held."""
        engine, keep = self.engine, self.settings.keep
        if self.settings.task == "sequence":
            blocks = engine.hold(engine.map(blocks, sequences.in_order, time=self._time, keep=keep))
            if keep == "all":
                return blocks, degrees
        else:
            blocks = engine.hold(engine.map(blocks, do.distinct, keep=keep))
        degrees = self._degrees(blocks, degrees, do.tally)
        self.note("distinct", degrees)
        return blocks, degrees

    def _in_sequence(self, blocks: Any, degrees: Degrees) -> Any:
        """Indexed blocks with a column ``position``, held."""
        blocks = self.engine.hold(self.engine.map(blocks, sequences.numbered))
        counts = pa.concat_tables(self.engine.tables(self.engine.map(blocks, sequences.told, time=self._time)))
        self.note("order", degrees, **{name: pc.sum(counts[name]).as_py() for name in counts.column_names})
        return blocks

    @property
    def _time(self) -> str | None:
        """The column that orders sequences; without it their order is that of the log."""
        return "timestamp" if "timestamp" in self.log[0].columns else None

    def _core(self, blocks: Any, degrees: Degrees) -> Degrees:
        """Interactions per user and item in the k-core.

        A pass drops the items with too few interactions, then the users; passes are made until neither is there.
        """
        core = self.settings.k_core
        least = (core.users, core.items)
        passes: list[dict[str, int]] = []
        while any(((degree > 0) & (degree < k)).any() for degree, k in zip(degrees, least, strict=True)):
            degrees = self._degrees(blocks, degrees, do.core_pass, items=degrees[1] >= core.items, k=core.users)
            users, items = (int((degree > 0).sum()) for degree in degrees)
            passes.append({"rows": int(degrees[0].sum()), "users": users, "items": items})
        self.note("k_core", degrees, k=core.model_dump(), passes=len(passes), after_passes=passes)
        return degrees

    def _degrees(self, blocks: Any, before: Degrees, function: Callable[..., pa.Table], **broadcast: Any) -> Degrees:
        """Interactions per user and item as ``function`` counts them, summed over the blocks."""
        degrees = [np.zeros(len(degree), np.int64) for degree in before]
        for counted in self.engine.tables(self.engine.map(blocks, function, **broadcast)):
            sides, keys, counts = (column.to_numpy() for column in counted.columns)
            for side, degree in enumerate(degrees):
                degree[keys[sides == side]] += counts[sides == side]  # a block names no key twice
        return degrees


def _by_side(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """What ``occurrences`` says of users and of items, without a copy."""
    users = int(np.searchsorted(table["side"].to_numpy(), 1))
    return table.slice(0, users).combine_chunks(), table.slice(users).combine_chunks()


def _summed(index: Index, tables: list[pa.Table], count: str) -> NDArray[np.int64]:
    """A count of the ids of each block, summed by the ids' indices."""
    total = np.zeros(len(index.ids), np.int64)
    for places, table in zip(index.places, tables, strict=False):  # a given split has a list without counts besides
        total[places] += table[count].to_numpy()
    return total
