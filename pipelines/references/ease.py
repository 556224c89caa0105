"""EASE: a linear item-item model in closed form (Steck, WWW 2019)."""

import torch
from torch import Tensor

from pipelines.references.base import Reference, matrix
from recloss.errors import InputError, require_positive
from recloss.evaluation import Scorer
from recloss.interactions import Interactions

MAX_ITEMS = 2**15
"""Fitting needs two |I| x |I| matrices of float64 at a time: 17 GB for so many items."""
_ROWS = 512


class EASE(Reference):
    """score(u, i) = sum over training items j of user u of B_ji.

    B minimises |X - X B|^2 + l2 |B|^2 subject to diag(B) = 0, X being the users' training items as ones:
    B = I - P diag(1 / diag P) with P = (X^T X + l2 I)^-1.

    Args:
        l2: strength of the regularisation.

    Raises:
        ValueError: if it is not above 0.
    """

    name = "ease"
    title = "EASE"

    def __init__(self, *, l2: float = 500.0) -> None:
        require_positive(l2=l2)
        self.l2 = l2

    def fit(self, train: Interactions, *, seed: int, threads: int) -> dict[str, Tensor]:
        """``weights`` (n_items, n_items), B in float32, computed in float64.

        Raises:
            InputError: for a catalogue of more than ``MAX_ITEMS`` items.
        """
        n = train.n_items
        if n > MAX_ITEMS:
            needed, most = (f"{16 * size**2 / 1e9:.0f} GB" for size in (n, MAX_ITEMS))
            raise InputError(
                f"EASE inverts a matrix of items by items: {n:,} items need {needed} of memory; "
                f"it is fitted for up to {MAX_ITEMS:,} items ({most})"
            )
        x_UI = matrix(train)
        by_item = x_UI.T.tocsr()
        gram_II = torch.empty(n, n, dtype=torch.float64)
        for first in range(0, n, _ROWS):
            rows = slice(first, first + _ROWS)
            gram_II[rows] = torch.from_numpy((by_item[rows] @ x_UI).toarray())
        gram_II.diagonal().add_(self.l2)
        factor_II = torch.linalg.cholesky(gram_II)
        del gram_II
        inverse_II = torch.cholesky_inverse(factor_II)
        del factor_II
        weights = inverse_II.div_(-inverse_II.diagonal().clone()).to(torch.float32)
        weights.fill_diagonal_(0)
        return {"weights": weights}

    def scorer(self, train: Interactions, state: dict[str, Tensor]) -> Scorer:
        """Sums of rows of B."""
        x_UI, weights = matrix(train), state["weights"].numpy()
        return lambda users: torch.from_numpy(x_UI[users.numpy()] @ weights)
