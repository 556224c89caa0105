"""Full-ranking evaluation: every user with a relevant item, all items as candidates, ties by a stated rule."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recloss import native
from recloss.backbones.base import Backbone
from recloss.interactions import Interactions
from recloss.metrics import METRICS, metric_name
from recloss.randomness import row_states
from recloss.similarity import prepare

TIE_RULE: Final = "item-hash"
"""Bitwise equal scores rank in a fixed pseudo-random order of items: a constant scorer is no better than chance."""

_TIE_KEY = 0x7265636C6F7373


@dataclass(frozen=True)
class UserMetrics:
    """Metrics of each evaluated user.

    Attributes:
        users: (n,) the users with at least one relevant item, ascending.
        values: metric name, such as ``ndcg_20``, to (n,) float64.
    """

    users: Tensor
    values: dict[str, Tensor]

    def mean(self) -> dict[str, float]:
        """Mean of each metric over the evaluated users."""
        return {name: float(value.mean()) for name, value in self.values.items()}


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module in evaluation mode; afterwards every submodule is in the mode it was in."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def item_order(n_items: int) -> Tensor:
    """(n_items,) the items in tie order: among equal scores, the earlier item ranks higher."""
    return torch.argsort(row_states(_TIE_KEY, torch.arange(n_items)), stable=True)


def block_size(n_items: int) -> int:
    """Users scored at once: 512, or fewer where their scores of all items would take more than 128 MB."""
    return max(1, min(512, 2**25 // n_items))


@torch.no_grad()
def evaluate(
    backbone: Backbone,
    similarity: str,
    relevant: Interactions,
    hidden: Sequence[Interactions],
    cutoffs: Sequence[int],
    users_per_block: int | None = None,
) -> UserMetrics:
    """Rank all items for every user with a relevant item, and measure the top K.

    Blocks of users are dealt to the ranks of ``torch.distributed`` in turn, without padded users; each user's
    values do not depend on the number of ranks.

    Args:
        backbone: the model; the training flags of its modules are kept.
        similarity: "cosine" or "dot".
        relevant: validation or test interactions.
        hidden: interactions that leave the candidate list (the training positives).
        cutoffs: the K of each metric.
        users_per_block: users scored at once; bounds the memory to ``users_per_block * n_items`` scores; by default
            ``block_size``.

    Raises:
        ValueError: if a K is not in 1 .. n_items, no user has a relevant item, or the backbone is of another size.
        FloatingPointError: if an embedding is not finite.
    """
    if not 1 <= min(cutoffs) <= max(cutoffs) <= relevant.n_items:
        raise ValueError(f"every K must lie in 1..{relevant.n_items} (the catalogue), got {list(cutoffs)}")
    users = torch.nonzero(relevant.degrees).flatten()
    if not len(users):
        raise ValueError("no user has a relevant item: nothing to evaluate")
    with evaluating(backbone):
        u_UD, v_ID = (prepare(e, similarity) for e in backbone.embed())
    if (len(u_UD), len(v_ID)) != (relevant.n_users, relevant.n_items):
        size, wanted = f"{len(u_UD)} users, {len(v_ID)} items", f"{relevant.n_users} and {relevant.n_items}"
        raise ValueError(f"the backbone embeds {size}, the interactions are of {wanted}")
    if not all(bool(torch.stack(torch.aminmax(e)).isfinite().all()) for e in (u_UD, v_ID)):
        raise FloatingPointError("the embeddings are not finite")

    order = item_order(len(v_ID)).to(v_ID.device)
    place = torch.argsort(order)
    v_ID = v_ID[order]
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    names = [metric_name(m, k) for k in cutoffs for m in METRICS]
    users_per_block = users_per_block or block_size(len(v_ID))
    buffer = u_UD.new_empty(min(users_per_block, len(users)), len(v_ID))
    table = torch.zeros(len(users), len(names), dtype=torch.float64, device=users.device)
    for start in range(rank * users_per_block, len(users), world * users_per_block):
        block = users[start : start + users_per_block]
        scores = torch.mm(u_UD[block], v_ID.T, out=buffer[: len(block)])
        for interactions in hidden:
            seen = interactions.of(block)
            scores[seen.rows, place[seen.values]] = -torch.inf
        top = _top(scores, max(cutoffs))
        hits = relevant.contains(block[:, None], order[top]) & (scores.gather(1, top) > -torch.inf)
        columns = [m(hits, relevant.degrees[block], k) for k in cutoffs for m in METRICS.values()]
        table[start : start + users_per_block] = torch.stack(columns, 1)
    if world > 1:
        dist.all_reduce(table)
    return UserMetrics(users, dict(zip(names, table.unbind(1), strict=True)))


def _top(scores: Tensor, k: int) -> Tensor:
    """(B, k) columns of the k best scores; equal scores in ascending order of column."""
    if native.takes(scores):
        columns = torch.empty(len(scores), k, dtype=torch.int64)
        native.call("top_columns", scores, scores.new_empty(len(scores), k), columns, *scores.shape, k)
        return columns
    values, columns = scores.topk(k)
    columns, by_column = columns.sort(1)
    values, by_value = values.gather(1, by_column).sort(dim=1, descending=True, stable=True)
    columns = columns.gather(1, by_value)
    crowded = torch.nonzero((scores >= values[:, -1:]).sum(1) > k).flatten()  # a tie across the cut
    if len(crowded):
        columns[crowded] = scores[crowded].sort(dim=1, descending=True, stable=True).indices[:, :k]
    return columns
