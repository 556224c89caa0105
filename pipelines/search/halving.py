"""Successive halving (Jamieson and Talwalkar, AISTATS 2016): to which epoch which configurations train.

The rungs of a cell are synchronous: every configuration ends a rung before any is chosen for the next. So what is
pruned depends neither on how many trials run at once nor on interruptions.
"""

import math
from collections.abc import Iterable

from pipelines.settings import HalvingSettings, Trial


def rungs(halving: HalvingSettings | None, trials: Iterable[Trial]) -> list[int]:
    """Epochs at which the configurations of a cell are pruned, each a validation's; none without halving.

    Where its trials differ in ``train.epochs`` or ``train.valid_every``, the largest count.
    """
    if halving is None:
        return []
    shapes = [trial.train for trial in trials]
    epochs, every = max(train.epochs for train in shapes), max(train.valid_every for train in shapes)
    found: list[int] = []
    length = halving.first
    while (rung := _validation(length, every)) < epochs:
        found += [rung] if rung not in found else []
        length *= halving.reduction
    return found


def pause(trial: Trial, rung: int) -> int | None:
    """The validation at which a trial ends a rung; ``None`` where it comes to its own end first."""
    epoch = _validation(rung, trial.train.valid_every)
    return epoch if epoch < trial.train.epochs else None


def survivors(count: int, halving: HalvingSettings) -> int:
    """How many of ``count`` configurations train on after a rung."""
    return max(1, count // halving.reduction)


def _validation(epoch: int, every: int) -> int:
    return math.ceil(epoch / every) * every
