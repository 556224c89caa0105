"""Two ways to run the block functions, threads of this process and Ray Data, with the same rows in the same order."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.prepare import blocks as do
from pipelines.prepare.readers import Source
from pipelines.prepare.splits import SPLITS
from recloss.errors import InputError

BlockFunction = Callable[..., pa.Table]
OnBadRow = Literal["error", "skip"]

LOCAL_BYTES = 256 * 2**20
"""``auto`` runs raw files of up to this size without Ray: starting it takes longer than the work."""
PART_BYTES = 16 * 2**20
"""Raw files are read in parts of this size, of logs above PARTS times as much in larger ones up to LARGEST_PART."""
LARGEST_PART = 64 * 2**20
PARTS = 64
BLOCK_BYTES = 128 * 2**20
"""Ray joins smaller blocks of a file that cannot be divided to blocks of this size."""
LEAST_MEMORY = 75 * 2**20
"""Ray starts with no smaller object store."""
GROUP_ROWS = 2**20
"""Rows of a block of ``by_user`` or ``by_item``, if no user or item alone has more."""


class Engine(Protocol):
    """Holds blocks (in a form of its own) and runs block functions on them."""

    def read(self, sources: Sequence[Source], on_bad_row: OnBadRow) -> Any:
        """The blocks of all sources in order, with the columns ``number`` and, of given splits, ``split``."""

    def map(self, blocks: Any, function: BlockFunction, **broadcast: Any) -> Any:
        """``function(block, **broadcast)`` for every block; may be done anew for each use of the result."""

    def hold(self, blocks: Any) -> Any:
        """The same blocks, computed once and kept, for several uses."""

    def by_user(self, blocks: Any, rows: NDArray[np.int64]) -> Any:
        """Blocks in ascending order of users, each user completely in one block; ``rows``: of each user."""

    def by_item(self, blocks: Any, rows: NDArray[np.int64]) -> Any:
        """Blocks in ascending order of items, each item completely in one block; ``rows``: of each item."""

    def tables(self, blocks: Any) -> Iterator[pa.Table]:
        """The blocks that have rows, in order, one or a few at a time in memory."""


class LocalEngine:
    """Blocks are a list of tables, the work is done by threads; Ray is not imported."""

    def __init__(self, workers: int | None = None):
        self.workers = workers or len(os.sched_getaffinity(0))

    def read(self, sources: Sequence[Source], on_bad_row: OnBadRow) -> list[pa.Table]:
        """The blocks of all sources."""
        parts = _parts(sources)
        read = self._each(lambda at: list(_blocks(parts, at, on_bad_row)), range(len(parts)))
        return [block for blocks in read for block in blocks]

    def map(self, blocks: list[pa.Table], function: BlockFunction, **broadcast: Any) -> list[pa.Table]:
        """``function(block, **broadcast)`` for every block."""
        return self._each(partial(function, **broadcast), blocks)

    def hold(self, blocks: list[pa.Table]) -> list[pa.Table]:
        """The blocks: they are computed already."""
        return blocks

    def by_user(self, blocks: list[pa.Table], rows: NDArray[np.int64]) -> list[pa.Table]:
        """Grouped by user."""
        return self._by("user", blocks, rows)

    def by_item(self, blocks: list[pa.Table], rows: NDArray[np.int64]) -> list[pa.Table]:
        """Grouped by item."""
        return self._by("item", blocks, rows)

    def tables(self, blocks: list[pa.Table]) -> Iterator[pa.Table]:
        """The blocks that have rows, in order."""
        return (block for block in blocks if block.num_rows)

    def _by(self, key: str, blocks: list[pa.Table], rows: NDArray[np.int64]) -> list[pa.Table]:
        groups, n = _groups(rows)
        cut = self._each(lambda block: do.by_group(do.grouped(block, key, groups), n), blocks)
        return [pa.concat_tables(pieces) for pieces in zip(*cut, strict=True)]

    def _each(self, work: Callable[[Any], Any], things: Sequence[Any]) -> list[Any]:
        """Results in order; the first failure in this order is raised, and what has not begun is not done."""
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                return list(pool.map(work, things))
            finally:
                pool.shutdown(cancel_futures=True)


class RayEngine:
    """Blocks are a Ray dataset; broadcast values are put into the object store once."""

    def read(self, sources: Sequence[Source], on_bad_row: OnBadRow) -> Any:
        """The blocks of all sources, one task per part."""
        import ray.data
        from ray.data.context import DataContext, ShuffleStrategy

        context = deepcopy(DataContext.get_current())
        context.enable_progress_bars = False
        context.raise_original_map_exception = True
        context.execution_options.preserve_order = True
        context.shuffle_strategy = ShuffleStrategy.SORT_SHUFFLE_PULL_BASED
        context.target_max_block_size = BLOCK_BYTES
        parts = _parts(sources)
        step = {"parts": ray.put(parts), "on_bad_row": on_bad_row}
        with DataContext.current(context):
            numbers: Any = ray.data.from_items([{"part": at} for at in range(len(parts))])
            return numbers.map_batches(_read, batch_size=1, batch_format="pyarrow", fn_kwargs=step)

    def map(self, blocks: Any, function: BlockFunction, **broadcast: Any) -> Any:
        """``function(block, **broadcast)`` for every block, when the result is used."""
        import ray

        references = {name: ray.put(value) for name, value in broadcast.items()}
        step = {"function": function, "references": references}
        return blocks.map_batches(_apply, batch_size=None, batch_format="pyarrow", fn_kwargs=step)

    def hold(self, blocks: Any) -> Any:
        """The blocks, materialised."""
        with _mistakes():
            held = blocks.materialize()
        held.context.target_max_block_size = None  # later steps must not cut a block, which may hold one user
        return held

    def by_user(self, blocks: Any, rows: NDArray[np.int64]) -> Any:
        """Grouped by user."""
        return self._by("user", blocks, rows)

    def by_item(self, blocks: Any, rows: NDArray[np.int64]) -> Any:
        """Grouped by item."""
        return self._by("item", blocks, rows)

    def tables(self, blocks: Any) -> Iterator[pa.Table]:
        """The blocks that have rows, in order."""
        import ray

        with _mistakes():
            for bundle in blocks.iter_internal_ref_bundles():
                for reference in bundle.block_refs:
                    if (table := ray.get(reference)).num_rows:
                        yield table

    def _by(self, key: str, blocks: Any, rows: NDArray[np.int64]) -> Any:
        """By Ray's sort on the number of the group: with known bounds it takes no samples."""
        groups, n = _groups(rows)
        grouped = self.map(blocks, do.grouped, key=key, groups=groups)
        return self.map(grouped.sort("group", boundaries=list(range(1, max(n, 2)))), do.ungrouped)


