"""AdvInfoNCE against goldens, its formula in plain Python, and the schedule of its adversary."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from recloss.losses import AdvInfoNCE, Batch, build
from recloss.losses.advinfonce import advinfonce
from recloss.losses.sl import sl


def random_scores(rows: int = 5, negatives: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    shapes = [(rows,), (rows, negatives), (rows, negatives)]
    return tuple((2 * torch.rand(s, generator=generator) - 1).double() for s in shapes)  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["AdvInfoNCE_tau0.2_w1_A", "AdvInfoNCE_tau0.2_w64_A"])
def test_golden_of_the_talos_page(name, golden, agrees, dtype):
    case = golden(name)
    params = case["params"]
    adv = torch.tensor(params["adv_logits"], dtype=dtype, requires_grad=True)

    def per_sample(p, n):
        return advinfonce(p, n, adv, params["tau"], params["neg_weight"])

    agrees(per_sample, case["inputs"]["pos"], case["inputs"]["neg"], case)
    rtol, atol = (1e-9, 1e-12) if dtype == torch.float64 else (2e-5, 1e-6)
    torch.testing.assert_close(adv.grad, torch.tensor(case["grad_adv_logits"], dtype=dtype), rtol=rtol, atol=atol)


def test_golden_through_the_class_with_tables_that_give_its_logits(golden):
    """User b's vector picks column b of the items' vectors, which hold the golden's logits."""
    case = golden("AdvInfoNCE_tau0.2_w64_A")
    loss = AdvInfoNCE(2, 6, tau=0.2).double()
    neg_item = torch.tensor([[5, 0, 3], [1, 1, 2]])
    adv = torch.tensor(case["params"]["adv_logits"], dtype=torch.float64)
    adv[1, 1] = adv[1, 0]  # an item drawn twice has one hardness
    with torch.no_grad():
        loss.adv_user.zero_().fill_diagonal_(1)
        loss.adv_item.zero_()[neg_item, torch.arange(2)[:, None]] = adv
    pos, neg = (torch.tensor(case["inputs"][key], dtype=torch.float64) for key in ("pos", "neg"))
    value = loss(Batch(pos, neg, user=torch.arange(2), neg_item=neg_item))
    torch.testing.assert_close(value, advinfonce(pos, neg, adv, 0.2, 64.0).mean(), rtol=1e-12, atol=0)
    first = loss(Batch(pos[:1], neg[:1], user=torch.tensor([0]), neg_item=neg_item[:1]))
    assert first.item() == pytest.approx(case["per_sample"][0], rel=1e-9)


@pytest.mark.parametrize(("tau", "weight"), [(0.05, 64.0), (0.2, 1.0), (1.0, 3.0)])
def test_against_the_formula_in_plain_python(tau, weight):
    pos, neg, adv = random_scores()
    expected = []
    for p, row, g in zip(pos.tolist(), neg.tolist(), adv.tolist(), strict=True):
        q = [math.exp(x) / sum(math.exp(y) for y in g) for x in g]
        below = sum(qj * math.exp(n / tau) for qj, n in zip(q, row, strict=True))
        expected.append(-math.log(math.exp(p / tau) / (math.exp(p / tau) + weight * len(row) * below)))
    found = advinfonce(pos, neg, adv, tau, weight)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-11, atol=1e-12)


def test_gradcheck():
    inputs = [x.requires_grad_() for x in random_scores(3, 4)]
    assert gradcheck(lambda p, n, g: advinfonce(p, n, g, 0.2, 64.0), inputs)


@pytest.mark.parametrize("weight", [1.0, 64.0])
def test_with_equal_hardness_it_is_softplus_of_sl_and_log_weight(weight):
    pos, neg, _ = random_scores()
    found = advinfonce(pos, neg, torch.full_like(neg, 3.0), 0.2, weight)
    torch.testing.assert_close(found, F.softplus(sl(pos, neg, 0.2) + math.log(weight)), rtol=1e-12, atol=1e-12)
    if weight == 1.0:
        torch.testing.assert_close(found, sl(pos, neg, 0.2, include_positive=True), rtol=1e-12, atol=1e-12)


