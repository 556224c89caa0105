"""Two ways to run the block functions, a plain loop and Ray Data, with the same rows in the same order."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa

from pipelines.prepare.readers import Source
from recloss.errors import InputError

BlockFunction = Callable[..., pa.Table]

LOCAL_BYTES = 256 * 2**20
"""``auto`` runs raw files of up to this size in a plain loop: starting Ray takes longer than the work."""


class Engine(Protocol):
    """Holds blocks (in a form of its own) and runs block functions on them."""

    def read(self, sources: Sequence[Source]) -> Any:
        """The blocks of all sources."""

    def map(self, blocks: Any, function: BlockFunction, **broadcast: Any) -> Any:
        """``function(block, **broadcast)`` for every block."""

    def by_user(self, blocks: Any) -> Any:
        """Blocks in ascending order of users, each user completely in one block."""

    def tables(self, blocks: Any) -> Iterator[pa.Table]:
        """The blocks that have rows, in order."""


class LocalEngine:
    """Blocks are a list of tables; Ray is not imported."""

    def read(self, sources: Sequence[Source]) -> list[pa.Table]:
        """The blocks of all sources."""
        return [block for source in sources for block in source.blocks()]

    def map(self, blocks: list[pa.Table], function: BlockFunction, **broadcast: Any) -> list[pa.Table]:
        """``function(block, **broadcast)`` for every block."""
        return [function(block, **broadcast) for block in blocks]

    def by_user(self, blocks: list[pa.Table]) -> list[pa.Table]:
        """One block, sorted by user."""
        whole = pa.concat_tables(blocks)
        return [whole.take(np.argsort(whole["user"].to_numpy(), kind="stable"))]

    def tables(self, blocks: list[pa.Table]) -> Iterator[pa.Table]:
        """The blocks that have rows, in order."""
        return (block for block in blocks if block.num_rows)


class RayEngine:
    """Blocks are a materialised Ray dataset; broadcast values are put into the object store once."""

    def read(self, sources: Sequence[Source]) -> Any:
        """The blocks of all sources, one task per file."""
        import ray.data
        from ray.data.context import DataContext, ShuffleStrategy
        from ray.exceptions import RayTaskError

        context = deepcopy(DataContext.get_current())
        context.enable_progress_bars = False
        context.raise_original_map_exception = True
        context.execution_options.preserve_order = True
        context.shuffle_strategy = ShuffleStrategy.SORT_SHUFFLE_PULL_BASED
        with DataContext.current(context):
            files: Any = ray.data.from_items(
                [{"file": index} for index in range(len(sources))], override_num_blocks=len(sources)
            )
            try:
                blocks = files.map_batches(
                    _read, batch_size=1, batch_format="pyarrow", fn_kwargs={"sources": tuple(sources)}
                ).materialize()
            except RayTaskError as error:
                if isinstance(error.cause, InputError):
                    raise InputError(str(error.cause).splitlines()[0]) from None  # Ray appends lines of its own
                raise
        blocks.context.target_max_block_size = None  # later steps must not cut the blocks of by_user inside a user
        return blocks

    def map(self, blocks: Any, function: BlockFunction, **broadcast: Any) -> Any:
        """``function(block, **broadcast)`` for every block."""
        import ray

        references = {name: ray.put(value) for name, value in broadcast.items()}
        step = {"function": function, "references": references}
        return blocks.map_batches(_apply, batch_size=None, batch_format="pyarrow", fn_kwargs=step).materialize()

    def by_user(self, blocks: Any) -> Any:
        """Range-partitioned by user."""
        return blocks.sort("user").materialize()

    def tables(self, blocks: Any) -> Iterator[pa.Table]:
        """The blocks that have rows, in order, one at a time in memory."""
        import ray

        tables = (ray.get(reference) for reference in blocks.to_arrow_refs())
        return (table for table in tables if table.num_rows)


def _read(files: pa.Table, sources: Sequence[Source]) -> Iterator[pa.Table]:
    for index in files["file"].to_pylist():
        yield from sources[index].blocks()


def _apply(block: pa.Table, function: BlockFunction, references: dict[str, Any]) -> pa.Table:
    import ray

    return function(block, **{name: ray.get(reference) for name, reference in references.items()})


@contextmanager
def running(engine: Literal["auto", "local", "ray"], size: int) -> Iterator[Engine]:
    """The engine for ``size`` bytes of raw files; a Ray that had to be started ends with the context."""
    if engine == "local" or (engine == "auto" and size <= LOCAL_BYTES):
        yield LocalEngine()
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import ray
    import ray.data  # configures its logging when it is imported

    own = not ray.is_initialized()
    if own:
        ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # a failed read reaches the caller as an exception, not as logged tracebacks
    try:
        yield RayEngine()
    finally:
        logger.setLevel(level)
        if own:
            ray.shutdown()
