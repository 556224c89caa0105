"""LambdaLoss@K against goldens, its formula in plain Python, and LambdaLoss as its limit."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from recloss.interactions import Segments
from recloss.losses import Batch, LambdaLossatK
from recloss.losses.lambdaloss import lambdaloss, sampled_ranks
from recloss.losses.lambdalossatk import lambdalossatk

VARIANTS = ["paper", "ir_benchmark"]


def random_pairs(negatives: int = 4, highest: int = 50) -> tuple[torch.Tensor, ...]:
    """Scores and ranks that have nothing to do with each other, some ranks equal."""
    generator = torch.Generator().manual_seed(1)
    pos, neg = torch.randn(6, generator=generator), torch.randn(6, negatives, generator=generator)
    ranks = torch.randint(1, highest, (6, 1 + negatives), generator=generator)
    ranks[0, 1] = ranks[0, 0]
    return pos.double(), neg.double(), ranks[:, 0], ranks[:, 1:]


@pytest.mark.parametrize("variant", VARIANTS)
def test_golden_pair(golden, agrees, variant):
    case = golden("lambdaloss_at_k_pair")
    inputs, of = case["inputs"], golden("lambda_ranks")
    scores = torch.tensor(inputs["scores"], dtype=torch.float64)
    rows = torch.arange(2)
    pos, neg = scores[rows, inputs["pos_item"]], scores[rows, inputs["neg_item"]]
    key = "code" if variant == "ir_benchmark" else "paper"
    delta = torch.tensor(case[f"delta_{key}"], dtype=torch.float64)
    pull = delta * torch.sigmoid(neg - pos) / 2
    case |= {"grad_pos": (-pull).tolist(), "grad_neg": pull.tolist(), "loss": case[f"mean_{key}"]}
    case["per_sample"] = (delta * torch.log1p(torch.exp(neg - pos))).tolist()
    pos_rank, neg_rank = torch.tensor(of["pos_rank"]).long(), torch.tensor(of["neg_rank"]).long()[:, None]
    k, columns = inputs["K"], neg[:, None].tolist()
    agrees(lambda p, n: lambdalossatk(p, n, pos_rank, neg_rank, k, variant), pos.tolist(), columns, case)

    mu = lambdalossatk(pos, neg[:, None], pos_rank, neg_rank, k, variant) / lambdaloss(
        pos, neg[:, None], pos_rank, neg_rank, variant
    )
    torch.testing.assert_close(mu, torch.tensor(case[f"mu_{key}"], dtype=torch.float64), rtol=1e-9, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_golden_of_a_whole_list(golden, dtype):
    case = golden("lambda_full_list_user0")
    inputs = case["inputs"]
    scores = torch.tensor(inputs["scores"], dtype=dtype)
    ranks = 1 + (scores > scores[:, None]).sum(1)
    negatives = torch.tensor([inputs["negatives"]] * 2)
    sum_over_pairs = (
        4
        * lambdalossatk(
            scores[inputs["positives"]], scores[negatives], ranks[inputs["positives"]], ranks[negatives], inputs["K"]
        ).sum()
    )
    rtol = 1e-9 if dtype == torch.float64 else 2e-5
    assert float(sum_over_pairs) == pytest.approx(case["lambdaloss@2"], rel=rtol)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_golden_of_the_weights_of_figure_4(golden, dtype):
    """Of equal scores the loss is log 2 times the weight; the weight is the same in both directions."""
    case = golden("fig4_lambda_weights_K5")
    zero = torch.zeros(len(case["mu"]), dtype=dtype)
    first, second = torch.tensor(case["inputs"]["pairs"]).T
    tolerance = {"rtol": 1e-9, "atol": 0.0} if dtype == torch.float64 else {"rtol": 2e-5, "atol": 1e-6}
    for pos_rank, neg_rank in ((first, second), (second, first)):
        weight = lambdalossatk(zero, zero[:, None], pos_rank, neg_rank[:, None], case["inputs"]["K"]) / math.log(2)
        torch.testing.assert_close(weight, torch.tensor(case["mu"], dtype=dtype), **tolerance)


@pytest.mark.parametrize("k", [1, 5, 20])
@pytest.mark.parametrize("variant", VARIANTS)
def test_against_the_formula_in_plain_python(variant, k):
    pos, neg, pos_rank, neg_rank = random_pairs(highest=40)
    expected = []
    for b in range(len(pos)):
        total = 0.0
        for j in range(neg.shape[1]):
            i, r = int(pos_rank[b]), int(neg_rank[b, j])
            d, last = abs(i - r), max(i, r)
            if not d:
                continue
            weight = 1 / math.log2(1 + d) - (1 / math.log2(2 + d) if variant == "paper" else 0)
            if last > k:
                weight /= 1 - (1 / math.log2(1 + last) if variant == "paper" else 1 / last)
            total += weight * math.log(1 + math.exp(float(neg[b, j] - pos[b])))
        expected.append(total / neg.shape[1])
    found = lambdalossatk(pos, neg, pos_rank, neg_rank, k, variant)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-11, atol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_with_all_items_within_k_it_is_lambdaloss(variant):
    pos, neg, pos_rank, neg_rank = random_pairs()
    found = lambdalossatk(pos, neg, pos_rank, neg_rank, 50, variant)
    assert torch.equal(found, lambdaloss(pos, neg, pos_rank, neg_rank, variant))
    assert bool((lambdalossatk(pos, neg, pos_rank, neg_rank, 49, variant) >= found).all())


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("rank", [1, 2, 30])
def test_a_tied_pair_has_no_weight_and_no_gradient(variant, rank):
    pos = torch.tensor([0.3], requires_grad=True)
    loss = lambdalossatk(pos, torch.tensor([[0.3]]), torch.tensor([rank]), torch.tensor([[rank]]), 1, variant)
    loss.sum().backward()
    assert (loss.item(), pos.grad.item()) == (0.0, 0.0)


def test_gradcheck_and_ranks_made_of_scores_pass_no_gradient():
    pos, neg, pos_rank, neg_rank = random_pairs()
    inputs = [pos.requires_grad_(), neg.requires_grad_()]
    for variant in VARIANTS:
        assert gradcheck(lambda p, n, v=variant: lambdalossatk(p, n, pos_rank, neg_rank, 5, v), inputs)
    soft = pos_rank.double().requires_grad_()
    lambdalossatk(pos, neg, soft, neg_rank.double(), 5).sum().backward()
    assert soft.grad is None


@pytest.mark.parametrize("rescale", ["affine", "proportional"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_sampled_class_asks_for_the_positives_and_uses_the_estimates(variant, rescale):
    pos, neg, _, _ = random_pairs(5)
    extra = torch.linspace(-1, 1, 6, dtype=torch.float64)
    positives = Segments(torch.stack([pos, extra], 1).flatten(), torch.arange(0, 13, 2))
    loss = LambdaLossatK(300, k=40, variant=variant, ranks="sampled", rank_rescale=rescale)
    assert loss.needs == {"positives"}
    ranks = sampled_ranks(pos, neg, positives, 300, rescale)
    assert bool((ranks[1] > 40).any())
    expected = lambdalossatk(pos, neg, *ranks, 40, variant).mean()
    assert float(loss(Batch(pos, neg, positives=positives))) == float(expected)


def test_the_class_is_the_mean_on_dot_products():
    pos, neg, pos_rank, neg_rank = random_pairs()
    batch = Batch(pos, neg, pos_rank=pos_rank, neg_rank=neg_rank)
    for variant in VARIANTS:
        found = LambdaLossatK(300, k=5, variant=variant)(batch)
        assert float(found) == float(lambdalossatk(pos, neg, pos_rank, neg_rank, 5, variant).mean())
    assert LambdaLossatK.similarity == "dot"
    assert LambdaLossatK(300).needs == {"pos_rank", "neg_rank"}
