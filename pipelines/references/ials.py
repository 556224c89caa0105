"""iALS: implicit alternating least squares (Hu, Koren and Volinsky, ICDM 2008), by the `implicit` library."""

import torch
from torch import Tensor

from pipelines.references.base import Reference, matrix
from recloss.errors import require, require_positive
from recloss.evaluation import Scorer
from recloss.interactions import Interactions


class IALS(Reference):
    """score(u, i) = <p_u, q_i>, where the factors minimise a weighted squared error over all users and items.

    sum over u, i of c_ui (x_ui - <p_u, q_i>)^2 + regularization (sum |p_u|^2 + sum |q_i|^2), with x_ui = 1 and
    c_ui = alpha for training interactions, x_ui = 0 and c_ui = 1 for all others. The least squares of each user and
    item are solved by three steps of conjugate gradients (Takács et al., RecSys 2011), the default of the library.

    Args:
        factors: dimension.
        regularization: of the factors.
        alpha: weight of a training interaction.
        iterations: sweeps over users and items.

    Raises:
        ValueError: for a value out of range.
    """

    name = "ials"
    title = "iALS"

    def __init__(
        self, *, factors: int = 64, regularization: float = 10.0, alpha: float = 3.0, iterations: int = 15
    ) -> None:
        require(factors >= 1, f"factors must be at least 1, got {factors}")
        require(iterations >= 1, f"iterations must be at least 1, got {iterations}")
        require(regularization >= 0, f"regularization must be at least 0, got {regularization}")
        require_positive(alpha=alpha)
        self.factors, self.regularization, self.alpha, self.iterations = factors, regularization, alpha, iterations

    def fit(self, train: Interactions, *, seed: int, threads: int) -> dict[str, Tensor]:
        """``users`` (n_users, factors) and ``items`` (n_items, factors), from random factors of ``seed``."""
        from implicit.cpu.als import AlternatingLeastSquares
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, "blas"):  # the library's threads are its own
            model = AlternatingLeastSquares(
                factors=self.factors,
                regularization=self.regularization,
                alpha=self.alpha,
                iterations=self.iterations,
                num_threads=threads,
                random_state=seed,
            )
            model.fit(matrix(train), show_progress=False)
        return {"users": torch.from_numpy(model.user_factors), "items": torch.from_numpy(model.item_factors)}

    def scorer(self, train: Interactions, state: dict[str, Tensor]) -> Scorer:
        """Dot products."""
        return lambda users: state["users"][users] @ state["items"].T
