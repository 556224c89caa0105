"""BSL against goldens, its formula in plain Python, and its limits."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from recloss.losses import BSL, Batch
from recloss.losses.bsl import bsl, bsl_per_sample
from recloss.losses.sl import sl

USER = torch.tensor([4, 1, 4, 7, 1, 4])


def random_scores(rows: int = 6, negatives: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    pos, neg = torch.rand(rows, generator=generator), torch.rand(rows, negatives, generator=generator)
    return (2 * pos - 1).double(), (2 * neg - 1).double()


@pytest.mark.parametrize("name", ["BSL_0.05_0.15_A", "BSL_0.1_0.1_A", "BSL_0.05_0.15_B", "BSL_0.1_0.1_B"])
def test_golden_of_the_talos_page(name, golden, agrees):
    case = golden(name)
    taus = case["params"]["tau1_pos"], case["params"]["tau2_neg"]
    agrees(lambda p, n: bsl_per_sample(p, n, *taus), case["inputs"]["pos"], case["inputs"]["neg"], case)


def test_golden_of_the_slatk_page_per_sample(golden, agrees):
    case = golden("bsl_ir_benchmark_per_sample")
    inputs = case["inputs"]
    agrees(lambda p, n: bsl_per_sample(p, n, inputs["tau1"], inputs["tau2"]), inputs["pos"], inputs["neg"], case)
    scaled = inputs["tau2"] / inputs["tau1"] * sl(torch.tensor(inputs["pos"]), torch.tensor(inputs["neg"]), 0.2)
    torch.testing.assert_close(scaled, torch.tensor(case["scaled_sl_tau2"]), rtol=2e-5, atol=1e-6)


def test_golden_bilateral(golden, agrees):
    case = golden("bsl_bilateral")
    inputs = case["inputs"]
    users = torch.tensor(inputs["users"])
    agrees(lambda p, n: bsl(p, n, users, inputs["tau1"], inputs["tau2"]), inputs["pos"], inputs["neg"], case)


def test_golden_bilateral_through_the_class(golden):
    case = golden("bsl_bilateral")
    inputs = case["inputs"]
    pos, neg = (torch.tensor(inputs[key], dtype=torch.float64) for key in ("pos", "neg"))
    value = BSL(tau_pos=0.5, tau_neg=0.2)(Batch(pos, neg, user=torch.tensor(inputs["users"])))
    assert float(value) == pytest.approx(case["mean"], rel=1e-9)


def test_golden_at_tau_001_in_float32(golden):
    case = golden("stability_float32_tau0.01")
    loss = bsl_per_sample(torch.tensor(case["pos"]), torch.tensor(case["neg"]), 0.01, 0.02)
    torch.testing.assert_close(loss, torch.tensor(case["BSL_tau1_0.01_tau2_0.02"]), rtol=case["rtol"], atol=0)


@pytest.mark.parametrize(("tau_pos", "tau_neg"), [(0.2, 0.2), (0.5, 0.1), (0.05, 1.0)])
def test_against_the_formula_in_plain_python(tau_pos, tau_neg):
    pos, neg = random_scores()
    bilateral, per_sample = [], []
    for b, row in enumerate(neg.tolist()):
        own = [math.exp(float(pos[c]) / tau_pos) for c in range(len(pos)) if USER[c] == USER[b]]
        others = [math.exp(n / tau_neg) for n in row]
        bilateral.append(
            tau_neg * math.log(sum(others) / len(others)) - tau_pos * math.log(sum(own) / len(own)),
        )
        per_sample.append(-math.log(math.exp(float(pos[b]) / tau_pos) / sum(others) ** (tau_neg / tau_pos)))
    for found, expected in (
        (bsl(pos, neg, USER, tau_pos, tau_neg), bilateral),
        (bsl_per_sample(pos, neg, tau_pos, tau_neg), per_sample),
    ):
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-11, atol=1e-12)


def test_gradcheck():
    pos, neg = (x.requires_grad_() for x in random_scores())
    assert gradcheck(lambda p, n: bsl(p, n, USER, 0.3, 0.2), (pos, neg))
    assert gradcheck(lambda p, n: bsl_per_sample(p, n, 0.3, 0.2), (pos, neg))


def test_without_shared_users_and_with_one_temperature_it_is_sl_scaled_and_shifted():
    pos, neg = random_scores()
    expected = 0.2 * (sl(pos, neg, 0.2) - math.log(5))
    torch.testing.assert_close(bsl(pos, neg, torch.arange(6), 0.2, 0.2), expected, rtol=1e-12, atol=1e-12)


def test_a_hot_positive_side_is_the_plain_mean_of_the_users_positives():
    pos, neg = random_scores()
    means = torch.stack([pos[user == USER].mean() for user in USER])
    pooled = bsl(pos, torch.zeros_like(neg), USER, 1e7, 0.2)
    torch.testing.assert_close(pooled, -means, rtol=0, atol=1e-6)


def test_a_cold_positive_side_is_the_users_best_positive():
    pos, neg = random_scores()
    best = torch.stack([pos[user == USER].max() for user in USER])
    torch.testing.assert_close(bsl(pos, torch.zeros_like(neg), USER, 1e-5, 0.2), -best, rtol=0, atol=1e-4)


@pytest.mark.parametrize("variant", ["bilateral", "per_sample"])
def test_adding_a_constant_to_a_users_scores_changes_nothing(variant):
    pos, neg = (x.requires_grad_() for x in random_scores())
    BSL(tau_pos=0.3, tau_neg=0.1, variant=variant)(Batch(pos, neg, user=USER)).backward()
    per_row = pos.grad + neg.grad.sum(1)
    per_user = torch.zeros(8).double().index_add(0, USER, per_row)
    torch.testing.assert_close(per_user, torch.zeros(8).double(), rtol=0, atol=1e-12)


def test_the_variant_decides_the_value_and_what_is_read():
    pos, neg = random_scores()
    value = BSL(tau_pos=0.4, tau_neg=0.1, variant="per_sample")(Batch(pos, neg))
    torch.testing.assert_close(value, sl(pos, neg, 0.1).mean() / 4, rtol=1e-12, atol=0)
    assert BSL(variant="per_sample").needs == frozenset()
    assert BSL().needs == {"user"}
