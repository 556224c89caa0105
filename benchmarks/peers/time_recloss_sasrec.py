"""recloss: batches of `fit` with SASRec on windows. Started by ../sasrec_recbole.py, see there.

With positions "sliding" the rows are RecBole's: a window for every target. With "all" a user is one window, whose last
50 places are targets. The validation after each epoch is left out.
"""

import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from turns import SASREC, Turns, arguments, load

from recloss import training
from recloss.backbones import SASRec
from recloss.losses import BPR, CE
from recloss.sequences import Sequences, Windows
from recloss.training import FitSettings, fit

NEVER = 10**9
LOSSES = {"ce": CE, "bpr": BPR}


class Some:
    """The first batches of each pass."""

    def __init__(self, windows: Windows, batches: int) -> None:
        self.windows, self.batches = windows, batches

    def __call__(self, epoch: int, number: int) -> Iterator[tuple[Tensor, ...]]:
        return itertools.islice(self.windows(epoch, number), self.batches)


def main() -> None:
    settings = arguments()
    torch.set_num_threads(settings.threads)
    loss, positions = settings.variant.split()
    data = load(settings.data)
    train = training_part(data)
    batch = settings.batch if positions == "sliding" else max(1, settings.batch // SASREC["length"])
    windows = Windows(train, positions=positions, length=SASREC["length"], batch_size=batch, seed=0)  # type: ignore[arg-type]
    torch.manual_seed(0)
    backbone = SASRec(train, **SASREC)
    some = Some(windows, int(data["batches"]))
    rows = sum(len(users) for users, _, _ in some(1, 0))
    facts = {"rows": rows, "epoch_rows": len(windows)}
    turns = Turns(settings, ("recloss", "torch"), threads=torch.get_num_threads(), **facts)
    budget = FitSettings(lr=0.001, epochs=NEVER, batch_size=batch, negatives=1, valid_every=1, patience=NEVER)
    pairs = train.interactions()
    with mock.patch.object(training, "evaluate", _no_validation):
        turns.start()
        fit(backbone, LOSSES[loss](), pairs, pairs, budget, positives=some, on_validation=lambda _: turns.lap())


def training_part(data: dict[str, np.ndarray]) -> Sequences:
    """All items but the last two of each user."""
    lengths = np.diff(data["offsets"])
    place = np.arange(len(data["items"])) - np.repeat(data["offsets"][:-1], lengths)
    kept = place < np.repeat(lengths - 2, lengths)
    offsets = np.concatenate([[0], (lengths - 2).cumsum()])
    return Sequences(torch.from_numpy(data["items"][kept]), torch.from_numpy(offsets), int(data["n_items"]))


def _no_validation(*_: Any) -> SimpleNamespace:
    return SimpleNamespace(mean=lambda: {"ndcg_20": 0.0})


if __name__ == "__main__":
    main()
