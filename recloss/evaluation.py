"""Full-ranking evaluation: every user with a relevant item, all items as candidates, ties by a stated rule."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recloss import native
from recloss.backbones.base import Backbone
from recloss.beyond import Beyond
from recloss.interactions import Interactions
from recloss.metrics import METRICS, metric_name
from recloss.similarity import prepare
from recloss.ties import item_order

Scorer = Callable[[Tensor], Tensor]
"""Called with users (B,), gives their scores (B, n_items) of all items."""


@dataclass(frozen=True)
class UserMetrics:
    """Metrics of each evaluated user.

    Attributes:
        users: (n,) the users with at least one relevant item, ascending.
        values: metric name, such as ``ndcg_20``, to (n,) float64. NaN, in metrics beyond accuracy alone, for a user
            who has nothing to measure, such as no relevant item in the tail.
        catalogue: metrics of all users together, such as ``coverage_20``; empty where none were asked for.
    """

    users: Tensor
    values: dict[str, Tensor]
    catalogue: dict[str, float] = field(default_factory=dict)

    def mean(self) -> dict[str, float]:
        """Mean of each metric over the evaluated users who have something to measure, and the ``catalogue`` metrics.

        A metric without such a user is left out.
        """
        means = {}
        for name, value in self.values.items():
            missing = value.isnan()
            if not missing.all():
                means[name] = float((value[~missing] if missing.any() else value).mean())
        return means | self.catalogue


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
    popularity: Interactions | None = None,
) -> UserMetrics:
    """Rank all items for every user with a relevant item by a backbone's scores, and measure the top K.

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
        popularity: the training interactions, to measure beyond accuracy too (see `recloss.beyond`).

    Raises:
        ValueError: if a K is not in 1 .. n_items, no user has a relevant item, or the backbone is of another size.
        FloatingPointError: if an embedding is not finite.
    """
    users = _users_to_rank(relevant, cutoffs)
    with evaluating(backbone):
        u_UD, v_ID = (prepare(e, similarity) for e in backbone.embed())
    if (len(u_UD), len(v_ID)) != (relevant.n_users, relevant.n_items):
        size, wanted = f"{len(u_UD)} users, {len(v_ID)} items", f"{relevant.n_users} and {relevant.n_items}"
        raise ValueError(f"the backbone embeds {size}, the interactions are of {wanted}")
    if not all(bool(torch.stack(torch.aminmax(e)).isfinite().all()) for e in (u_UD, v_ID)):
        raise FloatingPointError("the embeddings are not finite")

    order = item_order(len(v_ID)).to(v_ID.device)
    v_ID = v_ID[order]
    users_per_block = users_per_block or block_size(len(v_ID))
    buffer = u_UD.new_empty(min(users_per_block, len(users)), len(v_ID))

    def scores(block: Tensor) -> Tensor:
        return torch.mm(u_UD[block], v_ID.T, out=buffer[: len(block)])

    return _measure(scores, order, users, relevant, hidden, cutoffs, users_per_block, popularity)


@torch.no_grad()
def evaluate_scores(
    scores: Scorer,
    relevant: Interactions,
    hidden: Sequence[Interactions],
    cutoffs: Sequence[int],
    users_per_block: int | None = None,
    popularity: Interactions | None = None,
) -> UserMetrics:
    """As `evaluate`, by the scores of any model.

    Args:
        scores: of blocks of users; what it returns is not written to.
        relevant: this and all others are those of `evaluate`.
        hidden: interactions that leave the candidate list.
        cutoffs: the K of each metric.
        users_per_block: users scored at once.
        popularity: the training interactions, to measure beyond accuracy too.

    Raises:
        ValueError: if a K is not in 1 .. n_items, no user has a relevant item, or a block of scores has another shape.
        FloatingPointError: if a score is not finite.
    """
    users, order = _users_to_rank(relevant, cutoffs), item_order(relevant.n_items).to(relevant.user.device)

    def in_tie_order(block: Tensor) -> Tensor:
        found = scores(block)
        if found.shape != (len(block), len(order)):
            size = f"{tuple(found.shape)} scores, expected {(len(block), len(order))}"
            raise ValueError(f"the model gave {size}: a row for each user, a column for each item")
        if not bool(torch.stack(torch.aminmax(found)).isfinite().all()):
            raise FloatingPointError("the scores are not finite")
        return found[:, order]

    users_per_block = users_per_block or block_size(len(order))
    return _measure(in_tie_order, order, users, relevant, hidden, cutoffs, users_per_block, popularity)


def _users_to_rank(relevant: Interactions, cutoffs: Sequence[int]) -> Tensor:
    if not 1 <= min(cutoffs) <= max(cutoffs) <= relevant.n_items:
        raise ValueError(f"every K must lie in 1..{relevant.n_items} (the catalogue), got {list(cutoffs)}")
    users = torch.nonzero(relevant.degrees).flatten()
    if not len(users):
        raise ValueError("no user has a relevant item: nothing to evaluate")
    return users


def _measure(
    scores: Scorer,
    order: Tensor,
    users: Tensor,
    relevant: Interactions,
    hidden: Sequence[Interactions],
    cutoffs: Sequence[int],
    users_per_block: int,
    popularity: Interactions | None,
) -> UserMetrics:
    """Ranks by ``scores``, whose columns stand in tie ``order`` and which are overwritten."""
    place = torch.argsort(order)
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    beyond = None if popularity is None else Beyond(popularity, relevant, cutoffs)
    names = [metric_name(m, k) for k in cutoffs for m in METRICS] + (beyond.names if beyond else [])
    table = torch.zeros(len(users), len(names), dtype=torch.float64, device=users.device)
    for start in range(rank * users_per_block, len(users), world * users_per_block):
        block = users[start : start + users_per_block]
        block_scores = scores(block)
        for interactions in hidden:
            seen = interactions.of(block)
            block_scores[seen.rows, place[seen.values]] = -torch.inf
        top = _top(block_scores, max(cutoffs))
        items, shown = order[top], block_scores.gather(1, top) > -torch.inf
        hits = relevant.contains(block[:, None], items) & shown
        columns = [m(hits, relevant.degrees[block], k) for k in cutoffs for m in METRICS.values()]
        columns += beyond.measure(block, items, shown, hits) if beyond else []
        table[start : start + users_per_block] = torch.stack(columns, 1)
    if world > 1:
        dist.all_reduce(table)
        if beyond:
            dist.all_reduce(beyond.counts)
    values = dict(zip(names, table.unbind(1), strict=True))
    return UserMetrics(users, values, beyond.catalogue() if beyond else {})


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
