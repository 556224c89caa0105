"""Reductions over the negatives of each row that losses share: the definition in torch, the work in a native kernel."""

import torch
import torch.nn.functional as F
from torch import Tensor

from recloss import native


def logsumexp_rows(x: Tensor, tau: float) -> Tensor:
    """(B,) ``log sum_j exp(x_bj / tau)`` of (B, N) ``x``."""
    if native.takes(x):
        return _LogSumExp.apply(x.contiguous(), None, tau)
    return (x / tau).logsumexp(1)


def logsigmoid_rows(x: Tensor, shift: Tensor, tau: float) -> Tensor:
    """(B,) ``log sum_j sigmoid(x_bj - shift_b)^(1 / tau)`` of (B, N) ``x`` and (B,) ``shift``."""
    if native.takes(x, shift):
        return _LogSumExp.apply(x.contiguous(), shift.contiguous(), tau)
    return (F.logsigmoid(x - shift[:, None]) / tau).logsumexp(1)


def pinball_rows(x: Tensor, beta: Tensor, share: float) -> Tensor:
    """(B,) ``sum_j rho(x_bj - beta_b)`` with ``rho(d) = (1 - share) max(d, 0) + share max(-d, 0)``.

    Differentiable in ``beta`` alone, with subgradient 0 where a score equals it; ``x`` is (B, N).
    """
    x = x.detach()
    if native.takes(x, beta):
        return _Pinball.apply(x.contiguous(), beta.contiguous(), share)
    d = x - beta[:, None]
    return ((1 - share) * d.relu() + share * (-d).relu()).sum(1)


class _LogSumExp(torch.autograd.Function):
    """Of rows as they are, or with a shift of their log-sigmoids; the kernel gives the weights of the gradient too."""

    @staticmethod
    def forward(ctx, x, shift, tau):  # type: ignore[no-untyped-def]
        out, weight = x.new_empty(len(x)), torch.empty_like(x)
        name, given = ("logsumexp_rows", (x,)) if shift is None else ("logsigmoid_rows", (x, shift))
        native.call(name, *given, out, weight, float(tau), *x.shape)
        ctx.save_for_backward(weight)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (weight,) = ctx.saved_tensors
        grad_x = weight * grad[:, None]
        return grad_x, -grad_x.sum(1) if ctx.needs_input_grad[1] else None, None


class _Pinball(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, beta, share):  # type: ignore[no-untyped-def]
        out, slope = torch.empty_like(beta), torch.empty_like(beta)
        native.call("pinball_rows", x, beta, out, slope, float(share), *x.shape)
        ctx.save_for_backward(slope)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (slope,) = ctx.saved_tensors
        return None, slope * grad, None
