"""Training of a scorer of documents on lists, in one process, by the loop that all tasks share.

Every random draw is a function of (seed, epoch, place in the data), so a run resumed from its checkpoint equals an
uninterrupted one to the bit.
"""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from recloss.errors import require
from recloss.loop import FitResult, FitSettings, Loop, Validation, check_finite
from recloss.randomness import permutation, stream_key
from recloss.ranking.lists import Lists
from recloss.ranking.losses import ListLoss
from recloss.ranking.metrics import evaluate
from recloss.ranking.scorers import ListScorer


def fit_lists(
    scorer: ListScorer,
    loss: ListLoss,
    train: Lists,
    valid: Lists,
    settings: FitSettings,
    *,
    slate: int = 240,
    checkpoint: Path | None = None,
    on_validation: Callable[[Validation], None] | None = None,
) -> FitResult:
    """Train until the budget or the patience ends; leave the best validated state in ``scorer`` and ``loss``.

    A batch is ``settings.batch_size`` queries in a random order of the epoch; ``settings.negatives`` has no effect.
    Validation measures NDCG on all documents of each query, and leaves queries without a relevant document out.

    Args:
        scorer, loss: modules on one device, which is where training happens.
        train, valid: lists of documents.
        settings: the budget and batching.
        slate: documents of a query in a batch at most; of a longer list so many are drawn in each epoch.
        checkpoint: file written atomically after every validation and resumed from if it is there.
        on_validation: called with each new validation, after its checkpoint is on disk.

    Raises:
        DivergedError: naming epoch and step of the first loss that is not finite.
        ValueError: if ``train`` has no document, ``valid`` no relevant one, ``slate`` is below 2, or the checkpoint is
            damaged or of other settings.
    """
    return _ListLoop(scorer, loss, train, valid, settings, slate).run(checkpoint, on_validation)


_LENGTHS = (8, 16, 32, 64, 128, 256, 512, 1024)
"""Lists up to each of these lengths are scored together."""


class _ListLoop(Loop):
    """One run."""

    def __init__(
        self, scorer: ListScorer, loss: ListLoss, train: Lists, valid: Lists, settings: FitSettings, slate: int
    ) -> None:
        require(slate >= 2, f"slate must be at least 2, got {slate!r}")
        require(len(train) > 0, "the training lists have no document")
        parameters = [*scorer.parameters(), *loss.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
        super().__init__({"backbone": scorer, "loss": loss}, optimizer, settings)
        device = parameters[0].device
        self.scorer, self.loss, self.slate = scorer, loss, slate
        self.train, self.valid = train.to(device), valid.to(device)
        self.queries = self.train.lengths.nonzero().flatten()

    def _train_epoch(self) -> float:
        seed, losses, counts = self.settings.seed, [], []
        order = permutation(len(self.queries), stream_key(seed, self.epoch, "order 0")).to(self.queries.device)
        drawn = stream_key(seed, self.epoch, "slates")
        for queries in self.queries[order].split(self.settings.batch_size):
            places = self.train.places(queries, slate=self.slate, key=drawn)
            features, grades = self.train.at(places)
            self.optimizer.zero_grad()
            value = self.loss(self._scores(features, places >= 0), grades)
            value.backward()
            self.optimizer.step()
            losses.append(value.detach())
            counts.append(len(queries))
        check_finite(torch.stack(losses), self.epoch)
        return float(torch.stack(losses) @ losses[0].new_tensor(counts)) / sum(counts)

    def _scores(self, features: Tensor, present: Tensor) -> Tensor:
        """(B, L) scores; lists of like lengths are scored together, because padding costs as much as documents do."""
        lengths = present.sum(1)
        group = torch.bucketize(lengths, lengths.new_tensor(_LENGTHS))
        rows = [(group == size).nonzero().flatten() for size in group.unique().tolist()]
        parts = []
        for own in rows:
            width = int(lengths[own].max())
            scores = self.scorer(features[own, :width], present[own, :width])
            parts.append(F.pad(scores, (0, present.shape[1] - width)))
        return torch.cat(parts)[torch.cat(rows).argsort()]

    def _measure(self) -> dict[str, float]:
        return evaluate(self.scorer, self.valid, self.settings.cutoffs).mean()
