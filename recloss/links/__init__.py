"""Link prediction: graphs with split links, graph encoders with decoders, their training and evaluation."""

from typing import Any

import torch

from recloss.errors import InputError, choices
from recloss.links.evaluation import LINK_TIE_RULE, edge_ranks, evaluate_links
from recloss.links.gcn import GCN
from recloss.links.links import Links
from recloss.links.negatives import hard_negatives, random_negatives
from recloss.links.split import split_edges
from recloss.links.training import FIELDS, check_loss, fit_links
from recloss.randomness import stream_key

LINK_BACKBONES: dict[str, type[GCN]] = {GCN.name: GCN}
"""Backbones of links by name."""

__all__ = [
    "FIELDS", "GCN", "LINK_BACKBONES", "LINK_TIE_RULE", "Links", "build", "check_loss", "edge_ranks", "evaluate_links",
    "fit_links", "get", "hard_negatives", "random_negatives", "split_edges",
]  # fmt: skip


def get(name: str) -> type[GCN]:
    """The backbone class of a name, of those of links.

    Raises:
        InputError: naming the nearest of them and all there are.
    """
    if name.lower() not in LINK_BACKBONES:
        raise InputError(choices("backbone of links", name, LINK_BACKBONES))
    return LINK_BACKBONES[name.lower()]


def build(name: str, params: dict[str, Any], links: Links, seed: int) -> GCN:
    """A backbone over this graph, initialised from ``seed``; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_key(seed, 0, "backbone"))
        return get(name)(links, **params)
