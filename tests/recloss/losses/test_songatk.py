"""SONG@K against its goldens, its formula in plain Python, its limits, and the order of its updates."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from recloss.interactions import Segments
from recloss.losses import Batch, SONGatK
from recloss.losses.song import ndcg_scale, song
from recloss.losses.songatk import songatk
from recloss.thresholds import THRESHOLDS


def random_scores(rows: int = 5, negatives: int = 7) -> tuple[torch.Tensor, ...]:
    """Positives, negatives, thresholds, and averages as they may be after some batches."""
    generator = torch.Generator().manual_seed(8)
    shapes = [(rows,), (rows, negatives), (rows,), (rows,)]
    pos, neg, threshold, average = (torch.rand(s, generator=generator).double() for s in shapes)
    return 2 * pos - 1, 2 * neg - 1, threshold - 0.3, 0.1 + average


def golden_rows(inputs, dtype, **of_a_tensor):
    """Four rows, two for each of two lists of five: a positive, and its list's other entries in ``neg``."""
    pred = torch.tensor(inputs["pred"], dtype=dtype, **of_a_tensor)
    neg = torch.stack([pred[:, 1:], torch.cat([pred[:, :1], pred[:, 2:]], 1)], 1).flatten(0, 1)
    return pred, pred[:, :2].flatten(), neg


@pytest.fixture
def close(dtype):
    tolerance = {"rtol": 1e-9, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 2e-5, "atol": 1e-6}

    def check(found, expected):
        torch.testing.assert_close(found.detach(), torch.tensor(expected, dtype=dtype), **tolerance)

    return check


def test_golden_step(golden, dtype, close):
    """The golden's averages are those after the step: with weight 0 for the new value they stay."""
    case = golden("ksong_prac_one_step")
    inputs = case["inputs"]
    pred, pos, neg = golden_rows(inputs, dtype, requires_grad=True)
    threshold, average, counts, ideal = (
        torch.tensor(inputs[key], dtype=dtype) for key in ("lambda", "u", "num_pos_items", "ideal_dcg")
    )
    losses, kept = songatk(
        pos, neg, threshold.repeat_interleave(2), average.flatten(), 0.0, inputs["num_item"], 1.0,
        inputs["sigmoid_alpha"],
    )  # fmt: skip
    value = (losses.view(2, 2) * (counts / ideal)[:, None]).mean()
    value.backward()
    close(value, case["loss"])
    close(pred.grad, case["grad"])
    assert torch.equal(kept, average.flatten())


def test_golden_step_through_the_class(golden, dtype, close):
    """As the golden, with exact ideal DCGs and one row per user, so that a threshold moves once."""
    case = golden("ksong_prac_one_step")
    inputs = case["inputs"]
    _, pos, neg = golden_rows(inputs, dtype)
    pos, neg = pos[::2], neg[::2]
    loss = SONGatK(2, 100, 2, ema=0.9, k=inputs["K"]).to(dtype)
    loss.threshold.value[:] = torch.tensor(inputs["lambda"], dtype=dtype)
    counts = torch.tensor([10, 20])
    value = loss(Batch(pos, neg, user=torch.tensor([0, 1]), pair=torch.tensor([0, 1]), n_positives=counts))

    step = golden("song_one_step")
    expected = []
    for u, (n, p) in enumerate(zip((10, 20), (0.6, 0.3), strict=True)):
        ideal = sum(1 / math.log2(1 + r) for r in range(1, n + 1))
        weight = 1 / (1 + math.exp(-2 * (p - inputs["lambda"][u])))
        expected.append(n / ideal * weight * step["nabla_f"][u][0] * step["g"][u][0])
    close(value, sum(expected) / 2)
    close(loss.threshold.value, case["lambda_new"])
    close(loss.average, [step["u"][0][0], step["u"][1][0]])


def test_golden_factor_of_the_slatk_paper(golden, dtype, close):
    """Appendix A.4 of SL@K is sharpness 1 and no factor n_items; g is the positive's own share."""
    case = golden("song_at_k_paper_A4_factor")
    pos = torch.tensor(case["inputs"]["s_minus_beta"], dtype=dtype)
    average = torch.tensor(case["inputs"]["g_ui"], dtype=dtype)
    losses, _ = songatk(pos, torch.full((2, 1), -3.0, dtype=dtype), torch.zeros_like(pos), average, 0.0, 1, 1.0, 1.0)
    close(2 * losses, case["factor"])


