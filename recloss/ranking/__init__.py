"""Learning to rank: lists of documents with graded relevance, losses over them, scorers, metrics and training."""

from recloss.ranking.lists import PADDING, Lists
from recloss.ranking.metrics import evaluate, ndcg
from recloss.ranking.training import fit_lists

__all__ = ["PADDING", "Lists", "evaluate", "fit_lists", "ndcg"]
