"""Training on users' sequences."""

import functools
from pathlib import Path
from typing import Any

from pipelines.settings import Trial
from pipelines.train import mapped
from pipelines.train.folder import progress
from pipelines.train.soft_labels import soft_labels, softmax_trial
from pipelines.train.tasks.base import Run, Work, device, fit_settings
from pipelines.train.tasks.pairs import check as check_pairs
from pipelines.train.tasks.pairs import loss_of, sampler_of
from recloss import backbones, losses
from recloss.backbones import SequenceBackbone
from recloss.errors import InputError
from recloss.evaluation import UserMetrics, evaluate
from recloss.loop import FitResult
from recloss.losses import Loss
from recloss.sequences import Sequences, Windows
from recloss.soft_labels import ClusterLabels
from recloss.training import fit


def check(trial: Trial, manifest: dict[str, Any]) -> None:
    """As for pairs; a bias of items has no place in cosines, and soft labels have no more clusters than users.

    Raises:
        InputError: saying why.
    """
    check_pairs(trial, manifest)
    if trial.backbone.params["output"] == "linear" and losses.get(trial.loss.name).similarity == "cosine":
        raise InputError(
            f"backbone.output: linear has a bias, which means nothing in the cosines of the loss {trial.loss.name!r}; "
            "give backbone.output: table or tied"
        )
    if trial.soft_labels is not None and trial.soft_labels.clusters > manifest["sizes"]["users"]:
        raise InputError(
            f"soft_labels.clusters: {trial.soft_labels.clusters} are more than the {manifest['sizes']['users']} users"
        )


@functools.lru_cache(maxsize=4)
def _training_sequences(data: Path, fingerprint: str) -> tuple[Sequences, Sequences]:
    return mapped.sequences(data, fingerprint, "train"), mapped.sequences(data, fingerprint, "valid")


class SequenceWork(Work):
    """Training by `recloss.training.fit` on windows of sequences, full-ranking evaluation of the next item.

    What a user had may come again: where it is the answer it is a candidate, elsewhere the history is hidden.
    """

    def __init__(self, trial: Trial, data: Path) -> None:
        super().__init__(trial, data)
        self.histories, self.next = _training_sequences(data, trial.data)
        self.train = self.histories.interactions()
        backbone = backbones.build_sequential(trial.backbone.name, trial.backbone.params, self.histories, trial.seed)
        self.backbone = backbone.to(device())
        self.loss: Loss = loss_of(trial, self.train).to(device())
        self.modules = {"backbone": self.backbone, "loss": self.loss}
        self.train = self.train.to(device())

    def fit(self, run: Run) -> FitResult:
        """On the windows of ``train.positions``, with the soft labels that the loss may need."""
        labels = self._soft_labels(run) if self.trial.soft_labels else None
        valid = self.next.interactions().to(device())
        return fit(
            self.backbone, self.loss, self.train, valid, fit_settings(self.trial),
            sampler=sampler_of(self.trial, self.data, self.train), positives=self.windows(),
            hidden=self.train.without(valid), soft_labels=labels, micro_batch=run.micro_batch,
            checkpoint=run.checkpoint, on_validation=run.on_validation,
        )  # fmt: skip

    def _soft_labels(self, run: Run) -> ClusterLabels:
        def trained(folder: Path) -> SequenceBackbone:
            run.pause()
            progress(folder)  # a damaged checkpoint goes
            first = SequenceWork(softmax_trial(self.trial), self.data)
            first.fit(Run(folder, lambda _: run.pause(), run.pause, run.micro_batch))
            return first.backbone

        return soft_labels(self.trial, run.folder, self.windows(), self.train, trained)

    def windows(self) -> Windows:
        """The training rows.

        Raises:
            InputError: if there are none.
        """
        train = self.trial.train
        try:
            return Windows(
                self.histories,
                positions=train.positions,
                length=self.backbone.length,
                batch_size=train.batch_size,
                seed=self.trial.seed,
            )
        except ValueError as error:
            raise InputError(f"{self.data}: in training {error}") from None

    def test(self) -> UserMetrics:
        """Users after their training and validation items."""
        test = mapped.sequences(self.data, self.trial.data, "test").interactions().to(device())
        hidden = [part.without(test) for part in (self.train, self.next.interactions().to(device()))]
        with self.backbone.reading(self.histories.followed_by(self.next)):
            cutoffs = self.trial.protocol.cutoffs
            return evaluate(self.backbone, self.loss.similarity, test, hidden, cutoffs, popularity=self.train)
