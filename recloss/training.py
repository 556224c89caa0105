"""The epoch loop: plain PyTorch, in one process or over the ranks of an initialised ``torch.distributed``.

Every random draw is a function of (seed, epoch, position in the epoch). A rank owns a part of the users and takes their
rows of each global batch, weighted by their share of it (`recloss.parallel`). What has a row per user is trained by its
owner alone; gradients of all else, such as the items' table, are summed over the ranks. So any number of ranks trains
the same model up to rounding, and between epochs all hold the same to the bit; a run resumed from its checkpoint equals
an uninterrupted one to the bit.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from recloss import native
from recloss.backbones import Backbone
from recloss.context import Context
from recloss.errors import require
from recloss.evaluation import evaluate, evaluating
from recloss.interactions import Interactions, Segments
from recloss.losses import Batch, Loss, Phase
from recloss.parallel import Rows, Shard, user_parameters
from recloss.randomness import permutation, stream_key
from recloss.sampling import Sampler, UniformNegatives, WholeBatch
from recloss.similarity import pair_scores, prepare, segment_scores
from recloss.soft_labels import ClusterLabels, SoftLabels


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

    ``threshold`` is the users' mean, for a loss that has top-K thresholds.
    """

    epoch: int
    loss: float
    metrics: dict[str, float]
    seconds: float
    time: float
    threshold: float | None = None


@dataclass(frozen=True)
class FitResult:
    """Outcome of a run; the model and the loss hold the state of ``best_epoch``."""

    best_epoch: int
    best: float
    history: list[Validation]


Positives = Callable[[int, int], Iterable[tuple[Tensor, ...]]]
"""Called with an epoch and the number of a pass in it, from 0; gives the batches (users, items) of that pass over the
training positives, the same on all ranks. For a backbone that embeds histories, (users, items, windows): see
`recloss.sequences.Windows`."""


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


def fit(
    backbone: Backbone,
    loss: Loss,
    train: Interactions,
    valid: Interactions,
    settings: FitSettings,
    *,
    sampler: Sampler | None = None,
    positives: Positives | None = None,
    hidden: Interactions | None = None,
    soft_labels: ClusterLabels | None = None,
    micro_batch: int | None = None,
    checkpoint: Path | None = None,
    on_validation: Callable[[Validation], None] | None = None,
) -> FitResult:
    """Train until the budget or the patience ends; leave the best validated state in ``backbone`` and ``loss``.

    The process keeps the memory that training once used (see `recloss.native.keep_freed_memory`).

    Args:
        backbone, loss: modules on one device, which is where training happens.
        train, valid: interactions; training positives are hidden in validation.
        settings: the budget and batching.
        sampler: draws the negatives, on the CPU or the modules' device like ``train``; uniform outside the user's
            training positives by default.
        positives: where each pass over ``train`` takes its batches from, on the modules' device or the CPU; by default
            all pairs in a seeded random order, ``settings.batch_size`` at a time. Pairs that are not in ``train``, or
            not all of them, are not noticed.
        hidden: interactions that validation hides instead of ``train``; of sequences, in which an item may come again,
            ``train.without(valid)``.
        soft_labels: for losses that need ``soft_targets``, those of each of the pairs of ``train``.
        micro_batch: rows that one process scores at a time, for less memory; the gradients of a batch's pieces add up
            to one optimiser step, the same up to rounding. Only for losses that are ``per_row``.
        checkpoint: file written atomically after every validation and resumed from if it is there, by any number of
            ranks; give it to all of them.
        on_validation: called with each new validation, after its checkpoint is on disk (on every rank).

    Raises:
        DivergedError: naming epoch and step of the first loss that is not finite.
        ValueError: if the checkpoint is damaged or of other settings, the loss needs what this loop does not offer, or
            ``micro_batch`` is given with a loss that is not ``per_row``; with several ranks, if other users' rows move
            what is declared in ``user_parameters``.
    """
    native.keep_freed_memory()
    loop = _Loop(backbone, loss, train, valid, settings, sampler, positives, hidden, soft_labels, micro_batch)
    return loop.run(checkpoint, on_validation)


