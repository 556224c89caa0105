"""The contract of a loss: what it is given (`Batch`), what it declares (`Loss`), what its hooks may ask (`Context`)."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from recloss.errors import require
from recloss.interactions import Interactions, Segments


@dataclass(frozen=True)
class Batch:
    """Everything a loss may read about B training positives; a loss names what it needs beyond ``pos`` and ``neg``.

    Attributes:
        pos: (B,) scores of the positives.
        neg: (B, N) scores of each positive's negatives.
        phase: which of the loss's phases asks (see ``Loss.passes``).
        user: (B,) int64 user of each positive.
        positives: scores of all training positives of each row's user, as CSR segments over the B rows, detached.
    """

    pos: Tensor
    neg: Tensor
    phase: str = "fit"
    user: Tensor | None = None
    positives: Segments | None = None


@dataclass(frozen=True)
class Phase:
    """One optimiser step on a batch.

    Attributes:
        name: what ``Batch.phase`` says in this step.
        trains: names of the parameter groups that move ("model" is the backbone's); ``None`` for all of them.
    """

    name: str = "fit"
    trains: frozenset[str] | None = None


class Context(Protocol):
    """What the training loop offers a loss's hooks; everything is seen without gradient, the backbone in eval mode."""

    @property
    def epoch(self) -> int:
        """The epoch that starts, counted from 1."""

    @property
    def train(self) -> Interactions:
        """The training positives."""

    def scores(self, users: Tensor) -> Tensor:
        """(len(users), n_items) scores of all items."""

    def negatives(self, users: Tensor, n: int, purpose: str) -> Tensor:
        """(len(users), n) fresh negatives; a function of (seed, epoch, purpose, user)."""


class Loss(nn.Module, ABC):
    """Base of all losses.

    Hyper-parameters are keyword-only constructor arguments with the paper's default. Sizes of learnable or remembered
    state come as ``n_users``, ``n_items`` or ``n_pairs``. All state lives in ``state_dict``.
    """

    name: ClassVar[str]
    """Name in code, YAML files and tables' data."""
    title: ClassVar[str]
    """Name as the papers print it."""
    similarity: ClassVar[str] = "cosine"
    """"cosine" or "dot", in training and in evaluation."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """Fields of ``Batch`` it reads beyond ``pos`` and ``neg``."""

    def forward(self, batch: Batch) -> Tensor:
        """Scalar loss of a batch, computed in float32 or float64 also under autocast.

        Raises:
            ValueError: if a field has the wrong shape or is missing.
        """
        _check(self, batch)
        with torch.autocast(batch.pos.device.type, enabled=False):
            dtype = torch.promote_types(torch.promote_types(batch.pos.dtype, batch.neg.dtype), torch.float32)
            return self.compute(replace(batch, pos=batch.pos.to(dtype), neg=batch.neg.to(dtype)))

    @abstractmethod
    def compute(self, batch: Batch) -> Tensor:
        """Scalar loss of a checked batch; for most losses the mean of its pure function over the rows."""

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Optimiser groups of the loss's own parameters, as torch takes them, each with a ``name``.

        ``lr`` is the model's. A group without ``lr`` or ``weight_decay`` uses the model's; ``maximize=True`` ascends.
        """
        return []

    def passes(self, epoch: int) -> Sequence[Sequence[Phase]]:
        """Passes over the training data in ``epoch`` (from 1), each with the steps taken on every batch."""
        return [[Phase()]]

    def on_epoch_start(self, context: Context) -> None:
        """Called before each epoch's first pass."""


def _check(loss: Loss, batch: Batch) -> None:
    B = batch.pos.shape[0] if batch.pos.dim() else -1
    require(batch.pos.dim() == 1, f"{loss.title}: pos must have shape (B,), got {tuple(batch.pos.shape)}")
    shape = tuple(batch.neg.shape)
    require(batch.neg.dim() == 2 and shape[0] == B, f"{loss.title}: neg must have shape ({B}, N), got {shape}")
    for field in sorted(loss.needs):
        require(getattr(batch, field) is not None, f"{loss.title} needs {field}: pass Batch(..., {field}=...)")
    if batch.user is not None:
        shape = tuple(batch.user.shape)
        require(shape == (B,), f"{loss.title}: user must have shape ({B},), got {shape}")
    if batch.positives is not None:
        rows = len(batch.positives.offsets) - 1
        require(rows == B, f"{loss.title}: positives must have {B} segments, got {rows}")
