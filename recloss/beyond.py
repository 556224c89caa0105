"""Metrics beyond accuracy: what is recommended, by the items' popularity in training.

Per user: novelty, and recall on the relevant items of each popularity group. Per catalogue: coverage and Gini index.
Ask `recloss.evaluation.evaluate` for them with ``popularity=train``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from recloss.interactions import Interactions
from recloss.metrics import metric_name
from recloss.ties import item_order

GROUPS = ("head", "mid", "tail")
HEAD, MID = 0.5, 0.8
"""Shares of the training interactions at which the head and the middle end."""


def self_information(train: Interactions) -> Tensor:
    """(n_items,) float64 -log2 of the share of users who have the item in training, in bits.

    An item without training interactions counts as one with a single one. Zhou et al. (PNAS 2010) call it
    self-information or surprisal.
    """
    counts = torch.bincount(train.item, minlength=train.n_items)
    return -torch.log2(counts.clamp(min=1).to(torch.float64) / train.n_users)


def popularity_groups(train: Interactions) -> Tensor:
    """(n_items,) 0 (head), 1 (mid) or 2 (tail), an index of ``GROUPS``.

    Items stand in order of their training interactions, most first, ties by `item_order`. An item is in the head if the
    items before it hold less than 50 % of all training interactions, in the middle if they hold less than 80 %, else in
    the tail; so are items without training interactions.
    """
    counts = torch.bincount(train.item, minlength=train.n_items)
    order = item_order(train.n_items).to(counts.device)
    order = order[torch.argsort(counts[order], descending=True, stable=True)]
    before = counts[order].cumsum(0) - counts[order]
    by_place = (before >= HEAD * len(train)).to(torch.int64) + (before >= MID * len(train))
    return torch.empty_like(order).scatter_(0, order, by_place)


def coverage(counts: Tensor) -> float:
    """Share of the items that were recommended to somebody, by how often each (n_items,) was."""
    return float((counts > 0).to(torch.float64).mean())


def gini(counts: Tensor) -> float:
    """Gini index of how often each item (n_items,) was recommended.

    0 where all items were equally often, (n - 1) / n where one item was all that was: with counts c sorted ascending,
    sum over i = 1 .. n of (2 i - n - 1) c_i, divided by n times the sum of c.
    """
    ascending = counts.sort().values.to(torch.float64)
    n = len(ascending)
    place = torch.arange(1, n + 1, dtype=torch.float64, device=counts.device)
    return float(((2 * place - n - 1) * ascending).sum() / (n * ascending.sum()))


class Beyond:
    """Measures block after block of users; an item that is hidden from a user is never recommended to them.

    Args:
        train: the training interactions, for the items' popularity.
        relevant: validation or test interactions.
        cutoffs: the K of each metric.
    """

    def __init__(self, train: Interactions, relevant: Interactions, cutoffs: Sequence[int]) -> None:
        self.cutoffs = cutoffs
        self._information, self._groups = self_information(train), popularity_groups(train)
        n = len(GROUPS)
        keys = relevant.user * n + self._groups[relevant.item]
        self._relevant = torch.bincount(keys, minlength=relevant.n_users * n).view(-1, n)
        self.counts = torch.zeros(len(cutoffs), train.n_items, dtype=torch.int64, device=train.item.device)
        """How often each item was among the top K, for each K."""

    @property
    def names(self) -> list[str]:
        """Metrics of `measure`."""
        kinds = ["novelty", *(f"recall_{group}" for group in GROUPS)]
        return [metric_name(kind, k) for k in self.cutoffs for kind in kinds]

    def measure(self, users: Tensor, items: Tensor, shown: Tensor, hits: Tensor) -> list[Tensor]:
        """A column (B,) float64 for each of `names`; NaN for users who have nothing to measure.

        Novelty is the mean self-information of the recommended items, a group's recall the hits among the user's
        relevant items of that group, divided by their number.

        Args:
            users: (B,) the users.
            items: (B, >= K) their items, best first.
            shown: (B, >= K) whether each is recommended: the candidates may be fewer than K.
            hits: (B, >= K) whether each is recommended and relevant.
        """
        columns = []
        for row, k in enumerate(self.cutoffs):
            top, listed = items[:, :k], shown[:, :k]
            self.counts[row] += torch.bincount(top[listed], minlength=self.counts.shape[1])
            columns.append((self._information[top] * listed).sum(1) / listed.sum(1))
            for group in range(len(GROUPS)):
                found = hits[:, :k] & (self._groups[top] == group)
                columns.append(found.sum(1, dtype=torch.float64) / self._relevant[users, group])
        return columns

    def catalogue(self) -> dict[str, float]:
        """Coverage and Gini index of everything that was measured."""
        found: dict[str, float] = {}
        for k, counts in zip(self.cutoffs, self.counts, strict=True):
            found |= {metric_name("coverage", k): coverage(counts), metric_name("gini", k): gini(counts)}
        return found