def _parts(sources: Sequence[Source]) -> list[Source]:
    """The sources, divided; larger logs into larger parts."""
    total = sum(source.path.stat().st_size for source in sources)
    size = min(max(PART_BYTES, total // PARTS), LARGEST_PART)
    return [part for source in sources for part in source.parts(size)]


def _blocks(parts: Sequence[Source], at: int, on_bad_row: OnBadRow) -> Iterator[pa.Table]:
    """The blocks of one part; ``number`` is another one for each block of all parts.

    Raises:
        InputError: as the source says, or its file is gone or cannot be read.
    """
    part = parts[at]
    try:
        for place, block in enumerate(part.blocks(on_bad_row)):
            number = np.full(block.num_rows, at + len(parts) * place, np.int32)
            block = block.append_column("number", pa.array(number))
            if part.split is not None:
                code = np.full(block.num_rows, SPLITS.index(part.split), np.int8)
                block = block.append_column("split", pa.array(code))
            yield block
    except OSError as error:
        raise InputError(f"{part.name}: cannot be read ({error.strerror or error})") from None


def _groups(rows: NDArray[np.int64]) -> tuple[NDArray[np.uint16], int]:
    """The group of each user or item, so that groups of neighbours have about GROUP_ROWS rows; number of groups."""
    size = max(GROUP_ROWS, -(-int(rows.sum()) // 2**15))
    before = (np.cumsum(rows) - rows) // size
    groups = np.cumsum(np.diff(before, prepend=0) > 0)
    return groups.astype(np.uint16), int(groups[-1]) + 1 if len(groups) else 1


def _read(numbers: pa.Table, parts: Any, on_bad_row: OnBadRow) -> Iterator[pa.Table]:
    import ray

    for at in numbers["part"].to_pylist():
        yield from _blocks(ray.get(parts), at, on_bad_row)


def _apply(block: pa.Table, function: BlockFunction, references: dict[str, Any]) -> pa.Table:
    import ray

    return function(block, **{name: ray.get(reference) for name, reference in references.items()})


@contextmanager
def _mistakes() -> Iterator[None]:
    """Raise a user's mistake that was found by a worker as such, and a worker that was lost in one line."""
    from ray.exceptions import RayError, RayTaskError

    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise InputError(str(error.cause).splitlines()[0]) from None  # Ray appends lines of its own
        raise
    except RayError as error:
        raise InputError(f"Ray failed while preparing: {' '.join(str(error).split())}") from error


@contextmanager
def running(
    engine: Literal["auto", "local", "ray"], size: int, workers: int | None = None, memory: int | None = None
) -> Iterator[Engine]:
    """The engine for ``size`` bytes of raw files; a Ray that had to be started ends with the context.

    Args:
        engine: which; ``auto`` takes Ray for more than LOCAL_BYTES.
        size: bytes of the raw files.
        workers: threads, or CPUs of the Ray that is started; None takes all there are.
        memory: bytes of memory for blocks in the Ray that is started, the others wait on disk; None takes a third.

    Raises:
        InputError: ``workers`` or ``memory`` are given, but a Ray is running already; or ``memory`` is too small.
    """
    if engine == "local" or (engine == "auto" and size <= LOCAL_BYTES):
        yield LocalEngine(workers)
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import ray
    import ray.data  # configures its logging when it is imported

    own = not ray.is_initialized()
    if not own and (workers or memory):
        raise InputError("workers and memory are of the Ray that prepare starts; here one is running already")
    if memory is not None and memory < LEAST_MEMORY:
        raise InputError(f"memory: {memory:,} bytes are too few for Ray, it needs at least {LEAST_MEMORY:,}")
    if own:
        ray.init(
            address="local",
            num_cpus=workers,
            object_store_memory=memory,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # a failed read reaches the caller as an exception, not as logged tracebacks
    try:
        yield RayEngine()
    finally:
        logger.setLevel(level)
        if own:
            ray.shutdown()
