"""Training on the links of a graph, in one process: anchors are the sources of directed edges."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recloss.context import Context
from recloss.errors import InputError
from recloss.evaluation import evaluating
from recloss.interactions import Interactions, Segments
from recloss.links.evaluation import evaluate_links
from recloss.links.gcn import GCN
from recloss.links.links import Links
from recloss.links.negatives import linked_or_self
from recloss.loop import FitResult, FitSettings, Loop, Validation, check_finite
from recloss.losses import Batch, Loss, Phase
from recloss.randomness import permutation, stream_key
from recloss.sampling import UniformNegatives

CLIP = 1.0
"""The norm that the gradient of the backbone's parameters is clipped to in every step."""


def fit_links(
    backbone: GCN,
    loss: Loss,
    links: Links,
    settings: FitSettings,
    *,
    checkpoint: Path | None = None,
    on_validation: Callable[[Validation], None] | None = None,
) -> FitResult:
    """Train until the budget or the patience ends; leave the best validated state in ``backbone`` and ``loss``.

    Every training edge is a positive twice: of either node as the source (the loss's user) with the other as the target
    (its item). The edges of a batch carry no messages, in either direction, when it is scored. Negatives are uniform
    over the nodes that are neither the source nor linked with it in training. Thresholds are one per node.

    Args:
        backbone, loss: modules on one device, which is where training happens; users and items of the loss are nodes.
        links: the graph.
        settings: the budget and batching; ``metric`` is ``mrr`` or ``hit_rate_<K>``.
        checkpoint: file written atomically after every validation and resumed from if it is there.
        on_validation: called with each new validation, after its checkpoint is on disk.

    Raises:
        DivergedError: naming epoch and step of the first loss that is not finite.
        InputError: if the loss needs what this loop does not offer (see ``FIELDS``).
        ValueError: if the checkpoint is damaged or of other settings, or a node is linked with all others.
    """
    check_loss(loss)
    return _LinkLoop(backbone, loss, links, settings).run(checkpoint, on_validation)


def check_loss(loss: Loss | type[Loss]) -> None:
    """Refuse a loss, or a class of them by its defaults, that reads what training on links does not offer.

    Raises:
        InputError: naming it.
    """
    unknown = sorted(loss.needs - FIELDS.keys())
    if unknown:
        raise InputError(f"{loss.title} needs {', '.join(unknown)}, which training on links does not offer")


