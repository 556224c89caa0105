"""DrRL: negatives weighted by the worst case within a Cressie-Read (the paper's Renyi) ball around uniform ones."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from recloss.errors import require, require_one_of, require_positive
from recloss.losses.base import Batch, Loss, last_of_each

Solver = Literal["sgd", "closed_form", "bisect"]
Scope = Literal["user", "row"]
_HALVINGS = 60


def drrl(pos: Tensor, neg: Tensor, beta: Tensor, gamma_star: float, c: float, eps: float = 0.0) -> Tensor:
    """``l_b = 1 - p_b + beta_b + (mean_j (c max(0, n_bj - beta_b) + eps)^g)^(1/g)`` with g = gamma_star.

    Args:
        pos: (B,) scores of the positives.
        neg: (B, N) scores of the negatives; those up to beta are left out, without gradient.
        beta: (B,) margin of each row; at its best the last two terms are the worst case of the mean negative.
        gamma_star: g, at least 1.
        c: above 1.
        eps: added to every entry of the norm, also those left out.

    Returns:
        (B,) losses.
    """
    return 1 - pos + beta + _norm(c * (neg - beta[:, None]).relu() + eps, gamma_star)


def slope(neg: Tensor, beta: Tensor, gamma_star: float, c: float, eps: float = 0.0) -> Tensor:
    """(B,) derivative of ``drrl`` in beta: ``1 - c mean_j [n_j > beta] x_j^(g-1) / (mean_j x_j^g)^((g-1)/g)``.

    Here x_j is the entry of the norm, ``c max(0, n_j - beta) + eps``. It rises with beta, from 1 - c up to 1.
    """
    tiny = torch.finfo(neg.dtype).tiny
    excess = (neg - beta[:, None]).relu()
    x = c * excess + eps
    x = x / x.amax(1, keepdim=True).clamp(min=tiny)
    power = x.pow(gamma_star - 1)
    norm = (x * power).mean(1).clamp(min=tiny).pow(1 - 1 / gamma_star)
    return 1 - c * torch.where(excess > 0, power, 0.0).mean(1) / norm


def solve(neg: Tensor, gamma_star: float, c: float, solver: Solver) -> Tensor:
    """(B,) the beta that minimises ``drrl`` (eps = 0) for each row of negatives (B, N).

    Without gradient (envelope theorem), except that a beta which is one of the scores moves with it: the largest, where
    ``c >= (N / k)^(1/g)`` with k of them equal, and any at gamma_star = 1. There the loss has a kink and the
    derivative in beta is not 0.
    """
    if gamma_star == 1 and solver == "closed_form":
        rank = math.ceil(neg.shape[1] / c)
        return neg.topk(rank, dim=1).values[:, -1]
    top = neg.amax(1)
    with torch.no_grad():
        ties = (neg == top[:, None]).to(neg.dtype).mean(1)
        at_the_top = c * ties.pow(1 / gamma_star) >= 1
        beta = _stationary(neg, c) if solver == "closed_form" else _bisected(neg, gamma_star, c)
    return torch.where(at_the_top, top, beta)


def _norm(x: Tensor, g: float) -> Tensor:
    """(B,) ``(mean_j x_bj^g)^(1/g)`` of x >= 0, scaled by the largest entry; a row of zeros has gradient 0."""
    top = x.detach().amax(1)
    some = top > 0
    scale = torch.where(some, top, 1.0)
    mean = (x / scale[:, None]).pow(g).mean(1)
    return scale * torch.where(some, torch.where(some, mean, 1.0).pow(1 / g), 0.0)


def _bisected(neg: Tensor, g: float, c: float) -> Tensor:
    """(B,) where ``slope`` changes sign, by halving a bracket.

    It is negative at a distance d below all scores, which spread over D, if c d^(g-1) >= (d + D)^(g-1).
    """
    low, high = neg.amin(1), neg.amax(1)
    ratio = math.log(c) / (g - 1) if g > 1 else math.inf
    low = low - (high - low) / math.expm1(min(ratio, 700.0))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        falling = slope(neg, middle, g, c) < 0
        low, high = torch.where(falling, middle, low), torch.where(falling, high, middle)
    return (low + high) / 2


def _stationary(neg: Tensor, c: float) -> Tensor:
    """(B,) where ``slope`` is 0 at gamma_star = 2.

    With the k best scores active, of mean mu and sum of squared deviations V, the root is
    ``mu - sqrt(V / (k (c^2 k / N - 1)))``; k is the first for which it lies above the next score.
    """
    N = neg.shape[1]
    s = neg.sort(1, descending=True).values
    top, s = s[:, :1], s - s[:, :1]
    k = torch.arange(1, N + 1, device=neg.device, dtype=neg.dtype)
    mean = s.cumsum(1) / k
    spread = (s.square().cumsum(1) - k * mean.square()).clamp(min=0)
    gap = mean[:, :-1] - s[:, 1:]
    above = c * k[:-1] * gap > (N * (spread[:, :-1] + k[:-1] * gap.square())).sqrt()
    first = (~above).sum(1, keepdim=True)
    factor = (c**2 * k / N - 1).clamp(min=torch.finfo(neg.dtype).tiny)
    distance = (spread / (k * factor)).sqrt().gather(1, first)
    furthest = torch.cat([gap, torch.full_like(top, torch.inf)], 1).gather(1, first)
    return (top + mean.gather(1, first) - distance.minimum(furthest))[:, 0]


class DrRL(Loss):
    """DrRL on cosines: distributionally robust against the distribution of negatives.

    The loss uses the user's margin from before the batch, as a constant (envelope theorem).

    State, with scope="user": ``beta`` (n_users,), a buffer, moved by each training batch from gathered rows. "sgd"
    takes one step down the sum of the rows' losses. Another solver moves it towards the solution for the user's last
    row in the batch.

    Args:
        n_users: number of users.
        gamma_star: g, at least 1: 1 is CCL with a learned margin, large ones beside eta approach SL. 2 by default.
        c: above 1; the larger, the fewer negatives count. 3 by default, of evenly spread negatives 15 %.
        gamma: order of the divergence, above 1, in place of gamma_star = gamma / (gamma - 1).
        eta: radius of the ball, above 0, in place of c = (1 + gamma (gamma - 1) eta)^(1 / gamma).
        solver: of beta: "sgd", "bisect", or "closed_form" for gamma_star 1 or 2.
        scope: of beta: per "user", or solved on each "row"'s own negatives, without state.
        beta_lr: step size of "sgd".
        beta_init: where beta starts.
        ema: weight of a newly solved beta in its user's moving average, in (0, 1].
        eps: with "sgd", added to all entries of the norm; 0.1 in the authors' code.

    Source: DrRL (arXiv 2506.15120).
    """

    name = "drrl"
    title = "DrRL"
    beta: Tensor

    def __init__(
        self,
        n_users: int,
        *,
        gamma_star: float | None = None,
        c: float | None = None,
        gamma: float | None = None,
        eta: float | None = None,
        solver: Solver = "sgd",
        scope: Scope = "user",
        beta_lr: float = 1e-3,
        beta_init: float = 0.7,
        ema: float = 0.1,
        eps: float = 0.0,
    ) -> None:
        super().__init__()
        self.gamma, self.eta = gamma, eta
        self.gamma_star = _gamma_star(gamma_star, gamma)
        self.c = _c(c, eta, self.gamma_star)
        require_one_of("solver", solver, get_args(Solver))
        require_one_of("scope", scope, get_args(Scope))
        require_positive(beta_lr=beta_lr)
        require(_is_number(beta_init), f"beta_init must be a finite number, got {beta_init!r}")
        require(_is_number(ema) and 0 < ema <= 1, f"ema must lie in (0, 1], got {ema!r}")
        require(_is_number(eps) and eps >= 0, f"eps must be a number from 0, got {eps!r}")
        closed = self.gamma_star in (1, 2)
        require(closed or solver != "closed_form", f"solver must not be closed_form at gamma_star {self.gamma_star!r}")
        require(scope == "user" or solver != "sgd", f"scope must be user with solver sgd, got {scope!r}")
        require(eps == 0 or solver == "sgd", f"eps must be 0 with solver {solver}, got {eps!r}")
        self.solver, self.scope, self.beta_lr, self.beta_init = solver, scope, beta_lr, beta_init
        self.ema, self.eps = ema, eps
        self.per_row = scope == "row"
        if scope == "user":
            self.needs = frozenset({"user"})
            self.register_buffer("beta", torch.full((n_users,), float(beta_init)))

    def compute(self, batch: Batch) -> Tensor:
        """Mean of ``drrl`` over the batch."""
        if self.scope == "row":
            beta = solve(batch.neg, self.gamma_star, self.c, self.solver)
        else:
            assert batch.user is not None
            beta = self.beta[batch.user]
            if self.training:
                self._move(batch, batch.user, beta)
        return drrl(batch.pos, batch.neg, beta, self.gamma_star, self.c, self.eps).mean()

    @property
    def thresholds(self) -> Tensor | None:
        """The margins, with scope="user"."""
        return self.beta if self.scope == "user" else None

    @torch.no_grad()
    def _move(self, batch: Batch, user: Tensor, beta: Tensor) -> None:
        users = batch.gather(user)
        if self.solver == "sgd":
            slopes = batch.gather(slope(batch.neg, beta, self.gamma_star, self.c, self.eps))
            self.beta.index_add_(0, users, slopes.to(self.beta.dtype), alpha=-self.beta_lr)
            return
        solved = batch.gather(solve(batch.neg, self.gamma_star, self.c, self.solver)).to(self.beta.dtype)
        users, last = last_of_each(users)
        self.beta[users] += self.ema * (solved[last] - self.beta[users])


def _gamma_star(gamma_star: float | None, gamma: float | None) -> float:
    if gamma is None:
        g = 2.0 if gamma_star is None else gamma_star
        require(_is_number(g) and g >= 1, f"gamma_star must be a number from 1, got {g!r}")
        return g
    require(gamma_star is None, f"gamma_star must not be given beside gamma, got {gamma_star!r} and {gamma!r}")
    require(_is_number(gamma) and gamma > 1, f"gamma must be a number above 1, got {gamma!r}")
    return gamma / (gamma - 1)


def _c(c: float | None, eta: float | None, gamma_star: float) -> float:
    if eta is not None:
        require(c is None, f"c must not be given beside eta, got {c!r} and {eta!r}")
        require_positive(eta=eta)
        require(gamma_star > 1, f"gamma_star must be above 1 with eta, got {gamma_star!r}")
        gamma = gamma_star / (gamma_star - 1)
        c = (1 + gamma * (gamma - 1) * eta) ** (1 / gamma)
    c = 3.0 if c is None else c
    require(_is_number(c) and c > 1, f"c must be a number above 1, got {c!r}")
    return c


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
