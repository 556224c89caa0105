"""Losses by name. A new one is one file and one entry here."""

import inspect
import re
from typing import Any

import torch

from recloss.errors import InputError, choices
from recloss.losses.aatp import AATP
from recloss.losses.advinfonce import AdvInfoNCE
from recloss.losses.base import Batch, Loss, Phase
from recloss.losses.bce import BCE
from recloss.losses.bpr import BPR
from recloss.losses.bsl import BSL
from recloss.losses.ccl import CCL
from recloss.losses.ce import CE
from recloss.losses.desorec import DeSoRec
from recloss.losses.drrl import DrRL
from recloss.losses.gbce import GBCE
from recloss.losses.guidedrec import GuidedRec
from recloss.losses.labelsmoothing import LabelSmoothing
from recloss.losses.lambdaloss import LambdaLoss
from recloss.losses.lambdalossatk import LambdaLossatK
from recloss.losses.lambdarank import LambdaRank
from recloss.losses.llpauc import LLPAUC
from recloss.losses.mse import MSE
from recloss.losses.psl import PSL
from recloss.losses.rsatk import RSatK
from recloss.losses.sl import SL
from recloss.losses.slatk import SLatK
from recloss.losses.smoothiatk import SmoothIatK
from recloss.losses.softlabels import SoftLabelLoss
from recloss.losses.sogclr import SogCLR
from recloss.losses.sogslatk import SogSLatK
from recloss.losses.song import SONG
from recloss.losses.songatk import SONGatK
from recloss.losses.talos import Talos
from recloss.randomness import stream_key

FAMILIES: dict[str, tuple[type[Loss], ...]] = {
    "pointwise and pairwise": (BCE, GBCE, MSE, BPR, LambdaRank, LambdaLoss),
    "softmax": (SL, BSL, PSL, AdvInfoNCE, SogCLR),
    "top-K accuracy": (AATP, RSatK, SmoothIatK, Talos),
    "top-K ranking": (LambdaLossatK, SLatK, SogSLatK, SONG, SONGatK, GuidedRec),
    "partial AUC": (LLPAUC,),
    "robust": (CCL, DrRL),
    "all items": (CE, LabelSmoothing, SoftLabelLoss, DeSoRec),
}
"""All losses, by what they optimise."""

LOSSES: dict[str, type[Loss]] = {cls.name: cls for members in FAMILIES.values() for cls in members}

__all__ = [
    "AATP", "BCE", "BPR", "BSL", "CCL", "CE", "FAMILIES", "GBCE", "LLPAUC", "LOSSES", "MSE", "PSL", "SL", "SONG",
    "AdvInfoNCE", "Batch", "DeSoRec", "DrRL", "GuidedRec", "LabelSmoothing", "LambdaLoss", "LambdaLossatK",
    "LambdaRank", "Loss", "Phase", "RSatK", "SLatK", "SONGatK", "SmoothIatK", "SoftLabelLoss", "SogCLR", "SogSLatK",
    "Talos",
    "build", "get",
]  # fmt: skip


ALIASES = {
    "advinfo": "advinfonce",
    "crossentropy": "ce",
    "cvpr": "rsatk",
    "generalisedbce": "gbce",
    "infonce": "sl",
    "ksong": "songatk",
    "logloss": "bce",
    "recallatk": "rsatk",
    "simplex": "ccl",
    "smoothi": "smoothiatk",
    "softmax": "sl",
    "ssm": "sl",
    "tl": "talos",
}
"""Other names in papers, repositories and tables, as ``key_of`` writes them."""


def get(name: str) -> type[Loss]:
    """The loss class of a name in code ("slatk"), in the papers ("SL@K", "SL@20", "Talos@K") or another in use.

    Raises:
        InputError: naming the nearest loss and all there are.
    """
    key = key_of(name)
    for candidate in (key, ALIASES.get(key), key.removesuffix("atk"), ALIASES.get(key.removesuffix("atk"))):
        if candidate in LOSSES:
            return LOSSES[candidate]
    raise InputError(choices("loss", name, LOSSES))


def key_of(name: str) -> str:
    """ "SL@20", "SL@K" and "sl-at-k" alike: "slatk"."""
    return re.sub("[ _-]", "", re.sub(r"@(k|[0-9]+)", "atk", name.strip().lower()))


def build(
    name: str,
    params: dict[str, Any],
    *,
    n_users: int,
    n_items: int,
    n_pairs: int,
    n_negatives: int,
    seed: int,
) -> Loss:
    """A loss sized for this data, its state initialised from ``seed``; torch's global generator is left as it was.

    Raises:
        ValueError: for a hyper-parameter out of range.
    """
    cls = get(name)
    sizes = {"n_users": n_users, "n_items": n_items, "n_pairs": n_pairs, "n_negatives": n_negatives}
    wanted = {key: size for key, size in sizes.items() if key in inspect.signature(cls).parameters}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_key(seed, 0, "loss"))
        return cls(**wanted, **params)
