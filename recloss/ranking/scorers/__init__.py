"""Scorers of documents by name. A new one is one file and one entry here."""

from typing import Any

import torch

from recloss.errors import InputError, choices
from recloss.randomness import stream_key
from recloss.ranking.lists import Lists
from recloss.ranking.scorers.base import ListScorer
from recloss.ranking.scorers.mlp import MLP
from recloss.ranking.scorers.selfattention import SelfAttention

SCORERS: dict[str, type[ListScorer]] = {cls.name: cls for cls in (MLP, SelfAttention)}

__all__ = ["MLP", "SCORERS", "ListScorer", "SelfAttention", "build", "get"]


def get(name: str) -> type[ListScorer]:
    """The scorer class of a name.

    Raises:
        InputError: naming the nearest scorer and all there are.
    """
    if name.lower() not in SCORERS:
        raise InputError(choices("backbone over lists", name, SCORERS))
    return SCORERS[name.lower()]


def build(name: str, params: dict[str, Any], train: Lists, seed: int) -> ListScorer:
    """A scorer of documents like those of ``train``, initialised from ``seed``; torch's global generator is left as it
    was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_key(seed, 0, "backbone"))
        return get(name)(train, **params)
