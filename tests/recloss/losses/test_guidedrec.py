"""GuidedRec against its goldens, its formula in plain Python, what each phase moves, and training with it."""

import math
from dataclasses import replace

import pytest
import torch
from torch.autograd import gradcheck

from recloss.losses import Batch, GuidedRec, Phase, build
from recloss.losses.guidedrec import EDCG, guidedrec, labelled_lists, true_dcg, weighted_bce

PHASES = ["bce", "surrogate", "dcg"]


def random_scores(rows: int = 5, negatives: int = 3, dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(9)
    pos, neg = (torch.rand(s, generator=generator) for s in ((rows,), (rows, negatives)))
    return (2 * pos - 1).to(dtype).requires_grad_(), (2 * neg - 1).to(dtype).requires_grad_()


def a_loss(negatives: int = 3, dtype=torch.float64) -> GuidedRec:
    return build("guidedrec", {}, n_users=1, n_items=9, n_pairs=1, n_negatives=negatives, seed=1).to(dtype)


def gradients(loss: GuidedRec, phase: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Value and gradients of positives, negatives and all weights, zero where there is none."""
    loss.zero_grad()
    pos, neg = random_scores()
    value = loss(Batch(pos, neg, phase))
    value.backward()
    weights = [torch.zeros_like(p) if p.grad is None else p.grad for p in loss.parameters()]
    of_scores = [torch.zeros_like(x) if x.grad is None else x.grad for x in (pos, neg)]
    return value.detach(), *of_scores, torch.cat([w.flatten() for w in weights])


@pytest.fixture
def close(dtype):
    tolerance = {"rtol": 1e-9, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 2e-5, "atol": 1e-6}

    def check(found, expected):
        torch.testing.assert_close(found.detach(), torch.tensor(expected, dtype=dtype), **tolerance)

    return check


@pytest.mark.parametrize("through_the_class", [True, False])
def test_golden_bce_and_true_dcg(through_the_class, golden, dtype, close):
    case = golden("guidedrec_bce_and_dcg")
    pos, neg = (torch.tensor(case["inputs"][x], dtype=dtype, requires_grad=True) for x in ("pos", "neg"))
    value = a_loss(4, dtype)(Batch(pos, neg, "bce")) if through_the_class else weighted_bce(pos, neg).mean()
    value.backward()
    close(value, case["bce"])
    close(pos.grad, case["grad_pos"])
    close(neg.grad, case["grad_neg"])
    close(true_dcg(pos, neg), case["true_dcg"])
    close(true_dcg(pos, neg), [1 / math.log2(1 + rank) for rank in case["rank"]])


def test_golden_surrogate_with_constant_weights(golden, dtype, close):
    case = golden("guidedrec_surrogate_constant_weights")
    inputs = case["inputs"]
    pos, neg = (torch.tensor(inputs[x], dtype=dtype) for x in ("pos", "neg"))
    loss = a_loss(inputs["N_list"] - 1, dtype)
    for name, parameter in loss.named_parameters():
        torch.nn.init.constant_(parameter, inputs["bias"] if name.endswith("bias") else inputs["weight"])
    close(loss.surrogate(labelled_lists(pos, neg)), case["edcg"])
    close(loss(Batch(pos, neg, "surrogate")), case["mse_to_true_dcg"])
    close(loss(Batch(pos, neg, "dcg")), -sum(case["edcg"]) / 3)


def plain_edcg(network: EDCG, row: list[tuple[float, float]]) -> float:
    """The network in plain Python, with its Gram matrix written out."""

    def dense(layer, x):
        weight, bias = layer.weight.tolist(), layer.bias.tolist()
        return [
            math.tanh(sum(w * v for w, v in zip(ws, x, strict=True)) + b) for ws, b in zip(weight, bias, strict=True)
        ]

    flat = dense(network.flat[2], dense(network.flat[0], [v for pair in row for v in pair]))
    items = [dense(network.item[0], pair) for pair in row]
    gram = [[sum(x * y for x, y in zip(left, right, strict=True)) for right in items] for left in items]
    means = [sum(line[j] for line in gram) / len(items) for j in range(len(items))]
    joint = [x * y for x, y in zip(flat, dense(network.gram[0], means), strict=True)]
    return dense(network.head[2], dense(network.head[0], joint))[0]


@pytest.mark.parametrize("negatives", [1, 3, 9])
def test_against_the_formula_in_plain_python(negatives):
    pos, neg = random_scores(4, negatives)
    loss = a_loss(negatives)
    bce, edcg, error = [], [], []
    for p, row in zip(pos.tolist(), neg.tolist(), strict=True):
        x = [1 / (1 + math.exp(-s)) for s in (p, *row)]
        bce.append(-negatives * math.log(x[0]) - sum(math.log(1 - y) for y in x[1:]))
        edcg.append(plain_edcg(loss.surrogate, [(x[0], 1.0), *((y, 0.0) for y in x[1:])]))
        error.append((edcg[-1] - 1 / math.log2(2 + sum(n > p for n in row))) ** 2)
    own = guidedrec(pos, neg, loss.surrogate)
    expected = torch.tensor(bce, dtype=torch.float64) - torch.tensor(edcg, dtype=torch.float64)
    torch.testing.assert_close(own, expected, rtol=1e-12, atol=1e-12)
    found = [loss(Batch(pos, neg, phase)).item() for phase in PHASES]
    assert found == pytest.approx([sum(bce) / 4, sum(error) / 4, -sum(edcg) / 4], rel=1e-12)


def test_gradcheck():
    loss = a_loss()
    for phase in ("bce", "dcg"):
        assert gradcheck(lambda p, n, phase=phase: loss(Batch(p, n, phase)), random_scores())


def test_ties_rank_the_positive_first():
    pos, neg = torch.tensor([0.3, 0.3]), torch.tensor([[0.3, 0.3], [0.3, 0.4]])
    torch.testing.assert_close(true_dcg(pos, neg), torch.tensor([1, 1 / math.log2(3)]))


def test_the_recommender_and_the_network_learn_in_their_own_phases():
    loss = a_loss()
    _, pos, neg, weights = gradients(loss, "surrogate")
    assert not pos.any()
    assert not neg.any()
    assert bool(weights.any())
    for phase in ("bce", "dcg"):
        _, pos, neg, weights = gradients(loss, phase)
        assert bool((pos != 0).all())
        assert bool((neg != 0).all())
        assert not weights.any()


def test_the_network_learns_from_the_gradient_of_its_squared_error():
    """Also the autograd of the plain expression, so that nothing in between is detached too much."""
    loss = a_loss()
    pos, neg = (x.detach() for x in random_scores())
    expected = torch.autograd.grad(
        (loss.surrogate(labelled_lists(pos, neg)) - true_dcg(pos, neg)).square().mean(), list(loss.parameters())
    )
    _, _, _, found = gradients(loss, "surrogate")
    torch.testing.assert_close(found, torch.cat([x.flatten() for x in expected]), rtol=1e-12, atol=1e-15)


def test_fit_is_the_three_phases_at_once():
    loss = a_loss()
    parts = [gradients(loss, phase) for phase in PHASES]
    for found, of_phases in zip(gradients(loss, "fit"), zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(found, sum(of_phases), rtol=1e-12, atol=1e-15)


def test_three_steps_on_every_batch():
    ((*steps,),) = a_loss().passes(1)
    model, surrogate = frozenset({"model"}), frozenset({"surrogate"})
    assert steps == [Phase("bce", model), Phase("surrogate", surrogate), Phase("dcg", model)]
    (group,) = a_loss().parameter_groups(0.1)
    assert group.keys() == {"name", "params"}, "rate and decay are the model's"
    assert group["name"] == "surrogate"


def test_the_number_of_negatives_is_fixed():
    pos, neg = random_scores(2, 4)
    with pytest.raises(ValueError, match="^GuidedRec was built for N = 9 negatives, got 4$"):
        a_loss(9)(Batch(pos, neg))
    with pytest.raises(ValueError, match=r"^GuidedRec's phases are bce, surrogate, dcg \(or fit\), got 'attack'$"):
        a_loss(4)(Batch(pos, neg, "attack"))


def test_scores_of_another_precision_than_the_network():
    pos, neg = random_scores()
    torch.testing.assert_close(
        a_loss(dtype=torch.float32)(Batch(pos, neg)), a_loss()(Batch(pos, neg)), rtol=1e-5, atol=1e-6, check_dtype=False
    )


def test_the_network_learns_dcg_and_its_gradient_then_improves_it():
    """Fitted to random lists, its estimate follows the true DCG; raising the estimate raises the true DCG."""
    generator = torch.Generator().manual_seed(0)
    loss = a_loss(dtype=torch.float32)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.01)

    def lists():
        scores = 2 * torch.rand(256, 4, generator=generator) - 1
        return Batch(scores[:, 0], scores[:, 1:], "surrogate")

    for _ in range(300):
        optimizer.zero_grad()
        loss(lists()).backward()
        optimizer.step()
    held_out = lists()
    variance = float(true_dcg(held_out.pos, held_out.neg).var())
    assert loss(held_out).item() < 0.3 * variance

    pos, neg = held_out.pos.clone().requires_grad_(), held_out.neg.clone().requires_grad_()
    loss(replace(held_out, pos=pos, neg=neg, phase="dcg")).backward()
    before = true_dcg(pos, neg).mean()
    after = true_dcg(pos - 200 * pos.grad, neg - 200 * neg.grad).mean()
    assert float(after) > float(before) + 0.02
