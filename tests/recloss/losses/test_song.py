"""SONG against its golden, its formula in plain Python, its floor, and the moving averages it keeps."""

import math
from dataclasses import replace

import pytest
import torch
from torch.autograd import gradcheck

from recloss.losses import SONG, Batch
from recloss.losses.song import ndcg_scale, song


def random_scores(rows: int = 5, negatives: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores, and averages as they may be after some batches."""
    generator = torch.Generator().manual_seed(7)
    pos, neg, average = (torch.rand(s, generator=generator).double() for s in ((rows,), (rows, negatives), (rows,)))
    return 2 * pos - 1, 2 * neg - 1, 0.1 + average


def a_batch(pairs: list[int], dtype=torch.float64, **fields) -> Batch:
    pos, neg, _ = random_scores(len(pairs), 3)
    counts = 1 + torch.arange(len(pairs)) % 4
    fields = {"pair": torch.tensor(pairs), "n_positives": counts} | fields
    return Batch(pos.to(dtype), neg.to(dtype), **fields)


def shares(batch: Batch, margin: float = 1.0) -> list[float]:
    """g of each row, in plain Python."""
    return [
        (margin**2 + sum(max(margin + n - p, 0) ** 2 for n in row)) / (len(row) + 1)
        for p, row in zip(batch.pos.tolist(), batch.neg.tolist(), strict=True)
    ]


def slope(average: float, n: int) -> float:
    rank = 1 + n * average
    return n / (math.log(2) * max(math.log2(rank), 1) ** 2 * rank)


def rows_of_lists(pred: torch.Tensor, positives: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A row for each of a list's first ``positives`` entries; all its other entries are in ``neg``."""
    others = [torch.cat([pred[:, :i], pred[:, i + 1 :]], 1) for i in range(positives)]
    return pred[:, :positives].flatten(), torch.stack(others, 1).flatten(0, 1)


@pytest.fixture
def close(dtype):
    tolerance = {"rtol": 1e-9, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 2e-5, "atol": 1e-6}

    def check(found, expected):
        torch.testing.assert_close(found.detach(), torch.tensor(expected, dtype=dtype), **tolerance)

    return check


def test_golden_step(golden, dtype, close):
    case = golden("song_one_step")
    inputs = case["inputs"]
    pred = torch.tensor(inputs["pred_[pos|neg]"], dtype=dtype, requires_grad=True)
    pos, neg = rows_of_lists(pred, inputs["num_pos"])
    start = torch.full_like(pos, inputs["u_init"]).detach()
    counts, ideal = (torch.tensor(inputs[key], dtype=dtype) for key in ("num_pos_items", "ideal_dcg"))

    losses, average = song(pos, neg, start, inputs["gamma0"], inputs["num_item"], inputs["margin"])
    (losses.view(2, 2) * (counts / ideal)[:, None]).mean().backward()
    g = song(pos, neg, start, 1.0, inputs["num_item"], inputs["margin"])[1]
    close(g.view(2, 2), case["g"])
    close(average.view(2, 2), case["u"])
    close((losses / g).view(2, 2), case["nabla_f"])
    close((losses.view(2, 2) * (counts / ideal)[:, None]).mean(), case["loss"])
    close(pred.grad, case["grad"])


def test_golden_step_through_the_class(golden, dtype, close):
    """As the golden, with the ideal DCGs of 10 and 20 positives where it has the rounded 4.5 and 7."""
    case = golden("song_one_step")
    inputs = case["inputs"]
    pos, neg = rows_of_lists(torch.tensor(inputs["pred_[pos|neg]"], dtype=dtype), 2)
    loss = SONG(inputs["num_item"], 6, ema=inputs["gamma0"]).to(dtype)
    value = loss(Batch(pos, neg, pair=torch.tensor([3, 0, 5, 2]), n_positives=torch.tensor([10, 10, 20, 20])))

    scales = [n / sum(1 / math.log2(1 + r) for r in range(1, n + 1)) for n in (10, 20)]
    rows = [scale * case["nabla_f"][u][i] * case["g"][u][i] for u, scale in enumerate(scales) for i in range(2)]
    close(value, sum(rows) / 4)
    u = case["u"]
    close(loss.average, [u[0][1], 0, u[1][1], u[0][0], 0, u[1][0]])


@pytest.mark.parametrize(("ema", "n_items", "margin"), [(0.9, 100, 1.0), (0.1, 7, 0.4), (1.0, 40_000, 2.0)])
def test_against_the_formula_in_plain_python(ema, n_items, margin):
    pos, neg, average = random_scores()
    g = shares(Batch(pos, neg), margin)
    moved = [(1 - ema) * old + ema * new for old, new in zip(average.tolist(), g, strict=True)]
    expected = [slope(a, n_items) * new for a, new in zip(moved, g, strict=True)]
    losses, found = song(pos, neg, average, ema, n_items, margin)
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(found, torch.tensor(moved, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("n_positives", [1, 2, 9, 30])
def test_the_scale_is_the_number_of_positives_over_the_ideal_dcg(n_positives):
    ideal = sum(1 / math.log2(1 + r) for r in range(1, n_positives + 1))
    found = ndcg_scale(torch.tensor([1, n_positives]), 30, torch.float64)
    torch.testing.assert_close(found, torch.tensor([1, n_positives / ideal], dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("idcg", [True, False])
def test_the_class_is_the_mean_of_scaled_rows(idcg):
    batch = a_batch([4, 1, 2, 0, 3])
    loss = SONG(30, 5, ema=0.3, idcg=idcg).double()
    loss.average[:] = torch.linspace(0.1, 0.9, 5)
    losses, _ = song(batch.pos, batch.neg, loss.average[batch.pair], 0.3, 30)
    scale = ndcg_scale(batch.n_positives, 30, torch.float64) if idcg else 1
    torch.testing.assert_close(loss(batch), (scale * losses).mean(), rtol=1e-12, atol=0)
    assert loss.needs == ({"pair", "n_positives"} if idcg else {"pair"})


def test_the_logarithm_has_a_floor_where_the_average_is_about_zero():
    """A positive ranks first at best, so log2(1 + rank) >= 1."""
    pos, neg, _ = random_scores()
    for average in (0.0, 1e-9, 0.009):
        at = torch.full_like(pos, average)
        losses, _ = song(pos, neg, at, 0.0, 100)
        expected = torch.tensor(shares(Batch(pos, neg))).double() * 100 / (math.log(2) * (1 + 100 * average))
        torch.testing.assert_close(losses, expected, rtol=1e-6, atol=0)


def test_gradient_is_that_of_minus_dcg_when_the_average_is_the_current_value():
    pos, neg, average = (x.requires_grad_() for x in random_scores())
    song(pos, neg, average, 1.0, 50)[0].sum().backward()
    found = pos.grad.clone(), neg.grad.clone()
    assert average.grad is None
    pos.grad, neg.grad = None, None
    g = (1 + (1 + neg - pos[:, None]).relu().square().sum(1)) / 8
    (-1 / torch.log2(1 + 50 * g)).sum().backward()
    torch.testing.assert_close(found, (pos.grad, neg.grad), rtol=1e-10, atol=1e-12)


def test_no_gradient_through_the_average():
    """The loss is linear in g: its gradient is c times that of g, whatever the average."""
    pos, neg, average = random_scores()
    pos.requires_grad_()
    losses, moved = song(pos, neg, average, 0.9, 50)
    assert not moved.requires_grad
    losses.sum().backward()
    c = torch.tensor([slope(a, 50) for a in moved.tolist()], dtype=torch.float64)
    of_g = -2 * (1 + neg - pos.detach()[:, None]).relu().sum(1) / 8
    torch.testing.assert_close(pos.grad, c * of_g, rtol=1e-10, atol=0)


def test_gradcheck_at_a_fixed_average():
    pos, neg, average = random_scores(3, 4)
    pos.requires_grad_(), neg.requires_grad_()
    assert gradcheck(lambda p, n: song(p, n, average, 0.0, 50)[0], (pos, neg))


def test_averages_over_three_batches_by_hand():
    first, second = a_batch([2, 0]), a_batch([0, 1])
    g0, g1 = shares(first), shares(second)
    loss = SONG(100, 4, ema=0.25).double()
    loss(first)
    torch.testing.assert_close(loss.average, torch.tensor([g0[1] / 4, 0, g0[0] / 4, 0]).double(), rtol=1e-6, atol=0)
    loss(second)
    expected = [0.75 * g0[1] / 4 + g1[0] / 4, g1[1] / 4, g0[0] / 4, 0]
    torch.testing.assert_close(loss.average, torch.tensor(expected).double(), rtol=1e-6, atol=0)
    loss.eval()(first)
    torch.testing.assert_close(loss.average, torch.tensor(expected).double(), rtol=1e-6, atol=0)


def test_evaluation_gives_the_value_of_training():
    batch = a_batch([2, 0, 1])
    train, evaluation = SONG(100, 3).double(), SONG(100, 3).double().eval()
    assert torch.equal(train(batch), evaluation(batch))
    assert not torch.equal(train.average, evaluation.average)


def test_the_last_row_of_a_pair_is_kept():
    batch = a_batch([1, 3, 1, 1, 3])
    loss = SONG(100, 5, ema=1.0).double()
    loss(batch)
    g = shares(batch)
    torch.testing.assert_close(loss.average, torch.tensor([0, g[3], 0, g[4], 0]).double(), rtol=1e-6, atol=0)


def test_averages_are_written_from_the_gathered_rows():
    """Two ranks with a half of the batch each keep the averages of all of it."""
    whole = a_batch([2, 0, 3, 1])
    alone = SONG(100, 4).double()
    alone(whole)
    g = torch.tensor(shares(whole)).double()
    for half in (slice(0, 2), slice(2, 4)):
        gathered = iter([whole.pair, 0.9 * g])
        loss = SONG(100, 4).double()
        own = {name: getattr(whole, name)[half] for name in ("pos", "neg", "pair", "n_positives")}
        loss(replace(whole, **own, gather=lambda rows, gathered=gathered: next(gathered)))
        torch.testing.assert_close(loss.average, alone.average, rtol=1e-6, atol=0)