@pytest.mark.parametrize(("ema", "margin", "sharpness"), [(0.9, 1.0, 2.0), (0.1, 0.5, 1.0), (1.0, 1.0, 8.0)])
def test_against_the_formula_in_plain_python(ema, margin, sharpness):
    n, expected, moved = 60, [], []
    pos, neg, threshold, average = random_scores()
    for p, row, beta, old in zip(*(x.tolist() for x in (pos, neg, threshold, average)), strict=True):
        g = (margin**2 + sum(max(margin + x - p, 0) ** 2 for x in row)) / 8
        moved.append((1 - ema) * old + ema * g)
        rank = 1 + n * moved[-1]
        weight = 1 / (1 + math.exp(-sharpness * (p - beta)))
        expected.append(weight * n / (math.log(2) * max(1, math.log2(rank)) ** 2 * rank) * g)
    losses, found = songatk(pos, neg, threshold, average, ema, n, margin, sharpness)
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(found, torch.tensor(moved, dtype=torch.float64), rtol=1e-12, atol=0)


def test_limits_of_the_threshold():
    pos, neg, threshold, average = random_scores()
    plain, _ = song(pos, neg, average, 0.3, 60)
    for moved, expected in ((threshold - 1e3, plain), (pos, plain / 2), (threshold + 1e3, torch.zeros_like(pos))):
        found, _ = songatk(pos, neg, moved, average, 0.3, 60)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_weight_has_no_gradient():
    pos, neg, threshold, average = (x.requires_grad_() for x in random_scores())
    songatk(pos, neg, threshold, average, 0.3, 60)[0].sum().backward()
    found = pos.grad.clone(), neg.grad.clone()
    assert threshold.grad is None
    pos.grad, neg.grad = None, None
    weight = torch.sigmoid(2 * (pos - threshold)).detach()
    (weight * song(pos, neg, average, 0.3, 60)[0]).sum().backward()
    torch.testing.assert_close(found, (pos.grad, neg.grad), rtol=1e-12, atol=0)


def test_gradcheck_at_a_fixed_average_and_weight():
    pos, neg, threshold, average = random_scores(3, 4)
    neg.requires_grad_()
    assert gradcheck(lambda n: songatk(pos, n, threshold, average, 0.0, 60)[0], (neg,))


def one_batch(threshold: str) -> Batch:
    """Users 1, 0, 1; the fields any threshold may ask for."""
    pos, neg, _, _ = random_scores(3, 4)
    ones = Segments(torch.tensor([0.6, 0.3, 0.7, -0.2, 0.6, 0.3]).double(), torch.tensor([0, 2, 4, 6]))
    return Batch(
        pos, neg, user=torch.tensor([1, 0, 1]), pair=torch.tensor([2, 0, 1]), n_positives=torch.tensor([2, 1, 2]),
        positives=ones if threshold == "regression" else None,
    )  # fmt: skip


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("idcg", [True, False])
def test_the_class_is_the_scaled_mean_with_the_thresholds_before_the_batch(threshold, idcg):
    batch, beta = one_batch(threshold), torch.tensor([0.1, -0.2]).double()
    loss = SONGatK(2, 60, 3, ema=0.4, k=4, threshold=threshold, idcg=idcg).double()
    loss.threshold.value.data[:] = beta
    losses, average = songatk(batch.pos, batch.neg, beta[batch.user], torch.zeros(3).double(), 0.4, 60)
    scale = ndcg_scale(batch.n_positives, 60, torch.float64) if idcg else 1
    expected = (scale * losses).mean()
    if threshold == "regression":
        expected = expected + loss.threshold.loss(batch.user, batch.neg, batch.positives)
    torch.testing.assert_close(loss(batch), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(loss.average[batch.pair], average, rtol=1e-12, atol=0)
    assert bool((loss.threshold.value != beta).all()) == (threshold == "smoothed")
    assert loss.needs == {"user", "pair"} | loss.threshold.needs | ({"n_positives"} if idcg else set())


def test_state_and_its_defaults():
    loss = SONGatK(4, 50, 9)
    assert {key: tuple(value.shape) for key, value in loss.state_dict().items()} == {
        "average": (9,), "threshold.value": (4,),
    }  # fmt: skip
    assert not any(bool(value.any()) for value in loss.state_dict().values())
    assert (loss.threshold.kind, loss.threshold.lr, loss.threshold.k) == ("smoothed", 0.01, 20)
    assert loss.parameter_groups(0.1) == []
