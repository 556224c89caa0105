"""LLPAUC: optimises the lower-left partial AUC as a minimax problem over the model and seven scalars."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recloss.errors import require, require_share
from recloss.losses.base import Batch, Loss

_KAPPA = 5.0


def llpauc(
    pos: Tensor,
    neg: Tensor,
    alpha: float,
    beta: float,
    *,
    a: Tensor,
    b: Tensor,
    gamma: Tensor,
    s_pos: Tensor,
    s_neg: Tensor,
    theta_a: Tensor,
    theta_b: Tensor,
) -> Tensor:
    """``L = of_pos + of_neg - gamma^2 - theta_b (b - 1 - gamma) + theta_a (a + gamma)``.

    ``of_pos = -s_pos - 1/alpha * mean_b sp(-(P_b - a)^2 + 2 (1 + gamma) P_b - s_pos)`` and
    ``of_neg = s_neg + 1/beta * mean_bj sp((Q_bj - b)^2 + 2 (1 + gamma) Q_bj - s_neg)``
    with P = sigmoid(p), Q = sigmoid(n) and sp(x) = log(1 + exp(5 x)) / 5.

    Args:
        pos: (B,) scores of the positives.
        neg: (B, N) scores of the negatives.
        alpha: share of the positives, the highest-scored, that counts.
        beta: share of the negatives, the highest-scored, that counts.
        a, b, gamma, s_pos, s_neg, theta_a, theta_b: scalars; L is to be maximised in gamma and s_pos, minimised in all
            else.

    Returns:
        Scalar loss.
    """
    P, Q = pos.sigmoid(), neg.sigmoid()
    of_pos = -s_pos - _softplus(-(P - a).square() + 2 * (1 + gamma) * P - s_pos).mean() / alpha
    of_neg = s_neg + _softplus((Q - b).square() + 2 * (1 + gamma) * Q - s_neg).mean() / beta
    return of_pos + of_neg - gamma.square() - theta_b * (b - 1 - gamma) + theta_a * (a + gamma)


def _softplus(x: Tensor) -> Tensor:
    return -F.logsigmoid(-_KAPPA * x) / _KAPPA


_START_AND_RANGE = {
    "a": (1.0, 0.0, 1.0),
    "b": (0.0, 0.0, 1.0),
    "gamma": (0.0, -1.0, 1.0),
    "s_pos": (0.5, -1.0, 4.0),
    "s_neg": (0.5, 0.0, 5.0),
    "theta_a": (0.5, 0.0, 1e9),
    "theta_b": (0.5, 0.0, 1e9),
}
"""Of each scalar, where it starts and the range it is kept in."""


class LLPAUC(Loss):
    """Lower-left partial AUC on cosines (through a sigmoid), by gradient descent and ascent in the same step.

    State: the scalars a, b, gamma, s_pos, s_neg, theta_a, theta_b, parameters in three groups with the model's weight
    decay. A step may take them out of their ranges; the next training batch first puts them back.

    Args:
        alpha: share of the positives that counts, in (0, 1].
        beta: share of the negatives that counts, in (0, 1]; small ones want many negatives and learn slowly.
        ascend: whether gamma and s_pos ascend, as the minimax problem has it, or descend with the rest.

    Source: Shi et al. (WWW 2024), as in Talos (WWW 2026). Defaults: from the grid of the
    Talos and SL@K papers, where alpha = 0.7 is most often best; so is beta = 0.01, with 1,000 negatives.
    """

    name = "llpauc"
    title = "LLPAUC"
    per_row = True

    def __init__(self, *, alpha: float = 0.7, beta: float = 0.1, ascend: bool = True) -> None:
        super().__init__()
        require_share(alpha=alpha, beta=beta)
        require(isinstance(ascend, bool), f"ascend must be true or false, got {ascend!r}")
        self.alpha, self.beta, self.ascend = alpha, beta, ascend
        for name, (start, _, _) in _START_AND_RANGE.items():
            self.register_parameter(name, nn.Parameter(torch.tensor(start)))

    def compute(self, batch: Batch) -> Tensor:
        """``llpauc`` of the batch, the scalars in their ranges."""
        scalars = dict(self.named_parameters())
        if self.training:
            for name, (_, low, high) in _START_AND_RANGE.items():
                scalars[name].data.clamp_(low, high)  # unseen by autograd: an earlier batch may still want its backward
        within = {name: scalars[name].clamp(low, high) for name, (_, low, high) in _START_AND_RANGE.items()}
        return llpauc(batch.pos, batch.neg, self.alpha, self.beta, **within)

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """a, b and the thetas at the model's ``lr``, s_neg at twice it, gamma and s_pos at twice it and upwards."""
        return [
            {"name": "llpauc", "params": self._scalars("a", "b", "theta_a", "theta_b"), "lr": lr},
            {"name": "llpauc_s_neg", "params": self._scalars("s_neg"), "lr": 2 * lr},
            {"name": "llpauc_ascent", "params": self._scalars("gamma", "s_pos"), "lr": 2 * lr, "maximize": self.ascend},
        ]

    def _scalars(self, *names: str) -> list[nn.Parameter]:
        return [self.get_parameter(name) for name in names]
