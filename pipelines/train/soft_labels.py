"""Soft labels of a trial's training rows, made in stages: softmax training, users' clusters, propagation.

What a stage makes lies in ``stages/<hash>`` beside the trials of a sweep, named by all that determines it, so that the
trials of a grid share it. One process at a time makes it, the others wait; one that is stopped resumes.
"""

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.settings import ComponentSettings, Trial
from pipelines.train.clusters import clusters
from pipelines.train.folder import CHECKPOINT
from recloss.backbones import SequenceBackbone
from recloss.checkpoints import load_checkpoint, save_atomically
from recloss.evaluation import evaluating
from recloss.interactions import Interactions, Segments
from recloss.sequences import Windows
from recloss.soft_labels import ClusterLabels, propagate

STAGES = "stages"
SOFTMAX = ComponentSettings(name="ce")
_VECTORS_AT_ONCE = 4096


def softmax_trial(trial: Trial) -> Trial:
    """The training with softmax that a trial's soft labels start from."""
    assert trial.soft_labels is not None
    train = trial.train.model_copy(update={"epochs": trial.soft_labels.epochs})
    return trial.model_copy(update={"loss": SOFTMAX, "train": train, "soft_labels": None})


def soft_labels(
    trial: Trial,
    folder: Path,
    windows: Windows,
    train: Interactions,
    trained: Callable[[Path], SequenceBackbone],
) -> ClusterLabels:
    """Soft labels of the pairs of ``train``; of a pair that is several training rows, those of its last one.

    Made in one process.

    Args:
        trial: whose loss needs them.
        folder: of the trial.
        windows: its training rows.
        train: its training pairs.
        trained: trains ``softmax_trial`` in a folder, resuming, and returns its backbone.
    """
    assert trial.soft_labels is not None
    settings, root = trial.soft_labels, folder.parent / STAGES
    users, items, places = windows.rows()
    of_clusters = {
        "softmax": softmax_trial(trial).hash,
        "clusters": settings.clusters,
        "kmeans_iterations": settings.kmeans_iterations,
        "reassigned": settings.reassigned,
    }
    of_labels = of_clusters | {"tau": settings.tau, "alpha": settings.alpha, "iterations": settings.iterations}

    def vectors(stage: Path) -> dict[str, Tensor]:
        backbone = trained(stage)
        device = next(backbone.parameters()).device
        with torch.no_grad(), evaluating(backbone):
            parts = zip(users.split(_VECTORS_AT_ONCE), places.split(_VECTORS_AT_ONCE), strict=True)
            return {"vectors": torch.cat([backbone.vectors(u.to(device), p.to(device)).cpu() for u, p in parts])}

    def clustered(_: Path) -> dict[str, Tensor]:
        found = clusters(
            made(root, {"softmax": of_clusters["softmax"]}, vectors)["vectors"],
            settings.clusters,
            iterations=settings.kmeans_iterations,
            seed=trial.seed,
            reassigned=settings.reassigned,
        )
        return {"clusters": found}

    def propagated(_: Path) -> dict[str, Tensor]:
        x = made(root, {"softmax": of_clusters["softmax"]}, vectors)["vectors"]
        found = propagate(
            x, items, made(root, of_clusters, clustered)["clusters"],
            tau=settings.tau, alpha=settings.alpha, iterations=settings.iterations,
        )  # fmt: skip
        return {
            "items": found.items.values,
            "offsets": found.items.offsets,
            "cluster": found.cluster,
            "first": found.first,
            "weights": found.weights,
        }

    state = made(root, of_labels, propagated)
    labels = ClusterLabels(
        Segments(state["items"], state["offsets"]), state["cluster"], state["first"], state["weights"]
    )
    pairs = train.places(users.to(train.keys.device), items.to(train.keys.device)).cpu()
    return labels.placed(pairs, len(train))


def made(root: Path, content: dict[str, Any], make: Callable[[Path], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What the stage of this content has made, made now where it is missing; its tensors are mapped from the file."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    stage = root / hashlib.sha256(canonical.encode()).hexdigest()[:16]
    file = stage / "result.pt"
    with _alone(stage):
        if not file.exists():
            save_atomically(file, make(stage))
            (stage / CHECKPOINT).unlink(missing_ok=True)
    return load_checkpoint(file, mmap=True)


@contextmanager
def _alone(stage: Path) -> Iterator[None]:
    """Hold the stage's lock, which a killed process leaves free."""
    stage.mkdir(parents=True, exist_ok=True)
    with open(stage / "lock", "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
