"""SogCLR against its golden, its formula in plain Python, and its moving average by hand."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from recloss.losses import Batch, SogCLR
from recloss.losses.sl import sl
from recloss.losses.sogclr import LogAverage, log_mean_exp, sogclr


def random_scores(rows: int = 5, negatives: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(6)
    pos, neg = torch.rand(rows, generator=generator), torch.rand(rows, negatives, generator=generator)
    return (2 * pos - 1).double(), (2 * neg - 1).double()


def same(rows: torch.Tensor) -> torch.Tensor:
    return rows


def update(average: LogAverage, users: list[int], estimates: list[float]) -> list[float]:
    """The averages the rows see, out of the log domain."""
    log_estimates = torch.tensor(estimates, dtype=torch.float64).log()
    return average(torch.tensor(users), log_estimates, same).exp().tolist()


def test_golden_of_two_steps(golden, dtype):
    case = golden("sogclr_two_steps")
    inputs = case["inputs"]
    loss = SogCLR(3, tau=inputs["tau"], ema=inputs["gamma_g"]).to(dtype)
    close = {"rtol": 1e-9, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 2e-5, "atol": 1e-6}
    for step in ("step1", "step2"):
        pos = torch.tensor(inputs["pos"], dtype=dtype, requires_grad=True)
        neg = torch.tensor(inputs[f"neg_{step}"], dtype=dtype, requires_grad=True)
        value = loss(Batch(pos, neg, user=torch.tensor(inputs["users"])))
        value.backward()
        expected = {key: torch.tensor(x, dtype=dtype) for key, x in case[step].items()}
        torch.testing.assert_close(value.detach(), expected["loss"], **close)
        torch.testing.assert_close(loss.average.value.exp(), expected["state"], **close)
        torch.testing.assert_close(pos.grad, expected["grad_pos"], **close)
        torch.testing.assert_close(neg.grad, expected["grad_neg"], **close)


@pytest.mark.parametrize(("tau", "ema"), [(0.05, 0.9), (0.2, 0.1), (1.0, 0.5), (0.2, 1.0)])
def test_against_the_formula_in_plain_python(tau, ema):
    """Three batches with repeated users; every row averages with the state before the batch, the last one is kept."""
    loss, state = SogCLR(3, tau=tau, ema=ema).double(), [0.0, 0.0, 0.0]
    for step, users in enumerate([[0, 1, 0, 0, 1], [2, 1, 2, 0, 0], [1, 1, 2, 2, 0]]):
        pos, neg = random_scores()
        neg = neg.roll(step, 0)
        losses, new = [], list(state)
        for b, user in enumerate(users):
            estimate = sum(math.exp(n / tau) for n in neg[b].tolist()) / 7
            average = (1 - ema) * state[user] + ema * estimate if state[user] else estimate
            losses.append(estimate / average - float(pos[b]) / tau)
            new[user] = average
        state = new
        value = loss(Batch(pos, neg, user=torch.tensor(users)))
        assert float(value) == pytest.approx(sum(losses) / 5, rel=1e-11, abs=1e-12)
        torch.testing.assert_close(loss.average.value.exp(), torch.tensor(state).double(), rtol=1e-6, atol=0)


def test_gradcheck():
    pos, neg = (x.requires_grad_() for x in random_scores(3, 4))
    average = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    assert gradcheck(lambda p, n: sogclr(p, n, average, 0.2), (pos, neg))


def test_gradient_is_that_of_sl_where_the_average_is_the_estimate():
    pos, neg = (x.requires_grad_() for x in random_scores())
    sogclr(pos, neg, log_mean_exp(neg, 0.2), 0.2).sum().backward()
    other = [x.detach().clone().requires_grad_() for x in (pos, neg)]
    sl(*other, 0.2).sum().backward()
    torch.testing.assert_close(pos.grad, other[0].grad, rtol=1e-12, atol=0)
    torch.testing.assert_close(neg.grad, other[1].grad, rtol=1e-12, atol=1e-15)


def test_an_average_by_hand():
    average = LogAverage(4, ema=0.25).double()
    assert update(average, [0, 2], [8.0, 1.0]) == pytest.approx([8.0, 1.0])  # first touch: the estimate itself
    assert update(average, [2, 0], [5.0, 4.0]) == pytest.approx([2.0, 7.0])  # 3/4 of the old, 1/4 of the new
    assert average.value.exp().tolist() == pytest.approx([7.0, 0.0, 2.0, 0.0])


def test_of_repeated_users_each_row_uses_its_own_value_and_the_last_is_kept():
    average = LogAverage(3, ema=0.5).double()
    update(average, [1], [4.0])
    assert update(average, [1, 0, 1, 0, 1], [6.0, 1.0, 2.0, 9.0, 8.0]) == pytest.approx([5.0, 1.0, 3.0, 9.0, 6.0])
    assert average.value.exp().tolist() == pytest.approx([9.0, 6.0, 0.0])


def test_the_whole_batch_over_all_ranks_is_stored():
    """A rank with rows 0 and 1 of four stores what one process would; it returns its own rows."""
    users, log_estimates = torch.tensor([0, 1, 0, 2]), torch.tensor([3.0, 5.0, 7.0, 2.0]).log()
    alone, rank = LogAverage(3, ema=0.5), LogAverage(3, ema=0.5)
    alone.value[:], rank.value[:] = 1.0, 1.0
    everything = alone(users, log_estimates, same)
    found = rank(users[:2], log_estimates[:2], lambda rows: users if rows.dtype == torch.int64 else everything)
    torch.testing.assert_close(found, everything[:2])
    assert torch.equal(rank.value, alone.value)


def test_evaluation_reads_but_does_not_store():
    average = LogAverage(2, ema=0.5).double()
    update(average, [0], [4.0])
    average.eval()
    assert update(average, [0, 1], [2.0, 3.0]) == pytest.approx([3.0, 3.0])
    assert average.value.exp().tolist() == pytest.approx([4.0, 0.0])


@pytest.mark.parametrize("ema", [0.1, 0.9, 1.0])
def test_an_average_beyond_the_range_of_float32_stays_finite(ema):
    """At tau = 0.001 the averaged quantity is e^1000 one time and e^-1000 the next."""
    loss = SogCLR(1, tau=0.001, ema=ema)
    for score in (1.0, -1.0, 1.0):
        pos = torch.tensor([0.5], requires_grad=True)
        neg = torch.full((1, 3), score, requires_grad=True)
        value = loss(Batch(pos, neg, user=torch.tensor([0])))
        value.backward()
        assert bool(torch.isfinite(value))
        assert bool(torch.isfinite(neg.grad).all())
        assert bool(torch.isfinite(loss.average.value).all())
    assert float(loss.average.value) == pytest.approx(1000 + (math.log(ema) if ema == 0.9 else 0), abs=0.3)


def test_state_is_a_buffer_that_resumes():
    loss, resumed = SogCLR(3, ema=0.3), SogCLR(3, ema=0.3)
    assert list(loss.parameters()) == []
    assert set(loss.state_dict()) == {"average.value"}
    assert torch.equal(loss.average.value, torch.full((3,), -torch.inf))
    pos, neg = (x.float() for x in random_scores())
    batch = Batch(pos, neg, user=torch.tensor([0, 1, 0, 1, 1]))
    loss(batch)
    resumed.load_state_dict(loss.state_dict())
    assert torch.equal(loss(batch), resumed(batch))
    assert torch.equal(loss.average.value, resumed.average.value)