def test_scores_and_hardness_are_free_up_to_a_constant_per_row():
    pos, neg, adv = (x.requires_grad_() for x in random_scores())
    advinfonce(pos, neg, adv, 0.1, 64.0).sum().backward()
    zero = torch.zeros(5).double()
    torch.testing.assert_close(pos.grad + neg.grad.sum(1), zero, rtol=0, atol=1e-12)
    torch.testing.assert_close(adv.grad.sum(1), zero, rtol=0, atol=1e-12)
    assert bool((adv.grad.abs().sum(1) > 0.01).all()), "the hardness is not detached"


def attacks(loss: AdvInfoNCE, epochs: int) -> list[int]:
    due = []
    for epoch in range(1, epochs + 1):
        passes = [[(phase.name, phase.trains) for phase in steps] for steps in loss.passes(epoch)]
        assert passes[-1] == [("fit", {"model"})]
        if len(passes) > 1:
            assert passes == [[("attack", {"adversary"})], [("fit", {"model"})]]
            due.append(epoch)
    return due


def test_the_adversary_attacks_before_every_fifth_epoch_until_its_budget_is_spent():
    assert attacks(AdvInfoNCE(2, 3, adv_epochs=4), 60) == [3, 8, 13, 18]
    assert attacks(AdvInfoNCE(2, 3, adv_epochs=0), 60) == []


@pytest.mark.parametrize("every", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("budget", [1, 3, 30])
def test_the_schedule_is_the_one_that_counts_its_passes(every, budget):
    """e is the epoch from 0: an attack if (e + 3) % every == 0, e > 0 and fewer than ``budget`` were made."""
    counted: list[int] = []
    for e in range(80):
        if (e + 3) % every == 0 and e > 0 and len(counted) < budget:
            counted.append(e + 1)
    assert attacks(AdvInfoNCE(2, 3, adv_every=every, adv_epochs=budget), 80) == counted


def step_of_the_adversary(weight_decay: float) -> tuple[AdvInfoNCE, dict[str, torch.Tensor], Batch]:
    loss = build("advinfonce", {"adv_lr": 1e-3}, n_users=3, n_items=6, n_pairs=1, n_negatives=4, seed=0)
    pos, neg, _ = (x.float() for x in random_scores(4, 4))
    neg_item = torch.tensor([[0, 1, 2, 3], [4, 5, 0, 1], [2, 2, 3, 5], [1, 0, 4, 3]])
    batch = Batch(pos, neg, phase="attack", user=torch.tensor([0, 1, 2, 0]), neg_item=neg_item)
    before = {name: table.detach().clone() for name, table in loss.named_parameters()}
    optimizer = torch.optim.Adam(loss.parameter_groups(0.1), lr=0.1, weight_decay=weight_decay)
    loss(batch).backward()
    optimizer.step()
    return loss, before, batch


def test_a_step_of_the_adversary_raises_the_loss_at_its_own_rate():
    loss, before, batch = step_of_the_adversary(0.0)
    after = loss(batch)
    largest = max((table - before[name]).abs().max().item() for name, table in loss.named_parameters())
    assert largest == pytest.approx(1e-3, rel=1e-2)
    loss.load_state_dict(before)
    assert after.item() > loss(batch).item()


def test_the_weight_decay_of_the_model_shrinks_the_tables_also_while_they_ascend():
    loss, before, _ = step_of_the_adversary(1e4)
    for name, table in loss.named_parameters():
        moved = before[name].abs() > 1e-4
        assert bool((table.abs() < before[name].abs())[moved].all()), name


def test_tables_are_drawn_xavier_normal():
    loss = build("advinfonce", {}, n_users=2000, n_items=500, n_pairs=1, n_negatives=1, seed=0)
    assert loss.adv_user.shape == (2000, 64)
    assert loss.adv_item.shape == (500, 64)
    for table in (loss.adv_user, loss.adv_item):
        assert float(table.detach().std()) == pytest.approx(math.sqrt(2 / (len(table) + 64)), rel=0.03)
    (group,) = loss.parameter_groups(0.1)
    assert group["name"] == "adversary"
    assert group["maximize"] is True
    assert "weight_decay" not in group


def test_it_is_built_for_two_billion_items_without_memory():
    with torch.device("meta"):
        loss = build("advinfonce", {}, n_users=10, n_items=2**31, n_pairs=1, n_negatives=1, seed=0)
    assert loss.adv_item.shape == (2**31, 64)
