"""recloss: epochs of `fit` with BPR, and `evaluate`. Started by run.py, see there.

An epoch visits every training pair once, in random order, with one negative each, uniform outside the user's training
items; Adam on all rows. The validation after each epoch is left out.
"""

from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from turns import DIM, LAYERS, LR, TOP, Turns, arguments, load

from recloss import training
from recloss.backbones import MF, LightGCN
from recloss.evaluation import evaluate
from recloss.interactions import Interactions
from recloss.losses import BPR
from recloss.training import FitSettings, fit

NEVER = 10**9


def main() -> None:
    settings = arguments()
    torch.set_num_threads(settings.threads)
    data = load(settings.data)
    n_users, n_items = int(data["n_users"]), int(data["n_items"])
    train, test = (
        Interactions(_tensor(data[f"{split}_user"]), _tensor(data[f"{split}_item"]), n_users, n_items)
        for split in ("train", "test")
    )
    turns = Turns(settings, ("recloss", "torch"), threads=torch.get_num_threads())
    mf = MF(n_users, n_items, dim=DIM, init="xavier_normal")
    if settings.task == "evaluate":
        with torch.no_grad():
            mf.user.copy_(_tensor(data["user"]))
            mf.item.copy_(_tensor(data["item"]))

        def rank() -> None:
            turns.facts["ndcg"] = evaluate(mf, "dot", test, [train], [TOP]).mean()[f"ndcg_{TOP}"]

        turns.repeat(rank)
    backbone = mf if settings.task == "mf" else LightGCN(train, dim=DIM, layers=LAYERS, init="xavier_uniform")
    budget = FitSettings(
        lr=LR, epochs=NEVER, batch_size=settings.batch, negatives=1, valid_every=1, patience=NEVER, metric="ndcg_20"
    )
    with mock.patch.object(training, "evaluate", _no_validation):
        turns.start()
        fit(backbone, BPR(), train, test, budget, on_validation=lambda _: turns.lap())


def _no_validation(*_: Any) -> SimpleNamespace:
    return SimpleNamespace(mean=lambda: {"ndcg_20": 0.0})


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(array)


if __name__ == "__main__":
    main()
