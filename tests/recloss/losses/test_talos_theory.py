"""What the Talos paper proves, as tests: the surrogate bound, the robust form, Jensen's step, and score inflation."""

import math

import pytest
import torch
import torch.nn.functional as F

from recloss.backbones import MF
from recloss.interactions import Interactions
from recloss.losses import Talos
from recloss.losses.talos import talos
from recloss.training import FitSettings, fit

FAR = 60.0
"""A score whose sigmoid is 1: it leaves the other term of Talos alone."""


def minus_log_sigma(x: torch.Tensor, tau: float) -> torch.Tensor:
    """(n,) ``-log sigmoid(x)^(1/tau)``, as Talos takes a positive at distance x from the threshold."""
    return talos(x, torch.full((len(x), 1), FAR, dtype=x.dtype), torch.zeros_like(x), tau)


def ideal(pos: torch.Tensor, items: torch.Tensor, beta: float, tau: float) -> torch.Tensor:
    """Eq. 3.6, ``-log(sum over positives / sum over items of sigmoid^(1/tau))``."""
    every = torch.full((len(pos),), beta, dtype=pos.dtype)
    return -(-talos(pos, items.expand(len(pos), -1), every, tau)).logsumexp(0)


def dual(tau: float, eta: float, neg: torch.Tensor, beta: torch.Tensor) -> float:
    """``tau eta + tau log mean_j sigmoid(n_j - beta)^(1/tau)``, the right side of theorem 3.2, of (1, N) negatives."""
    far = torch.full((1,), FAR, dtype=torch.float64)
    return tau * (eta - math.log(neg.shape[1]) + float(talos(far, neg, beta, tau)))


def test_golden_of_the_ideal_loss_and_jensen(golden):
    """Eq. 3.6 is -log sum_i exp(-l_i) of the per-positive losses of eq. 3.7 over all items."""
    case = golden("Talos_eq3_6_vs_3_7")
    pos, neg = (torch.tensor(case[key], dtype=torch.float64) for key in ("s_pos", "s_neg_all"))
    items, beta = torch.cat([pos, neg]), torch.tensor([case["beta"]] * 2, dtype=torch.float64)
    least = float(ideal(pos, items, case["beta"], case["tau"]))
    assert least == pytest.approx(case["eq3_6"], rel=1e-9)
    over_all = float(talos(pos, items.expand(2, 5), beta, case["tau"]).mean())
    assert over_all == pytest.approx(case["eq3_7_denominator_all_items"], rel=1e-9)
    sampled = float(talos(pos, neg.expand(2, 3), beta, case["tau"]).mean())
    assert sampled == pytest.approx(case["eq3_7_denominator_negatives_only(code)"], rel=1e-9)
    assert over_all >= least + math.log(2)


def test_golden_of_theorem_3_1(golden):
    case = golden("theorem_3_1")["example"]
    pos, items = (torch.tensor(case[key], dtype=torch.float64) for key in ("pos", "all"))
    found = float(ideal(pos, items, case["beta"], 0.1))
    assert found == pytest.approx(case["L_eq3_6"], rel=1e-9)
    assert found + constant(0.1) == pytest.approx(case["L_plus_C"], rel=1e-9)
    assert case["-log_precision"] <= found + constant(0.1)


def test_golden_of_theorem_3_2(golden):
    """The right side is least at tau*, where it is the worst case over a KL ball."""
    case = golden("theorem_3_2_DRO")
    neg = torch.tensor([case["neg_scores"]], dtype=torch.float64)
    beta = torch.tensor([case["beta"]], dtype=torch.float64)
    at = [dual(share * case["tau_star"], case["eta"], neg, beta) for share in (0.95, 1, 1.05)]
    assert at[1] == pytest.approx(case["max_E_Q[log sigmoid]"], rel=1e-7)
    assert at[1] < min(at[0], at[2])


EPSILONS = [0.1, 1e-3, 1e-6, 1e-12]
X = torch.cat([torch.linspace(-2, 2, 4001, dtype=torch.float64), torch.tensor([-1e-9], dtype=torch.float64)])
"""Distances of cosines from a threshold in [-1, 1]."""


def minus_log_delta(x: torch.Tensor, eps: float) -> torch.Tensor:
    """-log of "in the top K", with eps standing for the indicator's 0."""
    return torch.where(x >= 0, 0.0, -math.log(eps)).to(x.dtype)


