"""The work of each task. A new task is one file, one entry here and one in `pipelines.settings.tasks`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.settings import Task, Trial, task_of_reference
from pipelines.train.tasks import link, pairs, rank, sequence
from pipelines.train.tasks.base import Work
from recloss.errors import InputError

_WORK: dict[Task, tuple[type[Work], Callable[[Trial, dict[str, Any]], None]]] = {
    "pairs": (pairs.PairWork, pairs.check),
    "sequence": (sequence.SequenceWork, sequence.check),
    "rank": (rank.RankWork, rank.check),
    "link": (link.LinkWork, link.check),
}
"""A task's work, and what refuses a trial that cannot work on the data set of a manifest."""


def work(trial: Trial, data: Path) -> Work:
    """The data and the model of a trial that trains.

    Raises:
        InputError: if the folder no longer holds the data set the trial was planned on.
    """
    assert trial.task != "reference"
    return _WORK[trial.task][0](trial, data)


def check_fits(trial: Trial, manifest: dict[str, Any], workers: int = 1) -> None:
    """Refuse a trial that cannot work on the data set of a manifest, or by so many workers, before anything is trained.

    Raises:
        InputError: saying why.
    """
    task = task_of_reference(trial.loss.name) if trial.task == "reference" else trial.task
    prepared = manifest["task"]
    if prepared != task:
        raise InputError(
            f"data {trial.data[:12]} is prepared for the task {prepared!r}, the trial's is {task!r}; prepare it with "
            f"--task {task}, or give the sweep task: {prepared}"
        )
    if workers > 1 and trial.soft_labels is not None:
        raise InputError(f"workers: the soft labels of the loss {trial.loss.name!r} are made by one, got {workers}")
    _WORK[task][1](trial, manifest)
