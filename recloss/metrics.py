"""Top-K ranking metrics, one value per user.

Every metric takes ``hits`` (U, >= k) bool, True where the item at that rank is relevant (best rank first), and
``n_relevant`` (U,), the number of the user's relevant items, at least 1. It returns (U,) float64.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from recloss.errors import InputError, choices


def precision(hits: Tensor, n_relevant: Tensor, k: int) -> Tensor:
    """Precision@k = hits in the top k / k."""
    return hits[:, :k].sum(1, dtype=torch.float64) / k


def recall(hits: Tensor, n_relevant: Tensor, k: int) -> Tensor:
    """Recall@k = hits in the top k / relevant items."""
    return hits[:, :k].sum(1, dtype=torch.float64) / n_relevant


def ndcg(hits: Tensor, n_relevant: Tensor, k: int) -> Tensor:
    """NDCG@k with binary gains: sum over hits of 1 / log2(1 + rank), divided by that of min(k, relevant) top ranks."""
    discount = 1 / torch.log2(torch.arange(2, k + 2, dtype=torch.float64, device=hits.device))
    ideal = discount.cumsum(0)[n_relevant.clamp(max=k) - 1]
    return (hits[:, :k] * discount).sum(1) / ideal


def hit_rate(hits: Tensor, n_relevant: Tensor, k: int) -> Tensor:
    """HitRate@k = 1 if the top k holds a relevant item, else 0."""
    return hits[:, :k].any(1).to(torch.float64)


def mrr(hits: Tensor, n_relevant: Tensor, k: int) -> Tensor:
    """MRR@k = 1 / rank of the first hit, 0 without a hit in the top k."""
    top = hits[:, :k]
    return top.any(1) / (top.to(torch.uint8).argmax(1) + 1).to(torch.float64)


Metric = Callable[[Tensor, Tensor, int], Tensor]
METRICS: dict[str, Metric] = {
    "precision": precision,
    "recall": recall,
    "ndcg": ndcg,
    "hit_rate": hit_rate,
    "mrr": mrr,
}


def metric_name(metric: str, k: int) -> str:
    """Name of a metric at a cut-off as trackers accept it: ``ndcg_20``."""
    return f"{metric}_{k}"


def parse_metric(name: str) -> tuple[str, int | None]:
    """``ndcg_20`` -> ``("ndcg", 20)``; ``mrr``, without a cut-off as of links, -> ``("mrr", None)``.

    Raises:
        InputError: naming the metrics there are.
    """
    if name == "mrr":
        return name, None
    metric, _, cutoff = name.rpartition("_")
    if metric not in METRICS or not cutoff.isdecimal():
        raise InputError(choices("metric", name, [metric_name(m, 20) for m in METRICS]))
    return metric, int(cutoff)