def window(eps: float) -> tuple[float, float]:
    """Theorem 3.1's interval of tau."""
    low = math.log((math.e**2 + 2) / (1 + math.e**2) / 2)  # sigmoid(-2) = 1 / (1 + e^2)
    return low / math.log(eps), math.log(1 / 2) / math.log(eps)


def constant(tau: float) -> float:
    """C of theorem 3.1."""
    return math.log(1 + math.e**2 / 2) / tau


def test_golden_window_and_constant_of_theorem_3_1(golden):
    case = golden("theorem_3_1")
    assert list(window(1e-3)) == pytest.approx(case["tau_range_eps_1e-3"], rel=1e-9)
    assert list(window(1e-6)) == pytest.approx(case["tau_range_eps_1e-6"], rel=1e-9)
    assert [constant(0.1), constant(0.05)] == pytest.approx([case["C_tau0.1"], case["C_tau0.05"]], rel=1e-9)


@pytest.mark.parametrize("eps", EPSILONS)
def test_numerator_of_theorem_3_1_holds_up_to_the_upper_end_of_tau_and_not_beyond(eps):
    """-log delta_eps(x) <= -log sigmoid(x)^(1/tau) on [-2, 2]: a missed positive costs Talos at least -log eps.

    Tightest just below x = 0, where sigmoid is 1/2: eps >= (1/2)^(1/tau) iff tau <= ln(1/2) / ln(eps).
    """
    _, high = window(eps)
    for tau in (0.2 * high, 0.9 * high, 0.9999 * high):
        assert bool((minus_log_delta(X, eps) <= minus_log_sigma(X, tau)).all()), tau
    for tau in (1.0001 * high, 2 * high):
        broken = X[minus_log_delta(X, eps) > minus_log_sigma(X, tau)]
        assert len(broken) > 0
        assert bool((broken < 0).all())
        assert -1e-9 in broken


@pytest.mark.parametrize("eps", EPSILONS)
def test_denominator_of_theorem_3_1_holds_from_the_lower_end_of_tau_and_not_before(eps):
    """delta_eps(x) <= e^C sigmoid(x)^(1/tau) on [-2, 2], with e^C = (1 + e^2 / 2)^(1/tau): the K hits are not more
    than Talos' sum over all items, up to the factor.

    Tightest at x = -2: eps <= ((1 + e^2 / 2) sigmoid(-2))^(1/tau) iff tau >= ln((e^2 + 2) sigmoid(-2) / 2) / ln(eps).
    """
    low, _ = window(eps)
    for tau in (1.0001 * low, 1.1 * low, 3 * low):
        assert bool((minus_log_delta(X, eps) >= minus_log_sigma(X, tau) - constant(tau)).all()), tau
    for tau in (0.9999 * low, 0.5 * low):
        broken = X[minus_log_delta(X, eps) < minus_log_sigma(X, tau) - constant(tau)]
        assert len(broken) > 0
        assert bool((broken < 0).all())
        assert -2 in broken


@pytest.mark.parametrize("eps", [1e-3, 1e-6])
def test_theorem_3_1_bounds_minus_log_precision_where_its_two_inequalities_hold(eps):
    """Over all items, with the exact threshold and eps in the place of 0 in both sums."""
    generator = torch.Generator().manual_seed(0)
    low, high = window(eps)
    for _ in range(50):
        items = 2 * torch.rand(40, generator=generator).double() - 1
        pos = items[torch.randperm(40, generator=generator)[: int(torch.randint(1, 12, (), generator=generator))]]
        k = int(torch.randint(1, 20, (), generator=generator))
        beta = float(items.sort(descending=True).values[k - 1])
        hits, top = (torch.exp(-minus_log_delta(scores - beta, eps)).sum() for scores in (pos, items))
        assert float(top) == pytest.approx(k + (40 - k) * eps)
        for tau in (low, (low + high) / 2, high):
            assert -math.log(hits / top) <= float(ideal(pos, items, beta, tau)) + constant(tau) + 1e-12


