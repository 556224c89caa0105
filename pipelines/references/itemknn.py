"""ItemKNN: item-item neighbours, found by the `implicit` library."""

import numpy as np
import torch
from torch import Tensor

from pipelines.references.base import Reference, matrix
from recloss.errors import require
from recloss.evaluation import Scorer
from recloss.interactions import Interactions

WEIGHTINGS = ("cosine", "tfidf", "bm25")
_K1, _B = 1.2, 0.75


class ItemKNN(Reference):
    """score(u, i) = sum of sim(j, i) over training items j of user u that have i among their nearest neighbours.

    With w_ui the weight of an interaction, of a user of n_u items and an item of n_i users:

    * cosine: w_ui = 1, sim = cosine of the items' columns (Sarwar et al., WWW 2001)
    * tfidf: w_ui = log |I| - log(1 + n_u), sim = cosine
    * bm25: w_ui as in tfidf, times (k1 + 1) / (1 + k1 (1 - b + b n_i / mean n_i)), sim = dot product

    Users are the terms and items the documents, as in the `implicit` library.

    Args:
        neighbours: other items that each item votes for.
        weighting: "cosine", "tfidf" or "bm25".
        k1: of bm25: how soon further users count less.
        b: of bm25: how much popular items are damped, 0 to 1.

    Raises:
        ValueError: for a value out of range, or ``k1`` or ``b`` where it has no effect.
    """

    name = "itemknn"
    title = "ItemKNN"

    def __init__(self, *, neighbours: int = 100, weighting: str = "cosine", k1: float = _K1, b: float = _B) -> None:
        require(neighbours >= 1, f"neighbours must be at least 1, got {neighbours}")
        require(weighting in WEIGHTINGS, f"weighting must be one of {', '.join(WEIGHTINGS)}, got {weighting!r}")
        require(k1 >= 0, f"k1 must be at least 0, got {k1}")
        require(0 <= b <= 1, f"b must lie in 0..1, got {b}")
        require(weighting == "bm25" or (k1, b) == (_K1, _B), f"k1 and b have no effect with weighting {weighting!r}")
        self.neighbours, self.weighting, self.k1, self.b = neighbours, weighting, k1, b

    def fit(self, train: Interactions, *, seed: int, threads: int) -> dict[str, Tensor]:
        """Similarity matrix (n_items, n_items) as CSR: ``offsets``, ``items`` and ``similarities``."""
        from implicit.nearest_neighbours import ItemItemRecommender, bm25_weight, normalize, tfidf_weight

        by_item = matrix(train).T
        weighted = bm25_weight(by_item, self.k1, self.b) if self.weighting == "bm25" else by_item
        if self.weighting == "tfidf":
            weighted = tfidf_weight(by_item)
        if self.weighting != "bm25":
            with np.errstate(invalid="ignore"):  # an item of which every weight is 0 has no direction
                weighted = normalize(weighted)
            weighted.data = np.nan_to_num(weighted.data)
        model = ItemItemRecommender(K=self.neighbours + 1, num_threads=threads)  # an item is a neighbour of its own
        model.fit(weighted.T.tocsr().astype(np.float64), show_progress=False)
        found = model.similarity.tocoo()
        others = (found.row != found.col) & (found.data > 0)
        row, col, value = found.row[others], found.col[others], found.data[others]
        order = np.lexsort((col, -value, row))
        row, col, value = row[order], col[order], value[order]
        offsets = np.concatenate([[0], np.bincount(row, minlength=train.n_items).cumsum()])
        kept = np.arange(len(row)) - offsets[row] < self.neighbours
        counts = np.bincount(row[kept], minlength=train.n_items)
        return {
            "offsets": torch.from_numpy(np.concatenate([[0], counts.cumsum()])),
            "items": torch.from_numpy(col[kept].astype(np.int64)),
            "similarities": torch.from_numpy(value[kept].astype(np.float32)),
        }

    def scorer(self, train: Interactions, state: dict[str, Tensor]) -> Scorer:
        """Sums of rows of the similarity matrix."""
        from scipy.sparse import csr_matrix

        parts = tuple(state[part].numpy() for part in ("similarities", "items", "offsets"))
        x_UI, similarity_II = matrix(train), csr_matrix(parts, shape=(train.n_items, train.n_items))
        return lambda users: torch.from_numpy((x_UI[users.numpy()] @ similarity_II).toarray())
