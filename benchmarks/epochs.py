"""Training as `recloss.training.fit` does it, timed."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from common import Seconds

from recloss.backbones import Backbone
from recloss.interactions import Interactions
from recloss.losses import Loss, build
from recloss.training import FitSettings, Validation, fit

BATCH = NEGATIVES = 1024


def steps_of(train: Interactions) -> int:
    return math.ceil(len(train) / BATCH)


def loss_for(name: str, train: Interactions, n_negatives: int = NEGATIVES, **params: Any) -> Loss:
    sizes = {"n_users": train.n_users, "n_items": train.n_items, "n_pairs": len(train)}
    return build(name, params, **sizes, n_negatives=n_negatives, seed=0)


def run(
    backbone: Backbone,
    loss: Loss,
    train: Interactions,
    epochs: int,
    after: Callable[[Validation], None] | None = None,
    n_negatives: int = NEGATIVES,
    valid_every: int = 1,
) -> None:
    """Train, with validations of one user."""
    settings = FitSettings(
        epochs=epochs, batch_size=BATCH, negatives=n_negatives, valid_every=valid_every, patience=epochs, cutoffs=(20,)
    )
    one = Interactions(torch.tensor([0]), torch.tensor([0]), train.n_users, train.n_items)
    fit(backbone, loss, train, one, settings, on_validation=after)


def step_seconds(backbone: Backbone, loss: Loss, train: Interactions) -> Seconds:
    """Of one step, from the second of two epochs: `fit`'s own seconds. The CPU seconds hold one user's validation."""
    clock: list[Seconds] = []
    run(backbone, loss, train, 2, lambda v: clock.append(Seconds(v.seconds, time.process_time())))
    first, second = clock
    return Seconds(second.wall - first.wall, second.cpu - first.cpu) / steps_of(train)