@pytest.mark.parametrize("n", [5, 40])
@pytest.mark.parametrize("eta", [0.02, 0.1, 0.5])
def test_theorem_3_2_worst_case_in_a_kl_ball_is_talos_at_the_best_temperature(eta, n):
    """Left: q ~ exp(g / t), g = log sigmoid(n - beta), with t such that KL(q, uniform) = eta; no q within is worse.

    Right: ``dual`` at its least over tau.
    """
    generator = torch.Generator().manual_seed(n)
    neg = 2 * torch.rand(1, n, generator=generator).double() - 1
    beta = torch.tensor([0.3], dtype=torch.float64)
    g = F.logsigmoid(neg - beta)[0]

    def kl(q: torch.Tensor) -> float:
        return float(torch.special.xlogy(q, q * n).sum())

    t = bisect(lambda t: kl((g / t).softmax(0)) - eta, 1e-3, 1e3)
    worst = (g / t).softmax(0)
    value = float(worst @ g)
    assert kl(worst) == pytest.approx(eta, rel=1e-9)

    def descent(tau: float) -> float:
        return dual(tau * (1 - 1e-5), eta, neg, beta) - dual(tau * (1 + 1e-5), eta, neg, beta)

    best = bisect(descent, 1e-3, 1e3)
    assert best == pytest.approx(t, rel=1e-4)
    assert dual(best, eta, neg, beta) == pytest.approx(value, rel=1e-9)

    inside = 0
    for _ in range(300):
        q = (4 * g + torch.randn(n, generator=generator)).softmax(0)
        q = torch.lerp(torch.full_like(q, 1 / n), q, float(torch.rand((), generator=generator)))
        if kl(q) <= eta:
            inside += 1
            assert float(q @ g) <= value
            assert all(float(q @ g) <= dual(tau, eta, neg, beta) for tau in (0.05, 0.2, 1.0, 5.0))
    assert 0 < inside < 300


def bisect(decreasing, low: float, high: float) -> float:
    """Root of a decreasing function, by halving on a logarithmic scale."""
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if decreasing(middle) > 0 else (low, middle)
    return math.sqrt(low * high)


@pytest.mark.parametrize("tau", [0.05, 0.1, 1.0])
def test_jensen_mean_of_eq_3_7_over_all_items_is_at_least_eq_3_6_plus_log_of_the_positives(tau):
    """With equality iff all positives have one score."""
    generator = torch.Generator().manual_seed(2)
    for _ in range(30):
        items = 2 * torch.rand(25, generator=generator).double() - 1
        count, beta = int(torch.randint(2, 9, (), generator=generator)), 0.4
        rows = torch.full((count,), beta, dtype=torch.float64)
        pos = items[:count]
        mean = float(talos(pos, items.expand(count, 25), rows, tau).mean())
        assert mean > float(ideal(pos, items, beta, tau)) + math.log(count)
        same = items[:1].expand(count)
        mean = float(talos(same, items.expand(count, 25), rows, tau).mean())
        assert mean == pytest.approx(float(ideal(same, items, beta, tau)) + math.log(count), rel=1e-12)


def planted_groups() -> tuple[Interactions, Interactions]:
    """Sixty users who like most of the items of their group of ten, and a twentieth of the others."""
    generator = torch.Generator().manual_seed(0)
    same = torch.arange(60)[:, None] % 10 == torch.arange(120) % 10
    user, item = (torch.rand(60, 120, generator=generator) < torch.where(same, 0.8, 0.05)).nonzero(as_tuple=True)
    held_out = torch.rand(len(user), generator=generator) < 0.2
    return tuple(Interactions(user[rows], item[rows], 60, 120) for rows in (~held_out, held_out))  # type: ignore[return-value]


def test_without_the_denominator_all_scores_inflate_and_the_ranking_is_lost():
    """Section 3.1: nothing holds negatives down, so all embeddings end in one place.

    The scores inflate first; the ranking goes later, with the last differences between the cosines.
    """
    train, valid = planted_groups()
    settings = FitSettings(
        lr=0.4, epochs=80, batch_size=256, negatives=8, valid_every=80, metric="recall_5", cutoffs=(5,), seed=3
    )
    random_recall = 5 / (train.n_items - len(train) / train.n_users)
    mean_cosine, recall = {}, {}
    for variant in ("full", "no_denominator"):
        torch.manual_seed(0)
        backbone, loss = MF(60, 120, dim=16), Talos(60, 120, k=5, threshold_lr=0.01, variant=variant)
        result = fit(backbone, loss, train, valid, settings)
        user, item = (F.normalize(table.detach(), dim=1) for table in backbone.embed())
        mean_cosine[variant] = float((user @ item.T).mean())
        recall[variant] = result.history[-1].metrics["recall_5"]
    assert abs(mean_cosine["full"]) < 0.1
    assert mean_cosine["no_denominator"] > 0.999
    assert recall["full"] > 8 * random_recall
    assert recall["no_denominator"] < 3 * random_recall
