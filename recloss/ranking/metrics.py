"""NDCG of graded lists, one value per query, and the evaluation of a scorer on all documents of all queries."""

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from recloss.errors import require, require_one_of
from recloss.evaluation import UserMetrics, evaluating
from recloss.metrics import metric_name
from recloss.ranking.lists import Lists
from recloss.ranking.scorers import ListScorer
from recloss.ties import item_order

NoRelevant = Literal["left out", "one", "zero"]
"""What a query without a relevant document counts: nothing, 1 or 0."""
PLACES = 2**16
"""Places of padded lists that are scored at once, at most, unless a list has more documents."""


def ndcg(scores: Tensor, lists: Lists, cutoffs: Sequence[int], no_relevant: NoRelevant = "left out") -> UserMetrics:
    """NDCG@K of each query: ``DCG@K / IDCG@K``, ``DCG@K = sum over the top K of (2^y - 1) / log2(1 + rank)``.

    IDCG@K is the DCG@K of the best order. Documents of bitwise equal scores rank in a fixed pseudo-random order, so a
    constant scorer is no better than chance.

    Args:
        scores: (n,) scores of all documents, in the order of ``lists``.
        lists: the documents' grades.
        cutoffs: each K, at least 1; a list of fewer documents is measured as a whole.
        no_relevant: what a query without a relevant document counts: it is "left out", or "one" or "zero".

    Returns:
        ``ndcg_<K>`` of the queries that have documents, less those that are left out; ``users`` are the queries.

    Raises:
        ValueError: for a K below 1, another number of scores, or if no query is left.
        FloatingPointError: if a score is not finite.
    """
    require(min(cutoffs) >= 1, f"every K must be at least 1, got {list(cutoffs)}")
    require(scores.shape == lists.grades.shape, f"{tuple(scores.shape)} scores of {len(lists)} documents")
    require_one_of("no_relevant", no_relevant, get_args(NoRelevant))
    if not bool(scores.isfinite().all()):
        raise FloatingPointError("the scores are not finite")
    relevant = torch.zeros(lists.n_queries, dtype=torch.float64, device=scores.device)
    relevant.index_add_(0, lists.query, (lists.grades > 0).double())
    measured = (lists.lengths > 0) if no_relevant != "left out" else (relevant > 0)
    queries = measured.nonzero().flatten()
    require(len(queries) > 0, "no query has a relevant document: nothing to evaluate")
    values = {}
    for k in cutoffs:
        ideal = _dcg(lists.grades, lists, k)
        found = _dcg(scores, lists, k) / ideal.where(ideal > 0, 1)
        values[metric_name("ndcg", k)] = torch.where(relevant > 0, found, float(no_relevant == "one"))[queries]
    return UserMetrics(queries, values)


def _dcg(by: Tensor, lists: Lists, k: int) -> Tensor:
    """(Q,) DCG@k of the documents in descending order ``by`` (n,)."""
    order = item_order(len(lists)).to(by.device)
    order = order[by[order].argsort(descending=True, stable=True)]
    order = order[lists.query[order].argsort(stable=True)]
    rank = torch.arange(1, len(lists) + 1, device=by.device) - lists.offsets[lists.query]
    gain = (torch.exp2(lists.grades.double()) - 1)[order]
    terms = torch.where(rank <= k, gain / torch.log2(1 + rank.double()), 0)
    return terms.new_zeros(lists.n_queries).index_add_(0, lists.query, terms)


@torch.no_grad()
def evaluate(
    scorer: ListScorer, lists: Lists, cutoffs: Sequence[int], no_relevant: NoRelevant = "left out"
) -> UserMetrics:
    """`ndcg` of a scorer, which sees all documents of each query; the training flags of its modules are kept.

    Raises:
        ValueError, FloatingPointError: as `ndcg`.
    """
    return ndcg(scored(scorer, lists), lists, cutoffs, no_relevant)


@torch.no_grad()
def scored(scorer: ListScorer, lists: Lists) -> Tensor:
    """(n,) scores of all documents, the scorer in evaluation mode."""
    scores = lists.features.new_zeros(len(lists))
    with evaluating(scorer):
        for queries in _blocks(lists.lengths):
            places = lists.places(queries)
            features, _ = lists.at(places)
            present = places >= 0
            scores[places[present]] = scorer(features, present)[present]
    return scores


def _blocks(lengths: Tensor) -> Iterator[Tensor]:
    """The queries with documents, those of like lengths together, of at most ``PLACES`` places padded."""
    ordered = lengths.argsort(descending=True, stable=True)
    ordered = ordered[: int((lengths > 0).sum())]
    while len(ordered):
        n = max(1, PLACES // int(lengths[ordered[0]]))
        yield ordered[:n]
        ordered = ordered[n:]
