"""PSL: pairwise softmax loss."""

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from recloss.errors import require_one_of, require_positive
from recloss.losses.base import Batch, Loss
from recloss.rowwise import logsigmoid_rows

Activation = Literal["tanh", "arctan", "relu"]
_FLOOR = 1e-12


def log_activation(difference: Tensor, activation: Activation) -> Tensor:
    """``log a(x)`` at ``x = difference / 2``: a(x) = 1 + tanh x = 2 sigmoid(2 x), 1 + arctan x or relu(1 + x).

    The relu form is floored at log 1e-12, with zero gradient below the floor.
    """
    if activation == "tanh":
        return math.log(2) + F.logsigmoid(difference)
    if activation == "arctan":
        return torch.log1p(torch.arctan(difference / 2))
    return (1 + difference / 2).clamp(min=_FLOOR).log()


def psl(pos: Tensor, neg: Tensor, tau: float, activation: Activation = "tanh") -> Tensor:
    """``l_b = log sum_j a((n_bj - p_b) / 2) ^ (1 / tau)``, the half being PSL's half-cosines.

    Args:
        pos: (B,) cosines of the positives.
        neg: (B, N) cosines of the negatives.
        tau: temperature, outside the activation; the paper's own, so that PSL(tau) is close to SL(2 tau).
        activation: a(x), see ``log_activation``.

    Returns:
        (B,) losses.
    """
    if activation == "tanh":
        return math.log(2) / tau + logsigmoid_rows(neg, pos, tau)
    return (log_activation(neg - pos[:, None], activation) / tau).logsumexp(1)


class PSL(Loss):
    """Pairwise softmax loss on cosines.

    Args:
        tau: temperature, above 0; the paper's own, about half of the one that suits SL.
        activation: "tanh", "arctan" or "relu".

    Source: Yang et al., NeurIPS 2024, eq. 3.4.
    """

    name = "psl"
    title = "PSL"
    per_row = True

    def __init__(self, *, tau: float = 0.1, activation: Activation = "tanh") -> None:
        super().__init__()
        require_positive(tau=tau)
        require_one_of("activation", activation, get_args(Activation))
        self.tau, self.activation = tau, activation

    def compute(self, batch: Batch) -> Tensor:
        """Mean of ``psl`` over the batch."""
        return psl(batch.pos, batch.neg, self.tau, self.activation).mean()
