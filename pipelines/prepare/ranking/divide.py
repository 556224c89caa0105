"""Which split each query is in, with all of its documents."""

from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipelines.prepare.draws import draws, stream
from pipelines.prepare.ranking.read import Judged
from pipelines.prepare.splits import SPLITS, TEST, TRAIN, VALID
from recloss.errors import InputError

if TYPE_CHECKING:
    from pipelines.settings import PrepareSettings


def divided(files: list[Judged], settings: "PrepareSettings") -> NDArray[np.int8]:
    """The split of each query, those of one file after the other's.

    What is held out depends on the seed and the queries' ids (of counted queries: their place), not on their order: of
    one file ceil(test_ratio * n) of its n queries are test; without a validation file ceil(valid_ratio * n) of the n
    others are validation.

    Raises:
        InputError: there are too few queries, or a ratio would have no effect.
    """
    splits = np.concatenate(
        [np.full(len(file.sizes), SPLITS.index(file.split) if file.split else TRAIN, np.int8) for file in files]
    )
    given = {file.split for file in files} - {None}
    for name, decided in (("test_ratio", "test"), ("valid_ratio", "valid")):
        if decided in given and getattr(settings, name) != type(settings).model_fields[name].default:
            raise InputError(f"{name} has no effect: {_of(files, decided).name} holds this split")
    keys = np.concatenate([np.arange(len(file.sizes)) if file.queries is None else file.queries for file in files])
    if "test" not in given:
        _hold_out(splits, TEST, settings.test_ratio, keys, files[0].name, stream(settings.split_seed, "test queries"))
    if "valid" not in given:
        seed = stream(settings.split_seed, "validation queries")
        _hold_out(splits, VALID, settings.valid_ratio, keys, files[0].name, seed)
    return splits


def _hold_out(splits: NDArray[np.int8], to: int, ratio: float, keys: NDArray[np.int64], name: str, seed: int) -> None:
    """Move the training queries that come first in the order of their draws."""
    train = np.flatnonzero(splits == TRAIN)
    n = ceil(Fraction(str(ratio)) * len(train))
    if n >= len(train):
        raise InputError(f"{name}: {n} of {len(train)} queries would be held out for {SPLITS[to]}, none is left")
    drawn = draws(seed, keys[train], np.zeros(1, np.int32))
    splits[train[np.lexsort([keys[train], drawn])[:n]]] = to


def _of(files: list[Judged], split: str) -> Judged:
    return next(file for file in files if file.split == split)