class _LinkLoop(Loop):
    """A run on links."""

    def __init__(self, backbone: GCN, loss: Loss, links: Links, settings: FitSettings) -> None:
        self.backbone, self.loss, self.links = backbone, loss, links
        self.device = next(backbone.parameters()).device
        self.train = links.neighbours.to(self.device)
        self.sampler = UniformNegatives(linked_or_self(links.train, links.n_nodes).to(self.device))
        self.groups: list[dict[str, Any]] = [
            {"name": "model", "params": list(backbone.parameters())},
            *loss.parameter_groups(settings.lr),
        ]
        optimizer = torch.optim.Adam(self.groups, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
        super().__init__({"backbone": backbone, "loss": loss}, optimizer, settings)

    def _train_epoch(self) -> float:
        """All passes of one epoch; the mean loss over the directed edges of its last pass."""
        with torch.no_grad():
            self.loss.on_epoch_start(self._context())
        for number, phases in enumerate(self.loss.passes(self.epoch)):
            mean_loss = self._train_pass(number, phases)
        return mean_loss

    def _context(self) -> "_NodeContext":
        """The model as hooks of the loss see it: in evaluation mode, messages on all training edges."""

        def vectors() -> tuple[Tensor, Tensor]:
            with evaluating(self.backbone):
                z = self.backbone.embed()
            return z, z

        def scores(z: Tensor, sources: Tensor) -> Tensor:
            targets = torch.arange(len(z), device=z.device).expand(len(sources), -1)
            with evaluating(self.backbone):
                return self.backbone.score(z, sources, targets, self.loss.similarity)

        return _NodeContext(self.epoch, self.train, vectors, scores, self.sampler, self.settings.seed)

    def _train_pass(self, number: int, phases: Any) -> float:
        settings = self.settings
        key = stream_key(settings.seed, self.epoch, f"negatives {number}")
        order = permutation(len(self.train), stream_key(settings.seed, self.epoch, f"order {number}")).to(self.device)
        losses, start = [], 0
        for pairs in order.split(settings.batch_size):
            positions = torch.arange(start, start + len(pairs), device=self.device)
            sources, targets = self.train.user[pairs], self.train.item[pairs]
            negatives = self.sampler.sample(sources, positions, settings.negatives, key)
            rows = _Rows(pairs, sources, targets, negatives)
            losses += [self._step(phase, rows) * len(pairs) for phase in phases]
            start += len(pairs)
        summed = torch.stack(losses)
        check_finite(summed, self.epoch)
        return float(summed.sum()) / (start * len(phases))

    def _step(self, phase: Phase, rows: "_Rows") -> Tensor:
        for group in self.groups:
            moves = phase.trains is None or group["name"] in phase.trains
            for parameter in group["params"]:
                parameter.requires_grad_(moves)
        self.optimizer.zero_grad()
        loss = self._loss(phase, rows)
        loss.backward()
        nn.utils.clip_grad_norm_(self.groups[0]["params"], CLIP)
        self.optimizer.step()
        return loss.detach()

    def _loss(self, phase: Phase, rows: "_Rows") -> Tensor:
        z = self.backbone.embed(without=torch.stack([rows.sources, rows.targets], 1))
        both = torch.cat([rows.targets[:, None], rows.negatives], 1)
        scores = self.backbone.score(z, rows.sources, both, self.loss.similarity)
        scored = _Scored(rows, self.train, self.backbone, z.detach(), self.loss.similarity)
        optional = {name: FIELDS[name](scored) for name in self.loss.needs}
        batch = Batch(scores[:, 0], scores[:, 1:].contiguous(), phase.name, **optional)
        if self.backbone.decoder_name != "mlp":
            return self.loss(batch)
        with warnings.catch_warnings():  # of scores that are no cosines: the logits of the MLP are meant to be none
            warnings.simplefilter("ignore", UserWarning)
            return self.loss(batch)

    def _measure(self) -> dict[str, float]:
        return evaluate_links(self.backbone, self.loss.similarity, self.links, "valid", self.settings.cutoffs).mean()

    def threshold(self) -> float | None:
        """The nodes' mean."""
        thresholds = self.loss.thresholds
        return None if thresholds is None else float(thresholds.mean())


class _NodeContext(Context):
    """Nodes as users and as items; a node is no candidate of its own.

    Args:
        epoch, train, embed, seed: as of ``Context``; both embeddings are the nodes' vectors.
        score: gives the (B, n_nodes) scores of sources (B,) from the nodes' vectors.
        sampler: draws nodes that are neither the source nor linked with it.
    """

    def __init__(
        self,
        epoch: int,
        train: Interactions,
        embed: Callable[[], tuple[Tensor, Tensor]],
        score: Callable[[Tensor, Tensor], Tensor],
        sampler: UniformNegatives,
        seed: int,
    ) -> None:
        super().__init__(epoch, train, embed, seed)
        self._score, self._of_nodes, self._key_seed = score, sampler, seed

    def scores(self, users: Tensor) -> Tensor:
        """(len(users), n_nodes) scores; -inf for a node with itself."""
        z, _ = self._embeddings
        return self._score(z, users).scatter(1, users[:, None], -torch.inf)

    def negatives(self, users: Tensor, n: int, purpose: str) -> Tensor:
        """As ``Context.negatives``, and never the node itself."""
        return self._of_nodes.sample(users, users, n, stream_key(self._key_seed, self.epoch, purpose))


@dataclass(frozen=True)
class _Rows:
    """B directed edges: their places among the training edges' directions, their nodes, (B, N) negatives."""

    pairs: Tensor
    sources: Tensor
    targets: Tensor
    negatives: Tensor


@dataclass(frozen=True)
class _Scored:
    """What the optional fields of a ``Batch`` are made from."""

    rows: _Rows
    train: Interactions
    backbone: GCN
    z: Tensor
    similarity: str

    @property
    def positives(self) -> Segments:
        """Scores of all training neighbours of each row's source, detached."""
        linked = self.train.of(self.rows.sources)
        sources, targets = self.rows.sources[linked.rows], linked.values[:, None]
        with torch.no_grad():
            return linked.with_values(self.backbone.score(self.z, sources, targets, self.similarity)[:, 0])


FIELDS: dict[str, Callable[[_Scored], Any]] = {
    "user": lambda scored: scored.rows.sources,
    "item": lambda scored: scored.rows.targets,
    "neg_item": lambda scored: scored.rows.negatives,
    "pair": lambda scored: scored.rows.pairs,
    "n_positives": lambda scored: scored.train.degrees[scored.rows.sources],
    "positives": lambda scored: scored.positives,
}
"""How each optional field of ``Batch`` is filled; a loss that needs another is refused."""
