"""Each held-out edge among its negatives: its rank, Hit@K and MRR."""

from collections.abc import Sequence
from typing import Final, Literal

import torch
from torch import Tensor

from recloss.errors import require
from recloss.evaluation import UserMetrics, evaluating
from recloss.links.gcn import GCN
from recloss.links.links import Links
from recloss.metrics import metric_name

LINK_TIE_RULE: Final = "mean-rank"
"""Among bitwise equal scores an edge takes the mean of the ranks: a constant scorer is no better than chance."""

_PAIRS_AT_ONCE = 2**14


@torch.no_grad()
def edge_ranks(backbone: GCN, similarity: str, links: Links, split: Literal["valid", "test"]) -> Tensor:
    """(E,) float64 ranks of the split's edges among their own negatives, from 1; messages travel on training edges.

    ``1 + negatives with a larger score + negatives with an equal score / 2``.

    Args:
        backbone: the model; the training flags of its modules are kept.
        similarity: of the loss, "cosine" or "dot".
        links: the graph.
        split: whose edges are ranked.

    Raises:
        FloatingPointError: if a score is not finite.
    """
    edges, negatives = (links.valid, links.valid_negatives) if split == "valid" else (links.test, links.test_negatives)
    with evaluating(backbone):
        z = backbone.embed()
        pairs = torch.cat([edges[:, None], negatives], 1).flatten(0, 1).to(z.device)
        pieces = pairs.split(_PAIRS_AT_ONCE)
        scores = torch.cat([backbone.score(z, piece[:, 0], piece[:, 1:], similarity)[:, 0] for piece in pieces])
    if not bool(scores.isfinite().all()):
        raise FloatingPointError("the scores are not finite")
    pos, neg = scores.view(len(edges), -1).split([1, negatives.shape[1]], 1)
    return 1 + (neg > pos).sum(1, dtype=torch.float64) + (neg == pos).sum(1, dtype=torch.float64) / 2


def evaluate_links(
    backbone: GCN, similarity: str, links: Links, split: Literal["valid", "test"], cutoffs: Sequence[int]
) -> UserMetrics:
    """Per edge of the split: ``hit_rate_<K>``, whether its rank is at most K, and ``mrr``, 1 / rank without a cut-off.

    ``users`` of the result number the split's edges. Arguments as of `edge_ranks`, and the ``cutoffs`` K.

    Raises:
        ValueError: if the split has no edges, or a K is not in 1 .. number of negatives.
        FloatingPointError: if a score is not finite.
    """
    negatives = links.valid_negatives if split == "valid" else links.test_negatives
    require(len(negatives) > 0, f"there are no {split} edges to rank")
    for k in cutoffs:
        require(1 <= k <= negatives.shape[1], f"k must lie in 1..{negatives.shape[1]} (the negatives), got {k!r}")
    ranks = edge_ranks(backbone, similarity, links, split)
    values = {metric_name("hit_rate", k): (ranks <= k).double() for k in cutoffs} | {"mrr": 1 / ranks}
    return UserMetrics(torch.arange(len(ranks), device=ranks.device), values)
