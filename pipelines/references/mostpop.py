"""MostPop: the items with the most training interactions, for everybody."""

import torch
from torch import Tensor

from pipelines.references.base import Reference
from recloss.evaluation import Scorer
from recloss.interactions import Interactions


class MostPop(Reference):
    """score(u, i) = number of training interactions of item i."""

    name = "mostpop"
    title = "MostPop"

    def fit(self, train: Interactions, *, seed: int, threads: int) -> dict[str, Tensor]:
        """``counts`` (n_items,)."""
        return {"counts": torch.bincount(train.item, minlength=train.n_items)}

    def scorer(self, train: Interactions, state: dict[str, Tensor]) -> Scorer:
        """Equal rows. Counts above 2^24 would not be exact in float32, so they are given in float64."""
        counts = state["counts"].to(torch.float64)
        return lambda users: counts.expand(len(users), -1)
