"""Losses by name. A new one is one file and one entry here."""

import inspect
from typing import Any

import torch

from recloss.errors import InputError, choices
from recloss.losses.base import Batch, Context, Loss, Phase
from recloss.losses.bpr import BPR
from recloss.losses.psl import PSL
from recloss.losses.sl import SL
from recloss.losses.slatk import SLatK
from recloss.losses.talos import Talos
from recloss.randomness import stream_key

LOSSES: dict[str, type[Loss]] = {cls.name: cls for cls in (BPR, PSL, SL, SLatK, Talos)}

__all__ = [
    "BPR", "LOSSES", "PSL", "SL", "Batch", "Context", "Loss", "Phase", "SLatK", "Talos", "build", "get",
]  # fmt: skip


def get(name: str) -> type[Loss]:
    """The loss class of a name in code ("slatk") or in the papers ("SL@K").

    Raises:
        InputError: naming the nearest loss and all there are.
    """
    key = name.lower().replace("@", "at")
    if key not in LOSSES:
        raise InputError(choices("loss", name, LOSSES))
    return LOSSES[key]


def build(name: str, params: dict[str, Any], *, n_users: int, n_items: int, n_pairs: int, seed: int) -> Loss:
    """A loss sized for this data, its state initialised from ``seed``; torch's global generator is left as it was.

    Raises:
        ValueError: for a hyper-parameter out of range.
    """
    cls = get(name)
    sizes = {"n_users": n_users, "n_items": n_items, "n_pairs": n_pairs}
    wanted = {key: size for key, size in sizes.items() if key in inspect.signature(cls).parameters}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_key(seed, 0, "loss"))
        return cls(**wanted, **params)
