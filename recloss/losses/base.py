"""The contract of a loss: what it is given (`Batch`) and what it declares (`Loss`)."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from recloss.context import Context
from recloss.errors import require
from recloss.interactions import Segments
from recloss.soft_labels import SoftLabels
from recloss.thresholds import build_threshold, exact_thresholds


def _own_rows(rows: Tensor) -> Tensor:
    return rows


@dataclass(frozen=True)
class Batch:
    """Everything a loss may read about B training positives; a loss names what it needs beyond ``pos`` and ``neg``.

    Attributes:
        pos: (B,) scores of the positives.
        neg: (B, N) scores of each positive's negatives; N = 0 for a loss that is not ``sampled``.
        phase: which of the loss's phases asks (see ``Loss.passes``).
        gather: gives the (B', ...) rows of the whole batch for this process's (B, ...) rows, without gradient; with one
            process they are the same. State per user or per pair is written from gathered rows, so that it stays equal
            on all ranks.
        user: (B,) int64 user of each positive.
        item: (B,) int64 item of each positive.
        neg_item: (B, N) int64 items of the negatives.
        pair: (B,) int64 place of each (user, item) among the training pairs.
        n_positives: (B,) int64 number of training positives of each row's user.
        positives: scores of all training positives of each row's user, as CSR segments over the B rows, detached.
        pos_rank: (B,) int64 rank of the positive among all items: 1 + number of items with a larger score.
        neg_rank: (B, N) int64 ranks of the negatives.
        log_q: (B, N) log of the probability that the sampler draws the negative, relative to 1 / n_items.
        logits: (B, I) scores of all items.
        soft_targets: soft labels of each row, over few of all items.
    """

    pos: Tensor
    neg: Tensor
    phase: str = "fit"
    gather: Callable[[Tensor], Tensor] = _own_rows
    user: Tensor | None = None
    item: Tensor | None = None
    neg_item: Tensor | None = None
    pair: Tensor | None = None
    n_positives: Tensor | None = None
    positives: Segments | None = None
    pos_rank: Tensor | None = None
    neg_rank: Tensor | None = None
    log_q: Tensor | None = None
    logits: Tensor | None = None
    soft_targets: SoftLabels | None = None


@dataclass(frozen=True)
class Phase:
    """One optimiser step on a batch.

    Attributes:
        name: what ``Batch.phase`` says in this step.
        trains: names of the parameter groups that move ("model" is the backbone's); ``None`` for all of them.
    """

    name: str = "fit"
    trains: frozenset[str] | None = None


class Loss(nn.Module, ABC):
    """Base of all losses.

    Hyper-parameters are keyword-only constructor arguments with the paper's default. Sizes of learnable or remembered
    state come as ``n_users``, ``n_items``, ``n_pairs`` or ``n_negatives``. All state lives in ``state_dict``; in
    evaluation mode no call changes it.
    """

    name: ClassVar[str]
    """Name in code, YAML files and tables' data."""
    title: ClassVar[str]
    """Name as the papers print it."""
    similarity: ClassVar[str] = "cosine"
    """"cosine" or "dot", in training and in evaluation."""
    needs: frozenset[str] = frozenset()
    """Fields of ``Batch`` it reads beyond ``pos`` and ``neg``."""
    sampled: bool = True
    """Whether it reads sampled negatives; if not, ``neg`` has no columns."""
    per_row: bool = False
    """Whether the value is a mean over rows of which none sees another, nor state that the batch itself writes: then
    the values and gradients of a batch's pieces, weighted by their share of the rows, add up to the batch's."""
    user_parameters: ClassVar[tuple[str, ...]] = ()
    """Names of parameters with a row per user that this user's training rows alone move (see `recloss.parallel`)."""
    _seen_a_batch = False

    def forward(self, batch: Batch) -> Tensor:
        """Scalar loss of a batch, computed in float32 or float64 also under autocast.

        Warns:
            UserWarning: once, if the loss is for cosines and the first batch's scores leave [-1, 1].

        Raises:
            ValueError: if a field has the wrong shape or is missing.
        """
        _check(self, batch)
        if not self._seen_a_batch:
            self._seen_a_batch = True
            _warn_of_scores_that_are_no_cosines(self, batch)
        with torch.autocast(batch.pos.device.type, enabled=False):
            dtype = torch.promote_types(torch.promote_types(batch.pos.dtype, batch.neg.dtype), torch.float32)
            logits = None if batch.logits is None else batch.logits.to(dtype)
            soft = None if batch.soft_targets is None else batch.soft_targets.to(dtype)
            pos, neg = batch.pos.to(dtype), batch.neg.to(dtype)
            return self.compute(replace(batch, pos=pos, neg=neg, logits=logits, soft_targets=soft))

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

    @property
    def thresholds(self) -> Tensor | None:
        """(n_users,) thresholds that scores are compared with, without gradient; ``None`` if there are none."""
        return None

    def exact_thresholds(self, u_UD: Tensor, v_ID: Tensor) -> Tensor | None:
        """(U,) top-K thresholds that ``thresholds`` estimate, of these users' and all items' prepared embeddings.

        ``None`` where they estimate none.
        """
        return None


class ThresholdLoss(Loss, ABC):
    """Base of the losses that compare scores with the user's top-K threshold, by any estimator of it.

    Args:
        n_users: number of users.
        n_items: size of the catalogue.
        k: the cut-off K.
        threshold: "regression", "monte_carlo", "exact" or "smoothed" (see `recloss.thresholds`).
        threshold_lr: learning rate of a "regression" or "smoothed" threshold.
        refresh: epochs between estimates of a "monte_carlo" or "exact" threshold.
        samples: negatives drawn per user for a "monte_carlo" estimate.
    """

    def __init__(
        self,
        n_users: int,
        n_items: int,
        *,
        k: int = 20,
        threshold: str = "regression",
        threshold_lr: float = 1e-3,
        refresh: int = 5,
        samples: int = 1000,
    ) -> None:
        super().__init__()
        self.threshold = build_threshold(
            threshold, n_users, n_items, k=k, lr=threshold_lr, refresh=refresh, samples=samples
        )
        self.needs = self.needs | self.threshold.needs
        self.per_row = self.per_row and self.threshold.per_row

    def with_fit(self, value: Tensor, batch: Batch) -> Tensor:
        """``value`` plus the threshold's own loss, where it has one; called once per batch, after its last use."""
        fit = self.threshold.fit(batch)
        return value if fit is None else value + fit

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """The thresholds, where they are learned by the optimiser."""
        return self.threshold.parameter_groups()

    def on_epoch_start(self, context: Context) -> None:
        """Refresh the thresholds when they are due."""
        self.threshold.on_epoch_start(context)

    @property
    def thresholds(self) -> Tensor | None:
        """Those of its estimator; ``None`` for a variant that does not use it."""
        return self.threshold.value.detach() if self.threshold.needs <= self.needs else None

    def exact_thresholds(self, u_UD: Tensor, v_ID: Tensor) -> Tensor | None:
        """The K-th largest scores; ``None`` for a variant that does not use them."""
        return None if self.thresholds is None else exact_thresholds(u_UD, v_ID, self.threshold.k)


def last_of_each(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct keys among (B,), and the row in which each occurs last: what is stored of rows that overwrite."""
    distinct, place = keys.unique(return_inverse=True)
    rows = torch.arange(len(place), device=place.device)
    return distinct, place.new_zeros(len(distinct)).scatter_reduce(0, place, rows, "amax")


_PER_ROW = frozenset({"user", "item", "pair", "n_positives", "pos_rank"})
_PER_NEGATIVE = frozenset({"neg_item", "neg_rank", "log_q"})
OPTIONAL_FIELDS = frozenset(field.name for field in fields(Batch) if field.default is None)
"""Names of the fields of ``Batch`` that ``Loss.needs`` may list."""


def _check(loss: Loss, batch: Batch) -> None:
    B = batch.pos.shape[0] if batch.pos.dim() else -1
    require(batch.pos.dim() == 1, f"{loss.title}: pos must have shape (B,), got {tuple(batch.pos.shape)}")
    shape = tuple(batch.neg.shape)
    require(batch.neg.dim() == 2 and shape[0] == B, f"{loss.title}: neg must have shape ({B}, N), got {shape}")
    require(B > 0, f"{loss.title}: the batch has no row")
    require(shape[1] > 0 or not loss.sampled, f"{loss.title}: neg must have at least one column, got {shape}")
    for field in sorted(loss.needs):
        value = getattr(batch, field)
        require(value is not None, f"{loss.title} needs {field}: pass Batch(..., {field}=...)")
        if field in ("positives", "soft_targets"):
            rows = len((value if field == "positives" else value.items).offsets) - 1
            require(rows == B, f"{loss.title}: {field} must have {B} segments, got {rows}")
            continue
        wanted = (B,) if field in _PER_ROW else shape if field in _PER_NEGATIVE else (B, value.shape[-1])
        require(value.shape == wanted, f"{loss.title}: {field} must have shape {wanted}, got {tuple(value.shape)}")


def _warn_of_scores_that_are_no_cosines(loss: Loss, batch: Batch) -> None:
    if loss.similarity != "cosine":
        return
    scores = [x.detach() for x in (batch.pos, batch.neg, batch.logits) if x is not None and x.numel()]
    largest = max(float(x.abs().max()) for x in scores)
    if largest > 1.001:
        warnings.warn(
            f"{loss.title} is for cosines in [-1, 1] and got a score of size {largest:.3g}: "
            "normalise the embeddings, or choose its temperatures for your scale",
            stacklevel=4,
        )