class _Loop:
    """One run."""

    def __init__(
        self,
        backbone: Backbone,
        loss: Loss,
        train: Interactions,
        valid: Interactions,
        settings: FitSettings,
        sampler: Sampler | None,
        positives: Positives | None,
        hidden: Interactions | None,
        soft_labels: ClusterLabels | None,
        micro_batch: int | None,
    ) -> None:
        unknown = sorted(loss.needs - FIELDS.keys())
        if unknown:
            raise ValueError(f"{loss.title} needs {', '.join(unknown)}, which training on pairs does not offer")
        if "soft_targets" in loss.needs and soft_labels is None:
            raise ValueError(f"{loss.title} needs soft_targets: pass fit(..., soft_labels=...)")
        if micro_batch is not None:
            require(micro_batch >= 1, f"micro_batch must be at least 1, got {micro_batch!r}")
            require(loss.per_row, f"{loss.title} looks at a batch as a whole: it cannot be trained in micro-batches")
        self.backbone, self.loss, self.settings = backbone, loss, settings
        device = next(backbone.parameters()).device
        self.train, self.valid = train.to(device), valid.to(device)
        self.hidden = self.train if hidden is None else hidden.to(device)
        self.soft_labels = None if soft_labels is None else soft_labels.to(device)
        self.sampler = sampler or UniformNegatives(self.train)
        self.positives, self.micro_batch = positives or self._shuffled, micro_batch
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.shard = Shard(self.train, self.rank, self.world)
        self.names = user_parameters(backbone, loss) if self.world > 1 else {}
        self.own = {parameter: self.shard.own(parameter) for parameter in self.names}
        self.groups = [
            {"name": "model", "params": list(backbone.parameters())},
            *loss.parameter_groups(settings.lr),
        ]
        groups = [{**group, "params": [self.own.get(p, p) for p in group["params"]]} for group in self.groups]
        self.optimizer = torch.optim.Adam(groups, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
        self.progress = _Progress()

    @property
    def epoch(self) -> int:
        return self.progress.epoch + 1

    def run(self, checkpoint: Path | None, on_validation: Callable[[Validation], None] | None) -> FitResult:
        if checkpoint is not None and checkpoint.exists():
            self._load(checkpoint)
        progress, settings = self.progress, self.settings
        with torch.random.fork_rng():
            while progress.epoch < settings.epochs and not self._patience_ended():
                started = time.perf_counter()
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

    def _patience_ended(self) -> bool:
        since_best = [v for v in self.progress.history if v.epoch > self.progress.best_epoch]
        return len(since_best) >= self.settings.patience

    def _train_epoch(self) -> float:
        """All passes of one epoch; the mean loss over the positives of its last pass."""
        torch.manual_seed(stream_key(self.settings.seed, self.epoch, "modules"))
        self.backbone.train()
        self.loss.train()
        with torch.no_grad():
            context = Context(self.epoch, self.train, self._evaluated_embeddings, self.settings.seed)
            self.loss.on_epoch_start(context)
        for number, steps in enumerate(self.loss.passes(self.epoch)):
            mean_loss = self._train_pass(number, steps)
        for parameter in self.own:
            self.shard.send(parameter)
        return mean_loss

    def _shuffled(self, epoch: int, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All training pairs in an order of this pass alone."""
        order = permutation(len(self.train), stream_key(self.settings.seed, epoch, f"order {number}"))
        for pairs in order.to(self.train.keys.device).split(self.settings.batch_size):
            yield self.train.user[pairs], self.train.item[pairs]

    def _train_pass(self, number: int, phases: Any) -> float:
        key = stream_key(self.settings.seed, self.epoch, f"negatives {number}")
        device = self.train.keys.device
        batches = (tuple(x.to(device) for x in batch) for batch in self.positives(self.epoch, number))
        losses, count = [], 0
        for rows in self.shard.rows(batches):
            for phase in phases:
                losses.append(self._step(phase, rows, key) * len(rows.batch_items))
            count += len(rows.batch_items)
        summed = torch.stack(losses)
        if self.world > 1:
            dist.all_reduce(summed)
        broken = torch.nonzero(~torch.isfinite(summed)).flatten()
        if len(broken):
            raise DivergedError(
                f"the loss is {float(summed[broken[0]])} in epoch {self.epoch}, step {int(broken[0]) + 1}"
            )
        return float(summed.sum()) / (count * len(phases))

    def _step(self, phase: Phase, rows: Rows, key: int) -> Tensor:
        """One optimiser step on this rank's rows, their loss weighted by their share of the batch."""
        trained: list[nn.Parameter] = []
        for group in self.groups:
            moves = phase.trains is None or group["name"] in phase.trains
            for parameter in group["params"]:
                parameter.requires_grad_(moves)
                parameter.grad = None
            trained += group["params"] if moves else []
        self.optimizer.zero_grad()
        loss = self._backward(phase, rows, key)
        self._reduce_gradients(trained)
        self.optimizer.step()
        return loss

    def _backward(self, phase: Phase, rows: Rows, key: int) -> Tensor:
        """This rank's part of the loss of the batch, after its backward pass; the parts of all ranks add up to it."""
        states, own, item_table = self.backbone.rows(rows.users, rows.windows)
        tables = states, prepare(item_table, self.loss.similarity)
        roots: dict[Tensor, Tensor | None] = {}
        if self.micro_batch is None:
            loss = self._loss(phase, rows, key, own, *tables)
            roots[loss] = None
        else:
            leaves = [table.detach().requires_grad_(table.requires_grad) for table in tables]
            loss = tables[1].new_zeros(())
            for piece, of_piece in zip(rows.pieces(self.micro_batch), own.split(self.micro_batch), strict=True):
                part = self._loss(phase, piece, key, of_piece, *leaves)
                part.backward()
                loss = loss + part.detach()
            roots |= {table: leaf.grad for table, leaf in zip(tables, leaves, strict=True) if leaf.grad is not None}
        if phase.trains is None or "model" in phase.trains:
            auxiliary = self.backbone.auxiliary_loss(rows.batch_users, rows.batch_items)
            if auxiliary is not None:
                auxiliary = auxiliary / self.world
                loss = loss + auxiliary
                roots[auxiliary] = None
        torch.autograd.backward(list(roots), list(roots.values()))
        return loss.detach()

    def _loss(self, phase: Phase, rows: Rows, key: int, own: Tensor, states: Tensor, v_ID: Tensor) -> Tensor:
        """These rows' part of the loss of the batch; ``own`` (B,) is the state of each."""
        n, labels = self.settings.negatives, self.soft_labels
        batch = filled(self.loss, self.train, self.sampler, n, rows, key, own, states, v_ID, phase, labels)
        return self.loss(batch) * rows.share

    def _reduce_gradients(self, trained: list[nn.Parameter]) -> None:
        """Sum the gradients over the ranks; of what has a row per user, the owner's is the sum already."""
        sums = []
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if parameter in self.own:
                self._take_own_gradient(parameter, parameter.grad)
            elif self.world > 1:
                sums.append(dist.all_reduce(parameter.grad, async_op=True))
        for pending in sums:
            pending.wait()

    def _take_own_gradient(self, parameter: nn.Parameter, grad: Tensor) -> None:
        own = self.own[parameter]
        if own not in self.optimizer.state and not self.shard.others_have_none(grad):
            raise ValueError(f"{self.names[parameter]} is in user_parameters, but other users' rows move it too")
        own.grad = self.shard.own(grad)

    def _evaluated_embeddings(self) -> tuple[Tensor, Tensor]:
        with evaluating(self.backbone):
            user_table, item_table = self.backbone.embed()
        return prepare(user_table, self.loss.similarity), prepare(item_table, self.loss.similarity)

    def _validate(self, mean_loss: float) -> Validation:
        progress, settings = self.progress, self.settings
        try:
            metrics = evaluate(self.backbone, self.loss.similarity, self.valid, [self.hidden], settings.cutoffs).mean()
        except FloatingPointError as error:
            raise DivergedError(f"after epoch {progress.epoch}: {error}") from None
        thresholds = self.loss.thresholds
        threshold = None if thresholds is None else float(thresholds.mean())
        validation = Validation(progress.epoch, mean_loss, metrics, progress.seconds, time.time(), threshold)
        progress.history.append(validation)
        if metrics[settings.metric] > progress.best:
            progress.best, progress.best_epoch = metrics[settings.metric], progress.epoch
            progress.best_state = {
                "backbone": {k: v.clone() for k, v in self.backbone.state_dict().items()},
                "loss": {k: v.clone() for k, v in self.loss.state_dict().items()},
            }
        return validation

    def _save(self, path: Path) -> None:
        optimizer = self._of_owned(self.optimizer.state_dict(), self.shard.whole)
        state = {
            "settings": asdict(self.settings) | {"cutoffs": list(self.settings.cutoffs)},
            "backbone": self.backbone.state_dict(),
            "loss": self.loss.state_dict(),
            "optimizer": optimizer,
            "progress": asdict(self.progress),
        }
        if self.rank == 0:
            save_atomically(path, state)

    def _of_owned(self, optimizer: dict[str, Any], change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """The optimiser's state with ``change`` made to its rows of users, whose owner alone has them."""
        state = dict(optimizer["state"])
        for index, parameter in enumerate(p for group in self.groups for p in group["params"]):
            if parameter in self.own and index in state:
                state[index] = {
                    key: change(x) if isinstance(x, Tensor) and x.dim() else x for key, x in state[index].items()
                }
        return optimizer | {"state": state}

    def _load(self, path: Path) -> None:
        saved = load_checkpoint(path)
        settings = asdict(self.settings) | {"cutoffs": list(self.settings.cutoffs)}
        if saved["settings"] != settings:
            other = sorted(key for key in settings if saved["settings"].get(key) != settings[key])
            raise ValueError(f"{path}: the checkpoint is of a run with another {', '.join(other)}")
        self._restore(saved)
        optimizer = self._of_owned(saved["optimizer"], lambda rows: self.shard.own(rows).clone())
        self.optimizer.load_state_dict(optimizer)
        progress = saved["progress"]
        history = [Validation(**validation) for validation in progress.pop("history")]
        self.progress = _Progress(**progress, history=history)

    def _restore(self, state: dict[str, Any]) -> None:
        self.backbone.load_state_dict(state["backbone"])
        self.loss.load_state_dict(state["loss"])


@dataclass(frozen=True)
class Scored:
    """What the optional fields of a ``Batch`` are made from: B rows' pairs and negatives, the data, the embeddings."""

    users: Tensor
    items: Tensor
    negatives: Tensor
    train: Interactions
    sampler: Sampler
    u_BD: Tensor
    v_ID: Tensor
    soft_labels: ClusterLabels | None = None

    @property
    def logits(self) -> Tensor:
        """(B, I) scores of all items."""
        return self.u_BD @ self.v_ID.T

    @cached_property
    def pairs(self) -> Tensor:
        """(B,) places of the rows' pairs among the training pairs."""
        return self.train.places(self.users, self.items)

    @property
    def soft_targets(self) -> SoftLabels:
        """Soft labels of the rows' pairs."""
        assert self.soft_labels is not None
        return self.soft_labels.of(self.pairs)

    @property
    def positives(self) -> Segments:
        """Scores of all training positives of each row's user, detached."""
        items = self.train.of(self.users)
        return items.with_values(segment_scores(self.u_BD, self.v_ID, items.values, items.offsets))

    @cached_property
    def ranks(self) -> Tensor:
        """(B, 1 + N) ranks of the positive and the negatives among all items."""
        items = torch.cat([self.items[:, None], self.negatives], 1)
        blocks = zip(self.u_BD.detach().split(_RANKED_ROWS), items.split(_RANKED_ROWS), strict=True)
        return torch.cat([_ranks(u @ self.v_ID.detach().T, own) for u, own in blocks])


_RANKED_ROWS = 128
"""Rows whose scores of all items are held at once to count ranks."""
_RANKS_BY_COUNTING = 8
"""Up to so many items per row, comparing each with all items is faster than sorting them."""


def _ranks(logits: Tensor, items: Tensor) -> Tensor:
    """(B, M) ranks of ``items`` (B, M) by ``logits`` (B, I)."""
    own = logits.gather(1, items)
    if own.shape[1] <= _RANKS_BY_COUNTING:
        return torch.stack([1 + (logits > column[:, None]).sum(1) for column in own.unbind(1)], 1)
    return 1 + logits.shape[1] - torch.searchsorted(logits.sort(1).values, own, right=True)


FIELDS: dict[str, Callable[[Scored], Any]] = {
    "user": lambda scored: scored.users,
    "item": lambda scored: scored.items,
    "neg_item": lambda scored: scored.negatives,
    "pair": lambda scored: scored.pairs,
    "n_positives": lambda scored: scored.train.degrees[scored.users],
    "positives": lambda scored: scored.positives,
    "pos_rank": lambda scored: scored.ranks[:, 0],
    "neg_rank": lambda scored: scored.ranks[:, 1:],
    "log_q": lambda scored: scored.sampler.log_q(scored.users, scored.negatives),
    "logits": lambda scored: scored.logits,
    "soft_targets": lambda scored: scored.soft_targets,
}
"""How each optional field of ``Batch`` is filled; a new kind of input is one entry."""


def filled(
    loss: Loss,
    train: Interactions,
    sampler: Sampler,
    n_negatives: int,
    rows: Rows,
    key: int,
    own: Tensor,
    states: Tensor,
    v_ID: Tensor,
    phase: Phase,
    soft_labels: ClusterLabels | None = None,
) -> Batch:
    """The batch of training pairs that a loss is given: negatives drawn, scores computed, the fields it needs filled.

    Args:
        loss, train, sampler: as given to `fit`.
        n_negatives: N; a loss that is not ``sampled`` gets none.
        rows: the pairs.
        key: of the stream of the negatives.
        own: (B,) row of ``states`` that each pair is scored with.
        states: (S, d) users' states as the backbone gives them; of a table of users, that table.
        v_ID: (I, d) embeddings of the items after `recloss.similarity.prepare`.
        phase: the step that asks.
        soft_labels: as given to `fit`.
    """
    n = n_negatives if loss.sampled else 0
    negatives = sampler.sample(rows.users, rows.positions, n, key, WholeBatch(rows.batch_items, rows.start))
    u_BD = prepare(F.embedding(own, states), loss.similarity)
    pos, neg = pair_scores(u_BD, v_ID, rows.items, negatives)
    scored = Scored(rows.users, rows.items, negatives, train, sampler, u_BD, v_ID, soft_labels)
    optional = {name: FIELDS[name](scored) for name in loss.needs}
    return Batch(pos, neg, phase.name, rows.gather, **optional)


def save_atomically(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain Python values; ``path`` holds either the old or the new state, never a part."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)  # on a full disk it would keep it full
        raise


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what ``save_atomically`` wrote; nothing but tensors and plain values is ever unpickled.

    Raises:
        ValueError: if the file is damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, ... for a damaged file
        raise ValueError(f"{path}: the checkpoint is damaged ({error})".splitlines()[0]) from error
