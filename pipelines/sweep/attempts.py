"""What a process of Ray Tune does with a task: attempts, until the trial ended, paused or failed."""

import contextlib
import gc
import math
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from pipelines.settings import REFERENCE, TASKS, ResourceSettings, Trial, construct
from pipelines.train import failures, journal, validations
from pipelines.train.capture import LOG, captured
from pipelines.train.distributed import train_trial_distributed
from pipelines.train.folder import reached, status
from pipelines.train.patience import Patience
from pipelines.train.scoring import score_test
from pipelines.train.trial import train_trial
from recloss.training import Validation

CRASHES = 2
"""A trial whose process dies is resumed so many times without a new validation, in one run of the sweep."""
_PIECES = 8
"""A batch that does not fit in memory is halved until it is in so many pieces."""


class Deaths:
    """Counts how often a trial died since its latest new validation."""

    def __init__(self) -> None:
        self._counts: dict[Path, tuple[int, int]] = {}

    def count(self, folder: Path) -> int:
        """The count, with the death that is reported by this call."""
        epoch = reached(folder)
        before, deaths = self._counts.get(folder, (epoch, 0))
        self._counts[folder] = epoch, deaths + 1 if epoch == before else 1
        return self._counts[folder][1]


def latest_micro_batch(events: list[dict[str, Any]]) -> int | None:
    """The micro-batch of a trial's latest attempt; ``None`` is the whole batch."""
    start = journal.last(events, "start") or {"environment": {}}
    return int(start["environment"].get("micro_batch", 0)) or None


def next_micro_batch(events: list[dict[str, Any]], trial: Trial, workers: int) -> int | None:
    """That of its next attempt: half of it where the latest one ran out of memory and the loss allows it."""
    latest = latest_micro_batch(events)
    if trial.task == REFERENCE or not TASKS[trial.task].divides:
        return latest
    rows = math.ceil(trial.train.batch_size / workers)
    half = math.ceil((latest or rows) / 2)
    exhausted = bool(events) and events[-1].get("kind") == "out of memory"
    if exhausted and half < rows <= half * _PIECES:
        return half if construct("loss", trial.loss.name, trial.loss.params, trial.task).per_row else latest
    return latest


class Attempts:
    """The attempts at one task.

    Args:
        task: "trial", "data", "folder", "test", "until" and "resources" as JSON; "stop", the file that asks trials to
            pause; "since", the start of this run of the sweep in Unix seconds.
        report: called with each validation.
    """

    def __init__(self, task: dict[str, Any], report: Callable[[Validation], None]) -> None:
        self.trial = Trial.model_validate(task["trial"])
        self.resources = ResourceSettings.model_validate(task["resources"])
        self.data, self.folder, self.stop = Path(task["data"]), Path(task["folder"]), Path(task["stop"])
        self.test, self.until, self.since = task["test"], task["until"], task["since"]
        self.report, self.deaths, self.patience = report, Deaths(), Patience()

    def run(self) -> str | None:
        """Bring the task to its end, in success or in failure; or return what the storage said that cut it off.

        Out of memory, the trial is tried again with half the micro-batch where its loss allows that; a distributed one
        of which a worker died is resumed; trouble with the storage is waited for.
        """
        ended = False
        while not ended and not self.stop.exists():
            try:
                ended = self._attempt()
            except Exception as error:
                what, message = failures.diagnose(error)
                if what != "storage":
                    raise
                if not self.patience.wait():
                    return message
        return None

    def _attempt(self) -> bool:
        """Whether nothing is left to do after this attempt. Trouble with the storage is raised."""
        self.folder.mkdir(parents=True, exist_ok=True)
        events = journal.read(self.folder)
        size = next_micro_batch(events, self.trial, self.resources.workers)
        failed = bool(events) and events[-1]["event"] == "fail" and events[-1]["time"] >= self.since
        if failed and size == latest_micro_batch(events):
            return True
        try:
            with captured(self.folder / LOG), _printed_errors():
                self._train(size)
            return True
        except Exception as error:
            what, message = failures.diagnose(error)
            if what == "storage":
                raise
        gc.collect()
        torch.cuda.empty_cache()
        if what == "crash" and self.deaths.count(self.folder) <= CRASHES:
            return False
        latest = journal.read(self.folder)
        if not latest or latest[-1]["event"] != "fail":
            failures.record_as(self.folder, what, message)
        return what != "out of memory"

    def _train(self, size: int | None) -> None:
        alone = self.resources.workers == 1 or self.trial.task == REFERENCE
        train = train_trial if alone else train_trial_distributed
        if status(self.folder) != "finished":
            train(
                self.trial, self.data, self.folder, self.resources, self._report,
                until=self.until, stop=self.stop, micro_batch=size,
            )  # fmt: skip
        if self.test and status(self.folder) == "finished":
            score_test(self.trial, self.data, self.folder)

    def _report(self, validation: Validation) -> None:
        self.patience.renew()
        if self.resources.workers == 1:
            print(validations.line(validation))
        self.report(validation)


@contextlib.contextmanager
def _printed_errors() -> Iterator[None]:
    try:
        yield
    except Exception:
        with contextlib.suppress(OSError):  # a full disk, on which what is raised comes before its trace
            traceback.print_exc()
        raise
