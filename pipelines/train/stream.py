"""Training pairs that stream through Ray Data, in a random order, where they do not fit in memory.

The pairs are shuffled once, into a file of the machine's cache (see `mapped`): 8 bytes per pair, in an order of this
data set for ever. A pass over them reads runs of ``RUN`` of these rows in an order of (seed, epoch, pass) and shuffles
them again in windows of ``WINDOW`` rows. So the rows of a batch are drawn from all over the data in every pass; what is
missing to a uniform permutation is that the rows of a run never leave their window.

The order does not depend on workers, blocks or when a run was resumed: every worker reads the whole stream and takes
the rows of its users, as it does in memory.
"""

import logging
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.settings import Trial, construct
from pipelines.train.mapped import interactions, mapped_array, tensor
from recloss.interactions import Interactions
from recloss.randomness import integers, permutation, row_states, stream_key
from recloss.training import Positives

if TYPE_CHECKING:
    from ray.data import DataIterator, Dataset

RUN, WINDOW = 2**12, 2**20
"""Rows that are read together (32 KB), and that are shuffled together (8 MB)."""
_BLOCK_BYTES = 2**24
"""Size of the blocks that are sent, about; a few are in memory at a time."""
_PART = 2**22
"""Rows held at once while the file is made."""


def dataset(trial: Trial, data: Path, first: int, *, run: int = RUN, window: int = WINDOW) -> "Dataset":
    """The pairs of every pass of a trial from epoch ``first`` on, pass after pass.

    Columns: ``user``, ``item`` and ``epoch``, int32.
    """
    import ray.data

    loss = construct("loss", trial.loss.name, trial.loss.params)
    epochs = range(min(first, trial.train.epochs), trial.train.epochs + 1)
    passes = [{"epoch": epoch, "number": number} for epoch in epochs for number in range(len(loss.passes(epoch)))]
    source = {"data": data.absolute(), "fingerprint": trial.data, "seed": trial.seed, "run": run, "window": window}
    function: Any = _read_pass
    # one task at a time keeps the order; one that asks for no CPU runs where training has taken them all
    pairs = ray.data.from_items(passes, override_num_blocks=len(passes)).map_batches(
        function, batch_size=1, fn_kwargs=source, num_cpus=0, compute=ray.data.TaskPoolStrategy(size=1)
    )
    pairs.context.enable_progress_bars = False
    pairs.context.target_max_block_size = _BLOCK_BYTES
    return pairs


@contextmanager
def reading(pairs: "Dataset | DataIterator", n_pairs: int, batch_size: int) -> Iterator[Positives]:
    """The batches of each pass over a ``dataset`` for `fit`; the reading ends with the context."""
    with closing(_blocks(pairs)) as blocks:
        yield positives(blocks, n_pairs, batch_size)


def _blocks(pairs: "Dataset | DataIterator") -> Generator[Mapping[str, Tensor]]:
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # its plans and durations, of no use in a trial's log
    yield from pairs.iter_torch_batches(batch_size=None, device="cpu")


def _read_pass(
    batch: dict[str, NDArray[Any]], data: Path, fingerprint: str, seed: int, run: int, window: int
) -> Iterator[dict[str, NDArray[Any]]]:
    epoch, number = int(batch["epoch"][0]), int(batch["number"][0])
    for rows in windows(shuffled(data, fingerprint), stream_key(seed, epoch, f"order {number}"), run, window):
        user, item = rows.T.contiguous().numpy()
        yield {"user": user, "item": item, "epoch": np.full(len(rows), epoch, np.int32)}


def positives(remaining: Iterator[Mapping[str, Tensor]], n_pairs: int, batch_size: int) -> Positives:
    """The batches of each pass, for `fit`, from the blocks of a ``dataset``; passes are asked for in its order."""

    def of_pass(epoch: int, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        rows, missing = torch.empty(2, 0, dtype=torch.int32), n_pairs
        while missing:
            block = next(remaining, None)
            if block is None or int(block["epoch"][0]) != epoch:
                raise RuntimeError(f"the stream does not go on with epoch {epoch}, pass {number + 1}")
            rows = torch.cat([rows, torch.stack([block["user"], block["item"]])], 1)
            missing -= len(block["user"])
            while rows.shape[1] >= (batch_size if missing else 1):
                yield rows[0, :batch_size].long(), rows[1, :batch_size].long()
                rows = rows[:, batch_size:]

    return of_pass


def windows(rows: Tensor, key: int, run: int, window: int) -> Iterator[Tensor]:
    """All ``rows`` (n, 2) in a random order of ``key``: in windows of ``window`` rows, each made of runs of ``run``."""
    starts = permutation(-(-len(rows) // run), key) * run
    for index, chosen in enumerate(starts.split(window // run)):
        held = torch.cat([rows[start : start + run] for start in chosen.tolist()])
        yield held[permutation(len(held), key + index + 1)]


def shuffled(data: Path, fingerprint: str) -> Tensor:
    """(n, 2) int32 users and items of all training pairs in a uniform random order, the same for ever, mapped.

    Raises:
        InputError: as `mapped.interactions`.
    """
    train = interactions(data, fingerprint, "train")

    def write(file: BinaryIO) -> None:
        _write_shuffled(file, train)

    return tensor(mapped_array(f"{fingerprint}-shuffled.int32", (len(train), 2), np.int32, write))


def _write_shuffled(file: BinaryIO, train: Interactions) -> None:
    """Deals the rows out to parts of the file at random, then shuffles each part; ``_PART`` rows or so are held."""
    n_parts = -(-len(train) // _PART)
    pieces = [slice(first, min(first + _PART, len(train))) for first in range(0, len(train), _PART)]

    def parts_of(piece: slice) -> Tensor:
        states = row_states(stream_key(0, 0, "parts"), torch.arange(piece.start, piece.stop))
        return integers(states, torch.zeros(1, dtype=torch.int64), n_parts)

    sizes = torch.stack([torch.bincount(parts_of(piece), minlength=n_parts) for piece in pieces]).sum(0)
    ends = sizes.cumsum(0)
    filled = (ends - sizes).tolist()
    for piece in pieces:
        rows = torch.stack([train.user[piece], train.item[piece]], 1).to(torch.int32)
        part, order = parts_of(piece).sort(stable=True)
        for index, own in enumerate(rows[order].split(torch.bincount(part, minlength=n_parts).tolist())):
            file.seek(8 * filled[index])
            file.write(own.numpy().tobytes())
            filled[index] += len(own)
    for index, (size, end) in enumerate(zip(sizes.tolist(), ends.tolist(), strict=True)):
        file.seek(8 * (end - size))
        own = torch.frombuffer(bytearray(file.read(8 * size)), dtype=torch.int32).view(-1, 2)
        file.seek(8 * (end - size))
        file.write(own[permutation(size, stream_key(0, index, "part"))].numpy().tobytes())
