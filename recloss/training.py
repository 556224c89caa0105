"""Training on pairs and sequences: plain PyTorch, in one process or over the ranks of ``torch.distributed``.

Every random draw is a function of (seed, epoch, position in the epoch). A rank owns a part of the users and takes their
rows of each global batch, weighted by their share of it (`recloss.parallel`). What has a row per user is trained by its
owner alone; gradients of all else, such as the items' table, are summed over the ranks. So any number of ranks trains
the same model up to rounding, and between epochs all hold the same to the bit; a run resumed from its checkpoint equals
an uninterrupted one to the bit.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from recloss.backbones import Backbone
from recloss.context import Context
from recloss.errors import require
from recloss.evaluation import evaluate, evaluating
from recloss.interactions import Interactions, Segments
from recloss.loop import FitResult, FitSettings, Loop, Validation, check_finite
from recloss.losses import Batch, Loss, Phase
from recloss.parallel import Rows, Shard, user_parameters
from recloss.randomness import permutation, stream_key
from recloss.sampling import Sampler, UniformNegatives, WholeBatch
from recloss.similarity import pair_scores, prepare, segment_scores
from recloss.soft_labels import ClusterLabels, SoftLabels

Positives = Callable[[int, int], Iterable[tuple[Tensor, ...]]]
"""Called with an epoch and the number of a pass in it, from 0; gives the batches (users, items) of that pass over the
training positives, the same on all ranks. For a backbone that embeds histories, (users, items, windows): see
`recloss.sequences.Windows`."""

THRESHOLD_USERS = 500
"""Users whose estimated thresholds are compared with the exact ones at a validation, at most."""


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
    loop = _Loop(backbone, loss, train, valid, settings, sampler, positives, hidden, soft_labels, micro_batch)
    return loop.run(checkpoint, on_validation)


class _Loop(Loop):
    """A run on pairs or windows."""

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
        self.backbone, self.loss = backbone, loss
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
        optimizer = torch.optim.Adam(groups, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
        super().__init__({"backbone": backbone, "loss": loss}, optimizer, settings)

    def _train_epoch(self) -> float:
        """All passes of one epoch; the mean loss over the positives of its last pass."""
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
        check_finite(summed, self.epoch)
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

    def _measure(self) -> dict[str, float]:
        settings = self.settings
        return evaluate(self.backbone, self.loss.similarity, self.valid, [self.hidden], settings.cutoffs).mean()

    def _thresholds(self) -> dict[str, float]:
        """The error of up to ``THRESHOLD_USERS`` users, drawn by the seed."""
        estimated = self.loss.thresholds
        if estimated is None:
            return {}
        with torch.no_grad():
            u_UD, v_ID = self._evaluated_embeddings()
        drawn = permutation(len(u_UD), stream_key(self.settings.seed, 0, "threshold users"))[:THRESHOLD_USERS]
        users, mean = drawn.to(u_UD.device), {"threshold": float(estimated.mean())}
        exact = self.loss.exact_thresholds(u_UD[users], v_ID)
        return mean if exact is None else mean | {"threshold_error": float((estimated[users] - exact).abs().mean())}

    def optimizer_state(self) -> dict[str, Any]:
        """With the rows of all ranks' users."""
        return self._of_owned(self.optimizer.state_dict(), self.shard.whole)

    def load_optimizer(self, state: dict[str, Any]) -> None:
        """Set it, with this rank's users' rows alone."""
        self.optimizer.load_state_dict(self._of_owned(state, lambda rows: self.shard.own(rows).clone()))

    def _of_owned(self, optimizer: dict[str, Any], change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """The optimiser's state with ``change`` made to its rows of users, whose owner alone has them."""
        state = dict(optimizer["state"])
        for index, parameter in enumerate(p for group in self.groups for p in group["params"]):
            if parameter in self.own and index in state:
                state[index] = {
                    key: change(x) if isinstance(x, Tensor) and x.dim() else x for key, x in state[index].items()
                }
        return optimizer | {"state": state}


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
