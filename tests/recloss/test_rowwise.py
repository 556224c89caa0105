"""Row reductions against their definitions in float64, on both kernels, in value and gradient."""

import pytest
import torch
import torch.nn.functional as F

from recloss.rowwise import logsigmoid_rows, logsumexp_rows, pinball_rows

pytestmark = pytest.mark.usefixtures("kernels")

ROWS = {
    "one score": torch.tensor([[0.3], [-1.0]]),
    "fewer than a vector": torch.tensor([[0.1, -0.2, 0.9], [1.0, 1.0, 1.0]]),
    "equal scores": torch.full((2, 40), -1.0),
    "from -1 to 1": torch.linspace(-1, 1, 2 * 77).view(2, 77),
    "far apart": torch.tensor([[1.0, *[-1.0] * 30], [-1.0, *[1.0] * 30]]),
    "dot products": torch.linspace(-60, 60, 2 * 33).view(2, 33),
}
SHIFT = torch.tensor([0.25, -0.4])
every_row = pytest.mark.parametrize("rows", ROWS)
every_tau = pytest.mark.parametrize("tau", [0.01, 0.1, 1.0, 7.0])


def check(found, definition, *inputs, rtol=2e-6, atol=2e-6):
    """Values and gradients of ``found`` in float32 are those of ``definition`` in float64."""
    low = [x.clone().requires_grad_() for x in inputs]
    high = [x.double().requires_grad_() for x in inputs]
    weight = torch.tensor([1.5, -0.5])
    left, right = found(*low), definition(*high)
    torch.testing.assert_close(left.double(), right, rtol=rtol, atol=atol)
    for a, b in zip(
        torch.autograd.grad((left * weight).sum(), low), torch.autograd.grad((right * weight).sum(), high), strict=True
    ):
        scale = max(1.0, float(b.abs().max()))
        torch.testing.assert_close(a.double() / scale, b / scale, rtol=rtol, atol=atol)


@every_row
@every_tau
def test_logsumexp(rows, tau):
    rtol = 2e-6 * max(1.0, float(ROWS[rows].abs().max()) / tau / 20)  # float32 rounds exponents of this size
    check(lambda x: logsumexp_rows(x, tau), lambda x: (x / tau).logsumexp(1), ROWS[rows], rtol=rtol, atol=rtol)


@every_row
@every_tau
def test_logsigmoid(rows, tau):
    rtol = 2e-6 * max(1.0, float(ROWS[rows].abs().max()) / tau / 20)
    check(
        lambda x, s: logsigmoid_rows(x, s, tau),
        lambda x, s: (F.logsigmoid(x - s[:, None]) / tau).logsumexp(1),
        ROWS[rows], SHIFT, rtol=rtol, atol=rtol,
    )  # fmt: skip


def test_a_score_of_minus_infinity_is_left_out():
    x = torch.tensor([[0.2, -torch.inf, 0.4]], requires_grad=True)
    out = logsumexp_rows(x, 0.1)
    out.sum().backward()
    torch.testing.assert_close(out, torch.tensor([[0.2, 0.4]]).div(0.1).logsumexp(1), rtol=1e-6, atol=1e-6)
    assert float(x.grad[0, 1]) == pytest.approx(0, abs=1e-30)


@every_row
@pytest.mark.parametrize("share", [0.0005, 0.3])
def test_pinball(rows, share):
    """Subgradient 0 where a score equals beta, as 0.3 and -1 do here; the scores get no gradient."""
    x, beta = ROWS[rows], torch.tensor([0.3, -1.0], requires_grad=True)
    found = pinball_rows(x.requires_grad_(), beta, share)
    found.backward(torch.tensor([1.5, -0.5]))
    above, below = (x.detach() > beta.detach()[:, None]).sum(1), (x.detach() < beta.detach()[:, None]).sum(1)
    expected = torch.tensor([1.5, -0.5]) * (share * below - (1 - share) * above)
    torch.testing.assert_close(beta.grad, expected, rtol=1e-5, atol=1e-6)
    d = x.detach().double() - beta.detach().double()[:, None]
    value = (torch.where(d > 0, (1 - share) * d, -share * d)).sum(1)
    torch.testing.assert_close(found.double(), value, rtol=1e-5, atol=1e-6)
    assert x.grad is None
    x.requires_grad_(False)


def test_a_view_that_is_not_contiguous():
    x = torch.linspace(-1, 1, 60).view(20, 3).T
    torch.testing.assert_close(logsumexp_rows(x, 0.1), (x / 0.1).logsumexp(1), rtol=1e-6, atol=1e-6)
    found = logsigmoid_rows(x, torch.zeros(3), 0.1)
    torch.testing.assert_close(found, (F.logsigmoid(x) / 0.1).logsumexp(1), rtol=1e-6, atol=1e-6)
