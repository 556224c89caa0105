"""LambdaRank against goldens, its formula in plain Python, and what its weights stand for."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from recloss.losses import Batch, LambdaRank
from recloss.losses.lambdarank import lambdarank


def random_pairs(negatives: int = 4, highest: int = 50) -> tuple[torch.Tensor, ...]:
    """Scores and ranks that have nothing to do with each other, some ranks equal."""
    generator = torch.Generator().manual_seed(1)
    pos, neg = torch.randn(6, generator=generator), torch.randn(6, negatives, generator=generator)
    ranks = torch.randint(1, highest, (6, 1 + negatives), generator=generator)
    ranks[0, 1] = ranks[0, 0]
    return pos.double(), neg.double(), ranks[:, 0], ranks[:, 1:]


def test_golden_pair(golden, agrees):
    case = golden("lambdarank_pair")
    inputs, of = case["inputs"], golden("lambda_ranks")
    scores = torch.tensor(inputs["scores"], dtype=torch.float64)
    rows = torch.arange(2)
    pos, neg = scores[rows, inputs["pos_item"]], scores[rows, inputs["neg_item"]]
    pull = torch.tensor(case["delta"], dtype=torch.float64) * torch.sigmoid(neg - pos) / 2
    case |= {"grad_pos": (-pull).tolist(), "grad_neg": pull.tolist()}
    pos_rank, neg_rank = torch.tensor(of["pos_rank"]).long(), torch.tensor(of["neg_rank"]).long()
    agrees(lambda p, n: lambdarank(p, n, pos_rank, neg_rank[:, None]), pos.tolist(), neg[:, None].tolist(), case)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_golden_of_a_whole_list(golden, dtype):
    case = golden("lambda_full_list_user0")
    inputs = case["inputs"]
    scores = torch.tensor(inputs["scores"], dtype=dtype)
    ranks = 1 + (scores > scores[:, None]).sum(1)
    negatives = torch.tensor([inputs["negatives"]] * 2)
    sum_over_pairs = (
        4
        * lambdarank(scores[inputs["positives"]], scores[negatives], ranks[inputs["positives"]], ranks[negatives]).sum()
    )
    rtol = 1e-9 if dtype == torch.float64 else 2e-5
    assert float(sum_over_pairs) == pytest.approx(case["lambdarank"], rel=rtol)


@pytest.mark.parametrize("negatives", [1, 4])
def test_against_the_formula_in_plain_python(negatives):
    pos, neg, pos_rank, neg_rank = random_pairs(negatives)
    expected = []
    for b in range(len(pos)):
        total = 0.0
        for j in range(negatives):
            weight = abs(1 / math.log2(1 + int(pos_rank[b])) - 1 / math.log2(1 + int(neg_rank[b, j])))
            total += weight * math.log(1 + math.exp(float(neg[b, j] - pos[b])))
        expected.append(total / negatives)
    found = lambdarank(pos, neg, pos_rank, neg_rank)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-11, atol=1e-15)


def test_the_weight_is_what_swapping_the_pair_changes_dcg_by():
    def dcg(order: list[bool]) -> float:
        return sum(hit / math.log2(1 + rank) for rank, hit in enumerate(order, 1))

    list_of_hits = [False, True, False, False, True, False]
    zero = torch.zeros(1, dtype=torch.float64)
    for i in (2, 5):
        for j in (1, 3, 4, 6):
            swapped = list(list_of_hits)
            swapped[i - 1], swapped[j - 1] = swapped[j - 1], swapped[i - 1]
            loss = lambdarank(zero, zero[None], torch.tensor([i]), torch.tensor([[j]]))
            assert float(loss) == pytest.approx(math.log(2) * abs(dcg(swapped) - dcg(list_of_hits)), rel=1e-12)


def test_weights_of_neighbours_far_down_keep_their_digits_in_float32():
    """There 1 / log2(1 + r) agrees in all of float32's digits for both ranks."""
    zero, rank, far = torch.zeros(1), torch.tensor([4_000_000]), torch.tensor([[4_000_002]])
    exact = math.log(2) * (1 / math.log2(4_000_001) - 1 / math.log2(4_000_003))
    assert float(lambdarank(zero, zero[None], rank, far)) == pytest.approx(exact, rel=1e-5, abs=0)


def test_a_tied_pair_has_no_weight_and_no_gradient():
    pos = torch.tensor([0.3], requires_grad=True)
    loss = lambdarank(pos, torch.tensor([[0.3]]), torch.tensor([1]), torch.tensor([[1]]))
    loss.sum().backward()
    assert (loss.item(), pos.grad.item()) == (0.0, 0.0)


def test_gradcheck_and_ranks_made_of_scores_pass_no_gradient():
    pos, neg, pos_rank, neg_rank = random_pairs()
    inputs = [pos.requires_grad_(), neg.requires_grad_()]
    assert gradcheck(lambda p, n: lambdarank(p, n, pos_rank, neg_rank), inputs)
    soft = pos_rank.double().requires_grad_()
    lambdarank(pos, neg, soft, neg_rank.double()).sum().backward()
    assert soft.grad is None


def test_the_class_is_the_mean_on_dot_products():
    pos, neg, pos_rank, neg_rank = random_pairs()
    batch = Batch(pos, neg, pos_rank=pos_rank, neg_rank=neg_rank)
    assert float(LambdaRank()(batch)) == float(lambdarank(pos, neg, pos_rank, neg_rank).mean())
    assert LambdaRank.similarity == "dot"
