"""Training on pairs of users and items."""

import functools
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from pipelines.settings import Trial
from pipelines.train import mapped, stream
from pipelines.train.diagnostics import diagnose
from pipelines.train.folder import next_epoch
from pipelines.train.tasks.base import Run, Work, device, fit_settings
from recloss import backbones, losses, sampling
from recloss.backbones import Backbone
from recloss.errors import InputError
from recloss.evaluation import UserMetrics, evaluate
from recloss.interactions import Interactions
from recloss.loop import FitResult
from recloss.losses import Loss
from recloss.sampling import Sampler
from recloss.training import Positives, fit


def check(trial: Trial, manifest: dict[str, Any]) -> None:
    """Refuse what cannot work on a catalogue of this size, or without a pool of false negatives, before training.

    Raises:
        InputError: if a cut-off or a hyper-parameter exceeds the catalogue, the sampler needs a pool, or the loss what
            pairs do not have.
    """
    sizes = manifest["sizes"]
    if sampling.get(trial.sampler.name).needs_pool and "pool" not in sizes:
        raise InputError(
            f"sampler {trial.sampler.name!r} needs data with a pool of false negatives; "
            "prepare it with noise: {kind: false_negative_pool}"
        )
    if trial.task == "pairs" and "soft_targets" in losses.get(trial.loss.name).needs:
        raise InputError(
            f"loss {trial.loss.name!r} needs soft labels, which are made of users' sequences; "
            "it can be trained in a sweep of task: sequence"
        )
    check_catalogue(trial, sizes["users"], sizes["items"])


def check_catalogue(trial: Trial, n_users: int, n_items: int) -> None:
    """Refuse what exceeds the catalogue.

    Raises:
        InputError: naming the cut-off or the hyper-parameter.
    """
    if max(trial.protocol.cutoffs) > n_items:
        raise InputError(
            f"protocol.cutoffs: K = {max(trial.protocol.cutoffs)} is larger than the catalogue ({n_items} items)"
        )
    if trial.task == "reference":
        return
    sizes = {"n_users": n_users, "n_items": n_items, "n_pairs": 1, "n_negatives": 1}
    try:
        with torch.device("meta"):
            losses.build(trial.loss.name, trial.loss.params, **sizes, seed=0)
    except ValueError as error:
        raise InputError(f"loss {trial.loss.name!r}: {error}") from None


@functools.lru_cache(maxsize=4)
def training_splits(data: Path, fingerprint: str) -> tuple[Interactions, Interactions]:
    """Training and validation interactions, which all processes of a machine share.

    Raises:
        InputError: if the folder no longer holds the data set the trial was planned on.
    """
    return mapped.interactions(data, fingerprint, "train"), mapped.interactions(data, fingerprint, "valid")


def build(trial: Trial, train: Interactions) -> tuple[Backbone, Loss]:
    """Backbone and loss of a trial on this process's device."""
    backbone = backbones.build(trial.backbone.name, trial.backbone.params, train, trial.seed)
    return backbone.to(device()), loss_of(trial, train).to(device())


def loss_of(trial: Trial, train: Interactions) -> Loss:
    """The loss of a trial, sized for its training pairs."""
    sizes = {
        "n_users": train.n_users,
        "n_items": train.n_items,
        "n_pairs": len(train),
        "n_negatives": trial.train.negatives,
    }
    return losses.build(trial.loss.name, trial.loss.params, **sizes, seed=trial.seed)


def sampler_of(trial: Trial, data: Path, train: Interactions) -> Sampler:
    """The sampler of a trial, with the pool of false negatives that it may need."""
    needs_pool = sampling.get(trial.sampler.name).needs_pool
    pool = mapped.interactions(data, trial.data, "pool").to(train.user.device) if needs_pool else None
    return sampling.build_sampler(trial.sampler.name, trial.sampler.params, train, pool)


class PairWork(Work):
    """Training by `recloss.training.fit` on pairs, full-ranking evaluation."""

    def __init__(self, trial: Trial, data: Path) -> None:
        super().__init__(trial, data)
        train, valid = training_splits(data, trial.data)
        self.backbone, self.loss = build(trial, train)
        self.modules = {"backbone": self.backbone, "loss": self.loss}
        self.train, self.valid = train.to(device()), valid

    def fit(self, run: Run) -> FitResult:
        """From the pairs in memory, or with ``train.stream`` from a stream."""
        trial = self.trial
        streamed: AbstractContextManager[Positives | None] = nullcontext()
        if trial.train.stream:
            source = run.pairs or stream.dataset(trial, self.data, next_epoch(run.folder))
            streamed = stream.reading(source, len(self.train), trial.train.batch_size)
        with streamed as positives:
            return fit(
                self.backbone, self.loss, self.train, self.valid, fit_settings(self.trial),
                sampler=sampler_of(trial, self.data, self.train), positives=positives, micro_batch=run.micro_batch,
                checkpoint=run.checkpoint, on_validation=run.on_validation,
            )  # fmt: skip

    def test(self) -> UserMetrics:
        """All items but the training positives, with ``protocol.mask_valid`` the validation positives too."""
        hidden = [self.train, self.valid.to(device())] if self.trial.protocol.mask_valid else [self.train]
        test = mapped.interactions(self.data, self.trial.data, "test").to(device())
        cutoffs = self.trial.protocol.cutoffs
        return evaluate(self.backbone, self.loss.similarity, test, hidden, cutoffs, popularity=self.train)

    def diagnostics(self) -> dict[str, Any] | None:
        """Scores, gradients and thresholds."""
        sampler = sampler_of(self.trial, self.data, self.train)
        return diagnose(self.trial, self.backbone, self.loss, self.train, sampler)
