"""The order of items whose scores are bitwise equal."""

from typing import Final

import torch
from torch import Tensor

from recloss.randomness import row_states

TIE_RULE: Final = "item-hash"
"""Bitwise equal scores rank in a fixed pseudo-random order of items: a constant scorer is no better than chance."""

_TIE_KEY = 0x7265636C6F7373


def item_order(n_items: int) -> Tensor:
    """(n_items,) the items in tie order: among equal scores, the earlier item ranks higher."""
    return torch.argsort(row_states(_TIE_KEY, torch.arange(n_items)), stable=True)
