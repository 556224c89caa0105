"""The benchmarks' data: real sets if RECLOSS_DATA names their folder, else made ones of the same sizes."""

import io
import os
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recloss.interactions import Interactions

SIZES = {
    "health": (1_974, 1_200, 37_784, 10_405),
    "beauty": (15_603, 8_693, 87_688, 33_472),
    "gowalla-40988": (29_858, 40_988, 810_128, 217_336),
}
"""Users, items, training pairs, test pairs."""


@dataclass(frozen=True)
class Data:
    train: Interactions
    test: Interactions


@cache
def load(name: str) -> Data:
    """The set of that name, or one of its size."""
    n_users, n_items, n_train, n_test = SIZES[name]
    if "RECLOSS_DATA" not in os.environ:
        return made(n_users, n_items, n_train, n_test)
    folder = Path(os.environ["RECLOSS_DATA"]) / name
    files = {"beauty": ("train_data.txt", "test.txt")}.get(name, ("train.tsv", "test.tsv"))
    train, test = (Interactions(*_pairs(folder, file), n_users, n_items) for file in files)
    assert (len(train), len(test)) == (n_train, n_test), f"{folder}: not the set the benchmarks were written for"
    return Data(train, test)


def _pairs(folder: Path, file: str) -> tuple[Tensor, Tensor]:
    packed = folder / f"{folder.name}.zip"
    if packed.exists():
        with zipfile.ZipFile(packed) as archive:
            name = next(n for n in archive.namelist() if n.rpartition("/")[2] == file)
            text = archive.read(name).decode()
    else:
        text = (folder / file).read_text()
    values = np.loadtxt(io.StringIO(text), dtype=np.int64, skiprows=int(not text[0].isdigit()))
    user, item = torch.from_numpy(values).T.contiguous()
    return user, item


def made(n_users: int, n_items: int, n_train: int, n_test: int, seed: int = 0) -> Data:
    """Distinct random pairs: log-normal activity of users, popularity of items falling as rank ** -0.5.

    Every user has a training pair; there must be as many.
    """
    random = torch.Generator().manual_seed(seed)
    activity = torch.randn(n_users, generator=random).exp()
    popularity = torch.arange(1, n_items + 1).pow(-0.5)[torch.randperm(n_items, generator=random)]

    def pairs(users: Tensor) -> Tensor:
        return users * n_items + torch.multinomial(popularity, len(users), replacement=True, generator=random)

    one_each = pairs(torch.arange(n_users))
    others, missing = one_each[:0], n_train + n_test - n_users
    while len(others) < missing:
        drawn = pairs(torch.multinomial(activity, 2 * missing, replacement=True, generator=random))
        others = torch.cat([others, drawn[~torch.isin(drawn, one_each)]]).unique()
    keys = torch.cat([one_each, others[torch.randperm(len(others), generator=random)[:missing]]])
    splits = (keys[:n_train], keys[n_train:])
    train, test = (Interactions(k // n_items, k % n_items, n_users, n_items) for k in splits)
    return Data(train, test)


def subset(train: Interactions, n_pairs: int, seed: int = 0) -> Interactions:
    """All pairs of random users, about ``n_pairs`` in total, in tables of unchanged size."""
    users = torch.randperm(train.n_users, generator=torch.Generator().manual_seed(seed))
    enough = int(torch.searchsorted(train.degrees[users].cumsum(0), n_pairs)) + 1
    kept = torch.zeros(train.n_users, dtype=torch.bool)
    kept[users[:enough]] = True
    rows = kept[train.user]
    return Interactions(train.user[rows], train.item[rows], train.n_users, train.n_items)
