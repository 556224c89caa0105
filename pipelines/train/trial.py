"""Training of one trial in one process: resumed where it was cut off, every validation in its journal."""

import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from pipelines.settings import REFERENCE, ResourceSettings, Trial
from pipelines.train import failures, journal, stream, validations
from pipelines.train.build import build, fit_settings, pool_of, training_splits
from pipelines.train.cost import Cost, Meter
from pipelines.train.environment import environment
from pipelines.train.folder import CHECKPOINT, MODEL, next_epoch
from pipelines.train.reference import fit_reference
from pipelines.train.start import open_journal
from recloss import sampling
from recloss.checkpoints import save_atomically
from recloss.training import Positives, Validation, fit

if TYPE_CHECKING:
    from ray.data import DataIterator


class PausedError(Exception):
    """A trial ends at a validation, whose checkpoint is on disk: it was to train no further, or the sweep stops."""


def train_trial(
    trial: Trial,
    data: Path,
    folder: Path,
    resources: ResourceSettings,
    report: Callable[[Validation], None],
    *,
    until: int | None = None,
    stop: Path | None = None,
    micro_batch: int | None = None,
    pairs: "DataIterator | None" = None,
) -> None:
    """Train one trial in this process, resuming from its checkpoint; errors end in the journal, then are raised.

    With ``until`` it pauses at its validation of that epoch, with ``stop`` at the first one that finds this file, and
    at one that finds that another process has taken over; called again, it ends as if it never had. ``micro_batch`` is
    that of `recloss.training.fit`. With ``train.stream`` the training pairs come from ``pairs``, else from a stream
    that this process opens (and Ray must run). A reference is fitted in one go, whatever these say.

    With an initialised ``torch.distributed`` every rank calls this; rank 0 alone writes to the folder.

    Raises:
        DivergedError: if the loss or the embeddings are not finite.
    """
    if trial.task == REFERENCE:
        return fit_reference(trial, data, folder, resources, report)
    writes = not dist.is_initialized() or dist.get_rank() == 0
    torch.set_num_threads(max(1, int(resources.cpus)))
    meter, attempt, spent = Meter(resources.gpus), uuid.uuid4().hex, Cost()
    if writes:
        folder.mkdir(parents=True, exist_ok=True)
        spent = open_journal(trial, folder, attempt, environment(resources, micro_batch))
    try:
        train, valid = training_splits(data, trial.data)
        backbone, loss = build(trial, train)
        train = train.to(next(backbone.parameters()).device)
        sampler = sampling.build_sampler(trial.sampler.name, trial.sampler.params, train, pool_of(trial, data, train))
        streamed: AbstractContextManager[Positives | None] = nullcontext()
        if trial.train.stream:
            source = pairs or stream.dataset(trial, data, next_epoch(folder))
            streamed = stream.reading(source, len(train), trial.train.batch_size)

        def on_validation(validation: Validation) -> None:
            cost = spent + meter.read_all()
            superseded = writes and journal.read(folder)[0]["attempt"] != attempt
            if writes and not superseded:
                journal.append(folder, validations.event(validation) | {"cost": cost.json()})
            report(validation)
            reached_it = until is not None and until <= validation.epoch < trial.train.epochs
            if _on_any_rank(superseded or reached_it or (stop is not None and stop.exists())):
                raise PausedError

        settings = fit_settings(trial)
        checkpoint = folder / CHECKPOINT
        with streamed as positives:
            result = fit(
                backbone, loss, train, valid, settings,
                sampler=sampler, positives=positives, micro_batch=micro_batch,
                checkpoint=checkpoint, on_validation=on_validation,
            )  # fmt: skip
    except PausedError:
        return
    except Exception as error:
        if not dist.is_initialized():  # else who started the ranks knows what happened to all of them
            failures.record(folder, error, trial, spent + meter.read())
        raise
    cost = spent + meter.read_all()
    if writes:
        save_atomically(folder / MODEL, {"backbone": backbone.state_dict(), "loss": loss.state_dict()})
        last = result.history[-1]
        journal.append(
            folder,
            {
                "event": "finish",
                "time": time.time(),
                "best_epoch": result.best_epoch,
                "best": result.best,
                "epochs": last.epoch,
                "seconds": last.seconds,
                "cost": cost.json(),
            },
        )
        checkpoint.unlink()


def _on_any_rank(condition: bool) -> bool:
    """Whether a condition holds on any rank; every rank calls it."""
    if not dist.is_initialized():
        return condition
    found = torch.tensor(int(condition), device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return bool(found)
