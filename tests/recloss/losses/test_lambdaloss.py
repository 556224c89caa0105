"""LambdaLoss against goldens and its formula in plain Python; ranks within a sample, counted one by one."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from recloss.interactions import Segments
from recloss.losses import Batch, LambdaLoss
from recloss.losses.lambdaloss import lambdaloss, sampled_ranks

VARIANTS = ["paper", "ir_benchmark"]


def random_pairs(negatives: int = 4, highest: int = 50) -> tuple[torch.Tensor, ...]:
    """Scores and ranks that have nothing to do with each other, some ranks equal."""
    generator = torch.Generator().manual_seed(1)
    pos, neg = torch.randn(6, generator=generator), torch.randn(6, negatives, generator=generator)
    ranks = torch.randint(1, highest, (6, 1 + negatives), generator=generator)
    ranks[0, 1] = ranks[0, 0]
    return pos.double(), neg.double(), ranks[:, 0], ranks[:, 1:]


def random_sample(negatives: int, levels: int = 1000) -> tuple[torch.Tensor, torch.Tensor, Segments]:
    """Seven rows of users with 1 to 9 positives, the row's own among them; few ``levels`` make ties."""
    generator = torch.Generator().manual_seed(negatives)
    lengths = torch.randint(1, 10, (7,), generator=generator)
    lengths[2] = 1
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    values = torch.randint(levels, (int(offsets[-1]),), generator=generator).double() / levels - 0.5
    own = offsets[:-1] + torch.arange(7) % lengths
    neg = torch.randint(levels, (7, negatives), generator=generator).double() / levels - 0.5
    return values[own], neg, Segments(values, offsets)


def counted(pos: torch.Tensor, neg: torch.Tensor, positives: Segments, n_items: int, rescale: str) -> torch.Tensor:
    """(B, 1 + N) estimated ranks, by the definition."""
    ranks = []
    for b, (start, end) in enumerate(zip(positives.offsets[:-1], positives.offsets[1:], strict=True)):
        candidates = positives.values[start:end].tolist() + neg[b].tolist()
        share = n_items / len(candidates)
        rows = [1 + sum(c > s for c in candidates) for s in [*pos[b : b + 1].tolist(), *neg[b].tolist()]]
        ranks.append([1 + (r - 1) * share if rescale == "affine" else r * share for r in rows])
    return torch.tensor(ranks, dtype=torch.float64)


@pytest.mark.parametrize("variant", VARIANTS)
def test_golden_pair(golden, agrees, variant):
    case = golden("lambdaloss_pair")
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
    agrees(lambda p, n: lambdaloss(p, n, pos_rank, neg_rank, variant), pos.tolist(), neg[:, None].tolist(), case)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_golden_of_a_whole_list(golden, dtype):
    case = golden("lambda_full_list_user0")
    inputs = case["inputs"]
    scores = torch.tensor(inputs["scores"], dtype=dtype)
    ranks = 1 + (scores > scores[:, None]).sum(1)
    negatives = torch.tensor([inputs["negatives"]] * 2)
    sum_over_pairs = (
        4
        * lambdaloss(scores[inputs["positives"]], scores[negatives], ranks[inputs["positives"]], ranks[negatives]).sum()
    )
    rtol = 1e-9 if dtype == torch.float64 else 2e-5
    assert float(sum_over_pairs) == pytest.approx(case["lambdaloss"], rel=rtol)


@pytest.mark.parametrize("rescale", ["affine", "proportional"])
def test_golden_of_estimated_ranks(golden, rescale):
    """Ranks 1, 2 and 5 among 50 candidates: 3 positives and 47 negatives, of 1,000 items."""
    case = golden("sample_rank_estimate")
    inputs = case["inputs"]
    n_items, candidates = inputs["n_items"], inputs["n_sampled_total"]
    descending = torch.linspace(1, -1, candidates, dtype=torch.float64)
    own = [rank - 1 for rank in inputs["sampled_rank"]]
    others = torch.tensor([place for place in range(candidates) if place not in own])
    positives = Segments(descending[own].repeat(3), torch.tensor([0, 3, 6, 9]))
    ranks, _ = sampled_ranks(descending[own], descending[others].expand(3, -1), positives, n_items, rescale)
    expected = case["estimated_rank_affine" if rescale == "affine" else "estimated_rank_eq_C8"]
    torch.testing.assert_close(ranks, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("negatives", [1, 4])
@pytest.mark.parametrize("variant", VARIANTS)
def test_against_the_formula_in_plain_python(variant, negatives):
    pos, neg, pos_rank, neg_rank = random_pairs(negatives)
    expected = []
    for b in range(len(pos)):
        total = 0.0
        for j in range(negatives):
            d = abs(int(pos_rank[b]) - int(neg_rank[b, j]))
            if d:
                eta = 1 / math.log2(1 + d) - (1 / math.log2(2 + d) if variant == "paper" else 0)
                total += eta * math.log(1 + math.exp(float(neg[b, j] - pos[b])))
        expected.append(total / negatives)
    found = lambdaloss(pos, neg, pos_rank, neg_rank, variant)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-11, atol=0)


