"""The epoch loop that all tasks share: validation, the best state, patience, checkpoints."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from recloss import native
from recloss.checkpoints import load_checkpoint, save_atomically
from recloss.randomness import stream_key


@dataclass(frozen=True)
class FitSettings:
    """What determines a training run besides the model, the loss and the data.

    Attributes:
        lr, weight_decay: Adam's, the decay coupled (added to the gradient) and on all rows of the model's tables.
        epochs: passes over the training positives at most.
        batch_size: positives per global batch; the last one of an epoch may be smaller.
        negatives: N, the negatives drawn for each positive.
        valid_every: epochs between validations; the last epoch is validated too.
        patience: training stops after this many validations without a new best.
        metric: the validation metric to maximise, such as ``ndcg_20``.
        cutoffs: the K measured at each validation.
        seed: of every random draw.
    """

    lr: float = 0.01
    weight_decay: float = 0.0
    epochs: int = 200
    batch_size: int = 1024
    negatives: int = 1000
    valid_every: int = 5
    patience: int = 5
    metric: str = "ndcg_20"
    cutoffs: tuple[int, ...] = (20,)
    seed: int = 0


@dataclass(frozen=True)
class Validation:
    """A run at a validation: epochs done, mean loss of the last epoch, mean metrics, training seconds so far.

    For a loss that has thresholds, ``threshold`` is the users' mean; where they are estimates of top-K thresholds,
    ``threshold_error`` is the mean absolute difference from the exact ones, of some users.
    """

    epoch: int
    loss: float
    metrics: dict[str, float]
    seconds: float
    time: float
    threshold: float | None = None
    threshold_error: float | None = None


@dataclass(frozen=True)
class FitResult:
    """Outcome of a run; the model and the loss hold the state of ``best_epoch``."""

    best_epoch: int
    best: float
    history: list[Validation]


class DivergedError(ArithmeticError):
    """The loss or an embedding became NaN or infinite: a failed run, not a score."""


@dataclass
class _Progress:
    """What a checkpoint keeps besides the states of model, loss and optimiser."""

    epoch: int = 0
    best: float = float("-inf")
    best_epoch: int = 0
    best_state: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    history: list[Validation] = field(default_factory=list)


class Loop(ABC):
    """One run: epochs until the budget or the patience ends, the best validated state left in the modules.

    A run resumed from its checkpoint equals an uninterrupted one to the bit, if an epoch is a function of the modules'
    and the optimiser's state and of draws of (seed, epoch, position in the epoch). Modules that draw from torch's
    global generator, such as dropout, find it seeded anew in each epoch.

    Args:
        modules: what is trained, by name; saved and restored under these names.
        optimizer: of their parameters.
        settings: the budget and the metric.
    """

    def __init__(
        self, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, settings: FitSettings
    ) -> None:
        native.keep_freed_memory()
        self.modules, self.optimizer, self.settings = dict(modules), optimizer, settings
        self.progress = _Progress()

    @abstractmethod
    def _train_epoch(self) -> float:
        """Train epoch ``self.epoch``, the modules in training mode; its mean loss.

        Raises:
            DivergedError: naming epoch and step of the first loss that is not finite.
        """

    @abstractmethod
    def _measure(self) -> dict[str, float]:
        """Mean validation metrics.

        Raises:
            FloatingPointError: if the model is not finite.
        """

    @property
    def epoch(self) -> int:
        """The epoch that is trained, from 1."""
        return self.progress.epoch + 1

    def run(self, checkpoint: Path | None, on_validation: Callable[[Validation], None] | None) -> FitResult:
        """Train to the end.

        Args:
            checkpoint: file written atomically after every validation and resumed from if it is there.
            on_validation: called with each new validation, after its checkpoint is on disk.

        Raises:
            DivergedError: if the loss or the model is not finite.
            ValueError: if the checkpoint is damaged or of other settings.
        """
        if checkpoint is not None and checkpoint.exists():
            self._load(checkpoint)
        progress, settings = self.progress, self.settings
        with torch.random.fork_rng():
            while progress.epoch < settings.epochs and not self._patience_ended():
                started = time.perf_counter()
                torch.manual_seed(stream_key(settings.seed, self.epoch, "modules"))
                for module in self.modules.values():
                    module.train()
                mean_loss = self._train_epoch()
                progress.epoch += 1
                progress.seconds += time.perf_counter() - started
                if progress.epoch % settings.valid_every == 0 or progress.epoch == settings.epochs:
                    validation = self._validate(mean_loss)
                    if checkpoint is not None:
                        self._save(checkpoint)
                    if on_validation is not None:
                        on_validation(validation)
        self._restore(progress.best_state)
        return FitResult(progress.best_epoch, progress.best, progress.history)

    def _thresholds(self) -> dict[str, float]:
        """``threshold`` and ``threshold_error`` of a validation, for a loss that has thresholds."""
        return {}

    def optimizer_state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the optimiser."""
        return self.optimizer.state_dict()

    def load_optimizer(self, state: dict[str, Any]) -> None:
        """Set the optimiser to what ``optimizer_state`` gave."""
        self.optimizer.load_state_dict(state)

    def _patience_ended(self) -> bool:
        since_best = [v for v in self.progress.history if v.epoch > self.progress.best_epoch]
        return len(since_best) >= self.settings.patience

    def _validate(self, mean_loss: float) -> Validation:
        progress, settings = self.progress, self.settings
        try:
            metrics = self._measure()
        except FloatingPointError as error:
            raise DivergedError(f"after epoch {progress.epoch}: {error}") from None
        thresholds = self._thresholds()
        validation = Validation(progress.epoch, mean_loss, metrics, progress.seconds, time.time(), **thresholds)
        progress.history.append(validation)
        if metrics[settings.metric] > progress.best:
            progress.best, progress.best_epoch = metrics[settings.metric], progress.epoch
            progress.best_state = {
                name: {k: v.clone() for k, v in module.state_dict().items()} for name, module in self.modules.items()
            }
        return validation

    def _save(self, path: Path) -> None:
        state = {
            "settings": self._settings(),
            **{name: module.state_dict() for name, module in self.modules.items()},
            "optimizer": self.optimizer_state(),
            "progress": asdict(self.progress),
        }
        if not dist.is_initialized() or dist.get_rank() == 0:
            save_atomically(path, state)

    def _load(self, path: Path) -> None:
        saved, settings = load_checkpoint(path), self._settings()
        if saved["settings"] != settings:
            other = sorted(key for key in settings if saved["settings"].get(key) != settings[key])
            raise ValueError(f"{path}: the checkpoint is of a run with another {', '.join(other)}")
        self._restore(saved)
        self.load_optimizer(saved["optimizer"])
        progress = saved["progress"]
        history = [Validation(**validation) for validation in progress.pop("history")]
        self.progress = _Progress(**progress, history=history)

    def _settings(self) -> dict[str, Any]:
        return asdict(self.settings) | {"cutoffs": list(self.settings.cutoffs)}

    def _restore(self, state: dict[str, Any]) -> None:
        for name, module in self.modules.items():
            module.load_state_dict(state[name])


def check_finite(losses: torch.Tensor, epoch: int) -> None:
    """Refuse (steps,) losses of an epoch of which one is not finite.

    Raises:
        DivergedError: naming epoch and step of the first.
    """
    broken = torch.nonzero(~torch.isfinite(losses)).flatten()
    if len(broken):
        raise DivergedError(f"the loss is {float(losses[broken[0]])} in epoch {epoch}, step {int(broken[0]) + 1}")
