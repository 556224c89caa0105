"""Training of one trial in one process: resumed where it was cut off, every validation in its journal."""

import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from pipelines.settings import REFERENCE, ResourceSettings, Trial
from pipelines.train import failures, journal, validations
from pipelines.train.cost import Cost, Meter
from pipelines.train.environment import environment
from pipelines.train.folder import MODEL
from pipelines.train.reference import fit_reference
from pipelines.train.start import open_journal
from pipelines.train.tasks import work
from pipelines.train.tasks.base import Run
from recloss.checkpoints import save_atomically
from recloss.loop import Validation

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
        job = work(trial, data)

        def pause(wanted: bool = False) -> None:
            if _on_any_rank(wanted or (stop is not None and stop.exists())):
                raise PausedError

        def on_validation(validation: Validation) -> None:
            cost = spent + meter.read_all()
            superseded = writes and journal.read(folder)[0]["attempt"] != attempt
            if writes and not superseded:
                journal.append(folder, validations.event(validation) | {"cost": cost.json()})
            report(validation)
            reached_it = until is not None and until <= validation.epoch < trial.train.epochs
            pause(superseded or reached_it)

        run = Run(folder, on_validation, pause, micro_batch, pairs)
        result = job.fit(run)
    except PausedError:
        return
    except Exception as error:
        if not dist.is_initialized():  # else who started the ranks knows what happened to all of them
            failures.record(folder, error, trial, spent + meter.read())
        raise
    cost = spent + meter.read_all()
    if writes:
        save_atomically(folder / MODEL, {name: module.state_dict() for name, module in job.modules.items()})
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
        run.checkpoint.unlink()


def _on_any_rank(condition: bool) -> bool:
    """Whether a condition holds on any rank; every rank calls it."""
    if not dist.is_initialized():
        return condition
    found = torch.tensor(int(condition), device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return bool(found)