def test_weights_of_distant_pairs_keep_their_digits_in_float32():
    zero = torch.zeros(1)
    d = 4_000_000
    exact = math.log(2) * (1 / math.log2(1 + d) - 1 / math.log2(2 + d))
    loss = lambdaloss(zero, zero[None], torch.tensor([1]), torch.tensor([[1 + d]]))
    assert float(loss) == pytest.approx(exact, rel=1e-5, abs=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_tied_pair_has_no_weight_and_no_gradient(variant):
    pos = torch.tensor([0.3], requires_grad=True)
    loss = lambdaloss(pos, torch.tensor([[0.3]]), torch.tensor([3]), torch.tensor([[3]]), variant)
    loss.sum().backward()
    assert (loss.item(), pos.grad.item()) == (0.0, 0.0)


def test_gradcheck_and_ranks_made_of_scores_pass_no_gradient():
    pos, neg, pos_rank, neg_rank = random_pairs()
    inputs = [pos.requires_grad_(), neg.requires_grad_()]
    for variant in VARIANTS:
        assert gradcheck(lambda p, n, v=variant: lambdaloss(p, n, pos_rank, neg_rank, v), inputs)
    soft = pos_rank.double().requires_grad_()
    lambdaloss(pos, neg, soft, neg_rank.double()).sum().backward()
    assert soft.grad is None


@pytest.mark.parametrize("rescale", ["affine", "proportional"])
@pytest.mark.parametrize("levels", [4, 1000], ids=["ties", "distinct"])
@pytest.mark.parametrize("negatives", [1, 5, 40])
def test_sampled_ranks_are_those_counted_one_by_one(negatives, levels, rescale):
    pos, neg, positives = random_sample(negatives, levels)
    found = sampled_ranks(pos, neg, positives, 300, rescale)
    expected = counted(pos, neg, positives, 300, rescale)
    torch.testing.assert_close(found[0], expected[:, 0], rtol=1e-12, atol=0)
    torch.testing.assert_close(found[1], expected[:, 1:], rtol=1e-12, atol=0)


def test_a_sample_of_everything_gives_exact_ranks():
    """With all other items as negatives, |I| candidates, both rescalings are the identity."""
    scores = torch.randn(1, 30, generator=torch.Generator().manual_seed(2))
    exact = 1 + (scores[0] > scores[0, :, None]).sum(1)
    for rescale in ("affine", "proportional"):
        positives = Segments(scores[0, :4], torch.tensor([0, 4]))
        pos_rank, neg_rank = sampled_ranks(scores[0, 2:3], scores[:, 4:], positives, 30, rescale)
        assert torch.equal(pos_rank, exact[2:3].float())
        assert torch.equal(neg_rank[0], exact[4:].float())


def test_a_positive_is_not_ranked_below_its_own_copy_that_is_rounded_otherwise():
    pos, neg = torch.tensor([0.7]), torch.tensor([[0.1, -0.3]])
    copy = torch.nextafter(pos, torch.ones(1))
    pos_rank, neg_rank = sampled_ranks(pos, neg, Segments(copy, torch.tensor([0, 1])), 300, "affine")
    assert pos_rank.tolist() == [1.0]
    assert neg_rank.tolist() == [[101.0, 201.0]]


@pytest.mark.parametrize("rescale", ["affine", "proportional"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_sampled_class_asks_for_the_positives_and_uses_the_estimates(variant, rescale):
    pos, neg, positives = random_sample(5)
    loss = LambdaLoss(300, variant=variant, ranks="sampled", rank_rescale=rescale)
    assert loss.needs == {"positives"}
    pos.requires_grad_()
    value = loss(Batch(pos, neg, positives=positives))
    value.backward()
    ranks = counted(pos, neg, positives, 300, rescale)
    expected = lambdaloss(pos, neg, ranks[:, 0], ranks[:, 1:], variant)
    torch.testing.assert_close(value, expected.mean())
    (gradient,) = torch.autograd.grad(expected.mean(), pos)
    torch.testing.assert_close(pos.grad, gradient)


def test_the_class_is_the_mean_on_dot_products():
    pos, neg, pos_rank, neg_rank = random_pairs()
    batch = Batch(pos, neg, pos_rank=pos_rank, neg_rank=neg_rank)
    for variant in VARIANTS:
        found = LambdaLoss(300, variant=variant)(batch)
        assert float(found) == float(lambdaloss(pos, neg, pos_rank, neg_rank, variant).mean())
    assert LambdaLoss.similarity == "dot"
    assert LambdaLoss(300).needs == {"pos_rank", "neg_rank"}
