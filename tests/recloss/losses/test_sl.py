"""SL against goldens, its formula in plain Python, and its identities."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from recloss.losses import SL, Batch
from recloss.losses.sl import sl


def random_scores(rows: int = 5, negatives: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    pos, neg = torch.rand(rows, generator=generator), torch.rand(rows, negatives, generator=generator)
    return (2 * pos - 1).double(), (2 * neg - 1).double()


@pytest.mark.parametrize("name", ["SL_tau0.2_A", "SL_tau0.1_B"])
def test_golden_of_the_talos_page(name, golden, agrees):
    case = golden(name)
    agrees(lambda p, n: sl(p, n, case["params"]["tau"]), case["inputs"]["pos"], case["inputs"]["neg"], case)


def test_golden_of_the_slatk_page(golden, agrees):
    case = golden("sl_sum_neg_only")
    agrees(lambda p, n: sl(p, n, case["inputs"]["tau"]), case["inputs"]["pos"], case["inputs"]["neg"], case)


@pytest.mark.parametrize(
    ("name", "options"),
    [("sl_sum_incl_positive", {"include_positive": True}), ("sl_mean_neg_only", {"reduce": "mean"})],
)
def test_golden_of_the_other_denominators(name, options, golden, agrees):
    case = golden(name)
    tau = case["inputs"]["tau"]
    agrees(lambda p, n: sl(p, n, tau, **options), case["inputs"]["pos"], case["inputs"]["neg"], case)


def test_golden_at_tau_001_in_float32(golden):
    case = golden("stability_float32_tau0.01")
    loss = sl(torch.tensor(case["pos"]), torch.tensor(case["neg"]), case["tau"])
    torch.testing.assert_close(loss, torch.tensor(case["SL"]), rtol=case["rtol"], atol=0)


def in_plain_python(pos, neg, tau, include_positive=False, reduce="sum", log_q=None):
    losses = []
    for b, p in enumerate(pos.tolist()):
        terms = [1.0] if include_positive else []
        for j, n in enumerate(neg[b].tolist()):
            terms.append(math.exp((n - p) / tau) / (1 if log_q is None else math.exp(log_q[b, j])))
        losses.append(math.log(sum(terms) if reduce == "sum" else sum(terms) / len(terms)))
    return torch.tensor(losses, dtype=torch.float64)


@pytest.mark.parametrize("tau", [0.05, 0.2, 1.0, 3.0])
@pytest.mark.parametrize("include_positive", [False, True])
@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("corrected", [False, True])
def test_against_the_formula_in_plain_python(tau, include_positive, reduce, corrected):
    pos, neg = random_scores()
    log_q = neg.flip(1) - 0.5 if corrected else None
    found = sl(pos, neg, tau, include_positive=include_positive, reduce=reduce, log_q=log_q)
    expected = in_plain_python(pos, neg, tau, include_positive, reduce, log_q)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"include_positive": True}, {"reduce": "mean"}])
def test_over_all_items_the_other_items_are_the_negatives(options):
    logits = random_scores(5, 9)[1].requires_grad_()
    item = torch.tensor([3, 0, 8, 3, 5])
    batch = Batch(logits.gather(1, item[:, None])[:, 0], torch.zeros(5, 0), item=item, logits=logits)
    value = SL(tau=0.3, over="all", **options)(batch)
    others = torch.tensor([[i for i in range(9) if i != own] for own in item.tolist()])
    expected = in_plain_python(batch.pos, logits.gather(1, others), 0.3, **options).mean()
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad(value, logits)
    torch.testing.assert_close(gradient.sum(1), torch.zeros(5).double(), rtol=0, atol=1e-12)
    if "include_positive" in options:
        own = torch.nn.functional.one_hot(item, 9)
        torch.testing.assert_close(gradient, ((logits / 0.3).softmax(1) - own) / 0.3 / 5, rtol=1e-10, atol=1e-14)


def test_a_correction_by_the_sampler_that_sees_an_item_twice_as_often_halves_its_term():
    pos, neg = torch.tensor([0.1]), torch.tensor([[0.4, 0.4, -0.2]])
    twice = torch.tensor([[2.0, 2.0, 1.0]]).log()
    once = sl(pos, torch.tensor([[0.4, -0.2]]), 0.2)
    torch.testing.assert_close(sl(pos, neg, 0.2, log_q=twice), once)
    corrected = SL(tau=0.2, log_q=True)(Batch(pos, neg, log_q=twice))
    torch.testing.assert_close(corrected, once.mean())
    unasked = SL(tau=0.2)(Batch(pos, neg, log_q=twice))
    torch.testing.assert_close(unasked, sl(pos, neg, 0.2).mean())


def test_what_it_reads_follows_from_its_options():
    assert SL().needs == frozenset()
    assert SL().sampled
    assert SL(log_q=True).needs == {"log_q"}
    assert SL(over="all").needs == {"logits", "item"}
    assert not SL(over="all").sampled
    with pytest.raises(ValueError, match="^log_q must be False with over='all'"):
        SL(over="all", log_q=True)


def test_gradients_are_the_closed_form():
    pos, neg = (x.requires_grad_() for x in random_scores())
    sl(pos, neg, 0.2).sum().backward()
    torch.testing.assert_close(pos.grad, torch.full_like(pos, -5.0))
    torch.testing.assert_close(neg.grad, (neg / 0.2).softmax(1) / 0.2)
    torch.testing.assert_close(pos.grad + neg.grad.sum(1), torch.zeros_like(pos), rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"include_positive": True, "reduce": "mean"}])
def test_gradcheck(options):
    pos, neg = (x.requires_grad_() for x in random_scores(3, 4))
    assert gradcheck(lambda p, n: sl(p, n, 0.2, **options), (pos, neg))


def test_with_the_positive_included_it_is_softplus_of_it_and_of_a_mean_log_n_less():
    pos, neg = random_scores()
    plain = sl(pos, neg, 0.2)
    torch.testing.assert_close(sl(pos, neg, 0.2, include_positive=True), torch.nn.functional.softplus(plain))
    torch.testing.assert_close(sl(pos, neg, 0.2, reduce="mean"), plain - math.log(7))


def test_limits_of_the_temperature():
    pos, neg = random_scores()
    torch.testing.assert_close(1e-5 * sl(pos, neg, 1e-5), neg.max(1).values - pos, rtol=0, atol=1e-4)
    hot = math.log(7) + (neg.mean(1) - pos) / 1e6
    torch.testing.assert_close(sl(pos, neg, 1e6), hot, rtol=0, atol=1e-11)


def test_one_negative_is_the_scaled_difference_and_may_be_negative():
    loss = sl(torch.tensor([0.9]), torch.tensor([[0.4]]), 0.1)
    torch.testing.assert_close(loss, torch.tensor([-5.0]))


def test_the_class_is_the_mean_with_its_tau():
    pos, neg = random_scores()
    assert float(SL(tau=0.3)(Batch(pos, neg))) == pytest.approx(float(sl(pos, neg, 0.3).mean()), rel=1e-12)
    assert SL.similarity == "cosine"
