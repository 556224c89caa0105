"""From a trial's settings to what the library trains with: data, backbone, loss, sampler's pool, settings of `fit`."""

import functools
from pathlib import Path

import torch

from pipelines.settings import REFERENCE, Trial
from pipelines.train import mapped
from recloss import backbones, losses, sampling
from recloss.backbones import Backbone
from recloss.errors import InputError
from recloss.interactions import Interactions
from recloss.losses import Loss
from recloss.training import FitSettings


def check_fits(trial: Trial, n_users: int, n_items: int, *, pool: bool = False) -> None:
    """Refuse what cannot work on a catalogue of this size, or without a pool of false negatives, before training.

    Raises:
        InputError: if a cut-off or a hyper-parameter exceeds the catalogue, or the sampler needs a pool.
    """
    if sampling.get(trial.sampler.name).needs_pool and not pool:
        raise InputError(
            f"sampler {trial.sampler.name!r} needs data with a pool of false negatives; "
            "prepare it with noise: {kind: false_negative_pool}"
        )
    if max(trial.protocol.cutoffs) > n_items:
        raise InputError(
            f"protocol.cutoffs: K = {max(trial.protocol.cutoffs)} is larger than the catalogue ({n_items} items)"
        )
    if trial.task == REFERENCE:
        return
    if "soft_targets" in losses.get(trial.loss.name).needs:
        raise InputError(
            f"loss {trial.loss.name!r} needs soft labels, which sweeps do not make yet; "
            "recloss.training.fit(..., soft_labels=...) trains with it"
        )
    try:
        with torch.device("meta"):
            losses.build(
                trial.loss.name, trial.loss.params, n_users=n_users, n_items=n_items, n_pairs=1, n_negatives=1, seed=0
            )
    except ValueError as error:
        raise InputError(f"loss {trial.loss.name!r}: {error}") from None


@functools.lru_cache(maxsize=4)
def training_splits(data: Path, fingerprint: str) -> tuple[Interactions, Interactions]:
    """Training and validation interactions, which all processes of a machine share; the test split stays on disk.

    Raises:
        InputError: if the folder no longer holds the data set the trial was planned on.
    """
    return mapped.interactions(data, fingerprint, "train"), mapped.interactions(data, fingerprint, "valid")


def build(trial: Trial, train: Interactions) -> tuple[Backbone, Loss]:
    """Backbone and loss of a trial on this process's device."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone = backbones.build(trial.backbone.name, trial.backbone.params, train, trial.seed)
    sizes = {
        "n_users": train.n_users,
        "n_items": train.n_items,
        "n_pairs": len(train),
        "n_negatives": trial.train.negatives,
    }
    loss = losses.build(trial.loss.name, trial.loss.params, **sizes, seed=trial.seed)
    return backbone.to(device), loss.to(device)


def pool_of(trial: Trial, data: Path, train: Interactions) -> Interactions | None:
    """The pool of false negatives that the sampler of a trial needs, on the device of ``train``."""
    if not sampling.get(trial.sampler.name).needs_pool:
        return None
    return mapped.interactions(data, trial.data, "pool").to(train.user.device)


def fit_settings(trial: Trial) -> FitSettings:
    """The library's settings of a trial."""
    return FitSettings(
        lr=trial.optim.lr,
        weight_decay=trial.optim.weight_decay,
        **trial.train.model_dump(exclude={"stream"}),
        metric=trial.protocol.metric,
        cutoffs=trial.protocol.cutoffs,
        seed=trial.seed,
    )
