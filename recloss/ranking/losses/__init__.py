"""Losses over lists by name. A new one is one file and one entry here."""

from typing import Any

from recloss.errors import InputError, choices
from recloss.losses import key_of
from recloss.ranking.losses.base import ListLoss
from recloss.ranking.losses.lambdalossatk import LambdaLossatK
from recloss.ranking.losses.listmle import ListMLE
from recloss.ranking.losses.listnet import ListNet
from recloss.ranking.losses.neuralndcg import NeuralNDCG
from recloss.ranking.losses.ranknet import RankNet
from recloss.ranking.losses.sl import SL
from recloss.ranking.losses.slatk import SLatK

LIST_LOSSES: dict[str, type[ListLoss]] = {
    cls.name: cls for cls in (ListMLE, ListNet, RankNet, LambdaLossatK, NeuralNDCG, SL, SLatK)
}

__all__ = [
    "LIST_LOSSES", "SL", "LambdaLossatK", "ListLoss", "ListMLE", "ListNet", "NeuralNDCG", "RankNet", "SLatK",
    "build", "get",
]  # fmt: skip

ALIASES = {"lambdaloss": "lambdalossatk", "neural": "neuralndcg", "softmax": "sl"}
"""Other names in papers, repositories and tables, as `recloss.losses.key_of` writes them."""


def get(name: str) -> type[ListLoss]:
    """The loss class of a name in code ("slatk"), in the papers ("SL@K", "SL@5") or another in use.

    Raises:
        InputError: naming the nearest loss and all there are.
    """
    key = key_of(name)
    key = ALIASES.get(key, key)
    if key not in LIST_LOSSES:
        raise InputError(choices("loss over lists", name, LIST_LOSSES))
    return LIST_LOSSES[key]


def build(name: str, params: dict[str, Any]) -> ListLoss:
    """A loss over lists, by name and hyper-parameters.

    Raises:
        ValueError: for a hyper-parameter out of range.
    """
    return get(name)(**params)
