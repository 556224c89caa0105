"""Backbones by name. A new one is one file and one entry here."""

import inspect
from typing import Any

import torch

from recloss.backbones.base import Backbone
from recloss.backbones.deepfm import DeepFM
from recloss.backbones.gru4rec import GRU4Rec
from recloss.backbones.lightgcn import LightGCN
from recloss.backbones.mf import MF
from recloss.backbones.ncf import NCF
from recloss.backbones.sasrec import SASRec
from recloss.backbones.sequential import SequenceBackbone
from recloss.backbones.simplex import SimpleX
from recloss.backbones.xsimgcl import XSimGCL
from recloss.backbones.youtubednn import YoutubeDNN
from recloss.errors import InputError, choices
from recloss.interactions import Interactions
from recloss.randomness import stream_key
from recloss.sequences import Sequences

BACKBONES: dict[str, type[Backbone]] = {cls.name: cls for cls in (LightGCN, MF, NCF, SimpleX, XSimGCL)}
"""Those of pairs."""

SEQUENCE_BACKBONES: dict[str, type[SequenceBackbone]] = {cls.name: cls for cls in (DeepFM, GRU4Rec, SASRec, YoutubeDNN)}
"""Those of sequences."""

__all__ = [
    "BACKBONES", "MF", "NCF", "SEQUENCE_BACKBONES", "Backbone", "DeepFM", "GRU4Rec", "LightGCN", "SASRec",
    "SequenceBackbone", "SimpleX", "XSimGCL", "YoutubeDNN", "build", "build_sequential", "get", "get_sequential",
]  # fmt: skip


def get(name: str) -> type[Backbone]:
    """The backbone class of a name.

    Raises:
        InputError: naming the nearest backbone and all there are.
    """
    if name.lower() not in BACKBONES:
        raise InputError(choices("backbone", name, BACKBONES))
    return BACKBONES[name.lower()]


def get_sequential(name: str) -> type[SequenceBackbone]:
    """The backbone class of a name, of those of sequences.

    Raises:
        InputError: naming the nearest of them and all there are.
    """
    if name.lower() not in SEQUENCE_BACKBONES:
        raise InputError(choices("backbone of sequences", name, SEQUENCE_BACKBONES))
    return SEQUENCE_BACKBONES[name.lower()]


def build(name: str, params: dict[str, Any], train: Interactions, seed: int) -> Backbone:
    """A backbone for this data, initialised from ``seed``; torch's global generator is left as it was."""
    cls = get(name)
    data = {"n_users": train.n_users, "n_items": train.n_items, "train": train}
    wanted = {key: value for key, value in data.items() if key in inspect.signature(cls).parameters}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_key(seed, 0, "backbone"))
        return cls(**wanted, **params)


def build_sequential(name: str, params: dict[str, Any], histories: Sequences, seed: int) -> SequenceBackbone:
    """A backbone over these training sequences, as ``build`` makes one over pairs."""
    cls = get_sequential(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_key(seed, 0, "backbone"))
        return cls(histories, **params)
