"""The softmax over all items, as losses of it need it: no (B, I) numbers are held but the scores and their gradient."""

import torch
from torch import Tensor

from recloss.interactions import Segments

_CHUNK = 2**20
"""Scores that are copied at once: rows in pieces of this size stay in cache, which is 2 to 3 times as fast."""


def softmax_parts(
    logits: Tensor, item: Tensor, items: Segments | None = None, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The two parts of ``p = softmax(z)``: that of the target y against all others, and that among the others.

    ``m_b = z_by - log sum_{j != y} exp(z_bj)``, so that ``p_y = sigmoid(m)`` and ``1 - p_y = sigmoid(-m)``, and
    ``c_b = -sum_{j != y} w_bj log r_bj`` with ``r = softmax`` over the others, so that ``p_j = (1 - p_y) r_j``.
    Both are exact where p_y is 0 or 1 to rounding; their gradients are the closed form.

    Memory: forward, a copy of about a million scores (4 MB in float32), or of one row if that is longer; backward, the
    (B, I) gradient; a few times M numbers in both. Between the two, nothing is kept but ``logits`` and M numbers.

    Args:
        logits: (B, I) scores of all items, I at least 2.
        item: (B,) int64 targets y.
        items: items of each row's weights w, each at most once; without them w is 1 / (I - 1) on all others.
        weights: (M,) weights w of ``items``, 0 where the item is the target; without gradient.

    Returns:
        (B,) m and (B,) c.
    """
    if items is None or weights is None:
        return _SoftmaxParts.apply(logits.contiguous(), item, None, None, None)
    return _SoftmaxParts.apply(logits.contiguous(), item, items.rows, items.values, weights.detach())


class _SoftmaxParts(torch.autograd.Function):
    """Forward in pieces of rows, of which only the log-sum of the others is kept; backward in the gradient itself."""

    @staticmethod
    def forward(ctx, logits, item, rows, columns, weights):  # type: ignore[no-untyped-def]
        others, uniform = [], []
        size = max(1, _CHUNK // logits.shape[1])
        for piece, y in zip(logits.split(size), item[:, None].split(size), strict=True):
            x = piece.scatter(1, y, -torch.inf)
            top = x.amax(1, keepdim=True)
            x.sub_(top)
            if weights is None:
                uniform.append(-x.scatter_(1, y, 0).sum(1) / (x.shape[1] - 1))
                x.scatter_(1, y, -torch.inf)
            spread = x.exp_().sum(1).log_()
            others.append(spread + top[:, 0])
            if weights is None:
                uniform[-1].add_(spread)
        lse = torch.cat(others)
        margin = logits.gather(1, item[:, None])[:, 0] - lse
        if weights is None:
            cross, mass = torch.cat(uniform), torch.ones_like(lse)
        else:
            terms = weights * (lse[rows] - logits[rows, columns])
            cross, mass = (torch.zeros_like(lse).index_add_(0, rows, x) for x in (terms, weights))
        ctx.save_for_backward(logits, item, lse, mass, rows, columns, weights)
        return margin, cross

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_margin, grad_cross):  # type: ignore[no-untyped-def]
        logits, item, lse, mass, rows, columns, weights = ctx.saved_tensors
        grad = torch.sub(logits, lse[:, None]).exp_()
        grad.mul_((mass * grad_cross - grad_margin)[:, None])
        if weights is None:
            grad.sub_(grad_cross[:, None] / (logits.shape[1] - 1))
        else:
            grad.view(-1).index_add_(0, rows * logits.shape[1] + columns, -weights * grad_cross[rows])
        grad.scatter_(1, item[:, None], grad_margin[:, None])
        return grad, None, None, None, None
