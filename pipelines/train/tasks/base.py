"""What a task does with a trial: its data and its model in this process, training it, testing it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pipelines.settings import Trial
from pipelines.train.folder import CHECKPOINT
from recloss.evaluation import UserMetrics
from recloss.loop import FitResult, FitSettings, Validation

if TYPE_CHECKING:
    from ray.data import DataIterator


@dataclass(frozen=True)
class Run:
    """One attempt at training a trial.

    Attributes:
        folder: of the trial; what it shares with others of its sweep lies beside it.
        on_validation: called with each new validation.
        pause: called where the work could go on later; raises if that is wanted.
        micro_batch: that of `recloss.training.fit`.
        pairs: the training pairs of a trial that streams them.
    """

    folder: Path
    on_validation: Callable[[Validation], None]
    pause: Callable[[], None]
    micro_batch: int | None = None
    pairs: "DataIterator | None" = None

    @property
    def checkpoint(self) -> Path:
        """The file that training resumes from."""
        return self.folder / CHECKPOINT


def device() -> torch.device:
    """Where this process trains."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Work(ABC):
    """A trial's training data, model and loss; the test split stays on disk until ``test``.

    Attributes:
        trial: the trial.
        data: folder of its prepared dataset.
        modules: what is trained, "backbone" and "loss", on this process's device; ``model.pt`` holds their states.

    Args:
        trial: of the class's task.
        data: the folder.

    Raises:
        InputError: if the folder no longer holds the data set the trial was planned on.
    """

    modules: dict[str, nn.Module]

    def __init__(self, trial: Trial, data: Path) -> None:
        self.trial, self.data = trial, data

    @abstractmethod
    def fit(self, run: Run) -> FitResult:
        """Train, resuming from the run's checkpoint; the modules hold the best state at the end."""

    @abstractmethod
    def test(self) -> UserMetrics:
        """Metrics of the modules as they are on the test split."""

    def diagnostics(self) -> dict[str, Any] | None:
        """What the trained model looks like from inside (see `pipelines.train.diagnostics`), if that is told."""
        return None


def fit_settings(trial: Trial) -> FitSettings:
    """The library's settings of a trial."""
    train = trial.train
    return FitSettings(
        lr=trial.optim.lr,
        weight_decay=trial.optim.weight_decay,
        epochs=train.epochs,
        batch_size=train.batch_size,
        negatives=train.negatives,
        valid_every=train.valid_every,
        patience=train.patience,
        metric=trial.protocol.metric,
        cutoffs=trial.protocol.cutoffs,
        seed=trial.seed,
    )
