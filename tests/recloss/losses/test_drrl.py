"""DrRL against goldens, its formula in plain Python, the worst case it stands for, its solvers, and its state."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from recloss.losses import Batch, DrRL
from recloss.losses.ccl import ccl
from recloss.losses.drrl import drrl, slope, solve

SCORES = [0.2, -0.1, 0.5, 0.9]
ORDERS = [(1.0, 1.7), (1.2, 1.3), (1.5, 2.0), (2.0, 1.3), (2.0, 3.0), (3.0, 1.1), (7.0, 1.4), (40.0, 1.05)]
SOLVERS = [("bisect", g, c) for g, c in ORDERS] + [("closed_form", g, c) for g, c in ORDERS if g in (1, 2)]


def row(scores: list[float], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor([scores], dtype=dtype)


def random_scores(rows: int = 6, negatives: int = 13, seed: int = 9) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(rows,), (rows, negatives), (rows,)]
    return tuple((2 * torch.rand(s, generator=generator) - 1).double() for s in shapes)  # type: ignore[return-value]


def objective(neg: torch.Tensor, beta: torch.Tensor, gamma_star: float, c: float) -> torch.Tensor:
    """(B,) beta + c (mean of excess^g)^(1/g): the loss of a positive of score 1."""
    return drrl(torch.ones_like(beta), neg, beta, gamma_star, c)


def worst_case(neg: torch.Tensor, beta: torch.Tensor, gamma_star: float) -> torch.Tensor:
    """(B, N) weights proportional to (n - beta)_+^(g - 1)."""
    q = (neg - beta[:, None]).clamp(min=0).pow(gamma_star - 1)
    return q / q.sum(1, keepdim=True)


def test_golden_of_the_code_form(golden, agrees):
    case = golden("drrl_code_form")
    inputs = case["inputs"]

    def per_sample(p, n):
        beta = torch.tensor(inputs["beta_per_user"], dtype=p.dtype)[inputs["users"]]
        return drrl(p, n, beta, inputs["gamma_star"], inputs["neg_coefficient"], inputs["eps"])

    agrees(per_sample, inputs["pos"], inputs["neg"], case)


def test_golden_step_of_the_code_form_whose_loss_uses_the_old_beta(golden, dtype):
    case = golden("drrl_code_form")
    inputs = case["inputs"]
    c, eps, lr = inputs["neg_coefficient"], inputs["eps"], inputs["lr2"]
    loss = DrRL(2, gamma=inputs["omega"], c=c, eps=eps, beta_lr=lr).to(dtype)
    assert loss.gamma_star == pytest.approx(inputs["gamma_star"])
    start = torch.tensor(inputs["beta_per_user"], dtype=dtype)
    loss.beta.copy_(start)
    pos, neg = (torch.tensor(inputs[key], dtype=dtype, requires_grad=True) for key in ("pos", "neg"))
    users = torch.tensor(inputs["users"])
    value = loss(Batch(pos, neg, user=users))
    value.backward()
    tolerance = {"rtol": 1e-9, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 2e-5, "atol": 1e-6}

    def same(found, expected):
        torch.testing.assert_close(found, torch.tensor(expected, dtype=dtype), **tolerance)

    same(value.detach(), case["loss"])
    same(pos.grad, case["grad_pos"])
    same(neg.grad, case["grad_neg"])
    same(loss.beta, case["beta_after_sgd"])
    slopes = slope(neg.detach(), start[users], loss.gamma_star, c, eps)
    same(torch.zeros(2, dtype=dtype).index_add(0, users, slopes), case["beta_grad_sum"])
    searched = drrl(torch.ones(3, dtype=dtype), neg.detach(), start[users], loss.gamma_star, c, eps)
    same(searched.sum(), case["beta_search_loss_sum"])


@pytest.mark.parametrize("gamma_star", [1.5, 2.0, 3.0, 5.0])
def test_golden_optimal_beta(gamma_star, golden):
    case = golden("drrl_optimal_beta_row0")
    expected, c = case[f"gamma_star_{gamma_star}"], case["inputs"]["c"]
    neg = row(case["inputs"]["scores"])
    for solver in ("bisect", "closed_form") if gamma_star == 2 else ("bisect",):
        beta = solve(neg, gamma_star, c, solver)
        assert beta.item() == pytest.approx(expected["beta"], rel=1e-7)
        assert objective(neg, beta, gamma_star, c).item() == pytest.approx(expected["objective"], rel=1e-9)
        weights = worst_case(neg, beta, gamma_star)
        torch.testing.assert_close(weights, row(expected["worst_case_weights"]), rtol=1e-6, atol=1e-9)
        assert (weights * neg).sum().item() == pytest.approx(expected["objective"], rel=1e-7)


def test_golden_of_the_closed_form(golden):
    case = golden("drrl_closed_form_gamma_star_2")
    beta = solve(row(case["inputs"]["scores"]), 2.0, case["inputs"]["c"], "closed_form")
    assert beta.item() == pytest.approx(case["beta"], rel=1e-12)


@pytest.mark.parametrize("solver", ["bisect", "closed_form"])
def test_golden_of_the_duality_through_gamma_and_eta(solver, golden):
    case = golden("drrl_dro_duality")
    inputs = case["inputs"]
    loss = DrRL(1, gamma=inputs["gamma"], eta=inputs["eta"], solver=solver, scope="row")
    assert loss.gamma_star == case["gamma_star"]
    assert loss.c == pytest.approx(case["c_gamma_eta"], rel=1e-12)
    neg = row(inputs["scores"]).requires_grad_()
    beta = solve(neg, loss.gamma_star, loss.c, solver)
    assert beta.item() == pytest.approx(case["beta"], rel=1e-7)
    value = loss(Batch(torch.ones(1, dtype=torch.float64), neg))
    value.backward()
    assert value.item() == pytest.approx(case["worst_case_value"], rel=1e-9)
    torch.testing.assert_close(neg.grad, row(case["worst_case_q"]), rtol=1e-7, atol=0)


def test_golden_limit_of_gamma_star_1(golden):
    case = golden("drrl_limit_gamma_star_1")
    neg, c = row(case["inputs"]["scores"]), case["inputs"]["c"]
    beta = solve(neg, case["inputs"]["gamma_star"], c, "bisect")
    value = objective(neg, beta, case["inputs"]["gamma_star"], c).item()
    assert value == pytest.approx(case["objective"], rel=1e-7)
    for solver in ("bisect", "closed_form"):
        value = objective(neg, solve(neg, 1.0, c, solver), 1.0, c).item()
        assert value == pytest.approx(case["cvar_top_half_mean"], rel=1e-12)


@pytest.mark.parametrize("gamma", ["1.5", "1.1", "1.01", "1.001"])
def test_golden_limit_of_sl(gamma, golden):
    case = golden("drrl_limit_sl")
    expected, neg = case["drrl"][gamma], row(case["inputs"]["scores"])
    tau, eta = case["inputs"]["tau"], case["inputs"]["eta=KL(softmax(f/tau)||uniform)"]
    loss = DrRL(1, gamma=float(gamma), eta=eta, solver="bisect", scope="row")
    assert loss.gamma_star == pytest.approx(expected["gamma_star"], rel=1e-12)
    assert loss.c == pytest.approx(expected["c"], rel=1e-12)
    beta = solve(neg, loss.gamma_star, loss.c, "bisect")
    value = objective(neg, beta, loss.gamma_star, loss.c).item()
    assert beta.item() == pytest.approx(expected["beta"], rel=1e-6)
    assert value == pytest.approx(expected["objective"], rel=1e-9)
    softmax = tau * float((neg / tau).logsumexp(1) - math.log(4)) + tau * eta
    assert softmax == pytest.approx(case["sl_value tau*logmeanexp(f/tau)+tau*eta"], rel=1e-9)
    assert 0 < value - softmax < 0.02 * (float(gamma) - 1)


def test_golden_of_saturation(golden):
    case = golden("drrl_saturation")
    inputs = case["inputs"]
    neg, g = row(inputs["scores"]), inputs["gamma_star"]
    beta = solve(neg, g, inputs["c"], "bisect")
    assert beta.item() == case["beta"]
    assert objective(neg, beta, g, inputs["c"]).item() == pytest.approx(case["objective"], rel=1e-12)
    edge = inputs["threshold_m^(1/gamma_star)"]
    assert solve(neg, g, edge * (1 + 1e-9), "bisect").item() == 0.9
    assert solve(neg, g, edge * 0.99, "bisect").item() < 0.9


@pytest.mark.parametrize(("gamma_star", "c"), [(1.0, 3.0), (1.5, 1.2), (2.0, 2.0), (3.0, 5.0)])
@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_against_the_formula_in_plain_python(gamma_star, c, eps):
    pos, neg, beta = random_scores()
    expected = []
    for p, scores, b in zip(pos.tolist(), neg.tolist(), beta.tolist(), strict=True):
        entries = [c * max(0.0, n - b) + eps for n in scores]
        norm = (sum(x**gamma_star for x in entries) / len(entries)) ** (1 / gamma_star)
        expected.append(1 - p + b + norm)
    found = drrl(pos, neg, beta, gamma_star, c, eps)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("gamma_star", "c"), ORDERS)
@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_gradcheck_and_the_slope_is_the_gradient_in_beta(gamma_star, c, eps):
    inputs = [x.requires_grad_() for x in random_scores(4, 5)]
    assert gradcheck(lambda p, n, b: drrl(p, n, b, gamma_star, c, eps), inputs)
    pos, neg, beta = inputs
    drrl(pos, neg, beta, gamma_star, c, eps).sum().backward()
    torch.testing.assert_close(slope(neg, beta, gamma_star, c, eps).detach(), beta.grad, rtol=1e-10, atol=1e-12)


def test_gamma_star_1_is_ccl_with_a_margin_per_row():
    pos, neg, beta = random_scores()
    expected = torch.stack([ccl(pos[b : b + 1], neg[b : b + 1], float(beta[b]), 2.5)[0] for b in range(6)])
    torch.testing.assert_close(drrl(pos, neg, beta, 1.0, 2.5), expected + beta, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gamma_star", [1.0, 1.2, 1.999, 2.0, 500.0])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_a_row_of_which_nothing_lies_above_beta_has_value_beta_and_no_gradient(gamma_star, kind):
    pos, neg = torch.tensor([0.25, 0.5], dtype=kind), torch.tensor([[0.5, -1.0, 0.25], [0.5, 1.0, 0.5]], dtype=kind)
    pos, neg = pos.requires_grad_(), neg.requires_grad_()
    beta = torch.tensor([0.5, 0.5], dtype=kind)
    with torch.autograd.set_detect_anomaly(True):  # no NaN on the way either
        losses = drrl(pos, neg, beta, gamma_star, 3.0)
        losses.sum().backward()
    norm = 3 * 3 ** (-1 / gamma_star)
    torch.testing.assert_close(losses.detach(), torch.tensor([1.25, 1 + norm / 2], dtype=kind))
    assert neg.grad[0].tolist() == [0, 0, 0]
    torch.testing.assert_close(neg.grad[1], torch.tensor([0, norm, 0], dtype=kind))
    torch.testing.assert_close(slope(neg.detach(), beta, gamma_star, 3.0)[0], torch.tensor(1.0, dtype=kind))


def test_orders_up_to_1000_neither_overflow_nor_underflow():
    for kind in (torch.float32, torch.float64):
        for scale in (1e-6, 1e4):
            neg = (scale * row(SCORES)).to(kind).requires_grad_()
            value = objective(neg, torch.zeros(1, dtype=kind), 1000.0, 1.2)
            value.sum().backward()
            expected = scale * 1.2 * 0.9 * 4 ** (-1 / 1000)
            assert value.item() == pytest.approx(expected, rel=1e-5)
            assert neg.grad[0].tolist() == pytest.approx([0, 0, 0, 1.2 * 4 ** (-1 / 1000)], rel=1e-4, abs=1e-12)


@pytest.mark.parametrize(("solver", "gamma_star", "c"), SOLVERS)
def test_no_other_beta_is_better(solver, gamma_star, c):
    for seed in range(5):
        _, neg, _ = random_scores(seed=seed)
        neg[0] = neg[0].mul(3).round() / 3  # ties
        neg[1, 4:] = -0.4
        beta = solve(neg, gamma_star, c, solver)
        least = objective(neg, beta, gamma_star, c)
        for distance in (1e-6, 1e-4, 1e-2, 0.1, 0.5, 3.0):
            for other in (beta - distance, beta + distance):
                assert bool((objective(neg, other, gamma_star, c) >= least - 1e-12).all())
        tol = 1e-6
        assert bool((slope(neg, beta - tol, gamma_star, c) <= 1e-9).all())
        assert bool((slope(neg, beta + tol, gamma_star, c) >= -1e-9).all())


@pytest.mark.parametrize(("gamma_star", "c"), ORDERS)
def test_the_objective_is_convex_and_its_slope_rises_from_1_minus_c_to_1(gamma_star, c):
    _, neg, _ = random_scores()
    low, high = (torch.full((6,), x, dtype=torch.float64) for x in (-2.0, 1.0))
    ends = [objective(neg, beta, gamma_star, c) for beta in (low, high)]
    slopes = []
    for share in torch.linspace(0, 1, 31).tolist():
        chord = (1 - share) * ends[0] + share * ends[1]
        assert bool((objective(neg, (1 - share) * low + share * high, gamma_star, c) <= chord + 1e-12).all())
        slopes.append(slope(neg, (1 - share) * low + share * high, gamma_star, c))
    assert bool((torch.stack(slopes).diff(dim=0) >= -1e-12).all())
    torch.testing.assert_close(slopes[-1], torch.ones_like(low), rtol=0, atol=0)
    far = slope(neg, torch.full_like(low, -1e6), gamma_star, c)
    torch.testing.assert_close(far, torch.full_like(low, 1 - c), rtol=1e-6, atol=0)


@pytest.mark.parametrize("c", [1.001, 1.3, 2.0, 3.0, 4.0, 100.0])
def test_the_closed_form_agrees_with_bisection_at_gamma_star_2(c):
    for seed in range(5):
        _, neg, _ = random_scores(40, 11, seed)
        neg[:10] = neg[:10].mul(2).round() / 2
        found = solve(neg, 2.0, c, "closed_form")
        torch.testing.assert_close(found, solve(neg, 2.0, c, "bisect"), rtol=1e-9, atol=1e-9)
        single = solve(neg.float(), 2.0, c, "closed_form")
        assert float((objective(neg, single.double(), 2.0, c) - objective(neg, found, 2.0, c)).max()) < 1e-5


def test_the_closed_form_stays_near_the_least_where_rounding_hides_the_edge_of_saturation():
    """c^2 = N / k with k scores equal up to float32's last bits: the formula's factor is 0 or a rounding error."""
    generator = torch.Generator().manual_seed(0)
    for n, k in ((10, 5), (4, 3), (8, 6), (7, 2)):
        for nudge in (-1e-7, -3e-8, 0, 3e-8, 1e-7):
            c = (n / k) ** 0.5 * (1 + nudge)
            neg = 2 * torch.rand(200, n, generator=generator) - 1
            neg[:, :k] = neg[:, :1] * (1 + torch.randn(200, k, generator=generator) * 1e-7)
            found = objective(neg.double(), solve(neg, 2.0, c, "closed_form").double(), 2.0, c)
            least = objective(neg.double(), solve(neg.double(), 2.0, c, "bisect"), 2.0, c)
            assert float((found - least).abs().max()) < 1e-5


@pytest.mark.parametrize("c", [1.05, 1.5, 2.0, 13 / 4, 50.0])
def test_the_closed_form_agrees_with_bisection_and_the_mean_of_the_tail_at_gamma_star_1(c):
    """The mean of the N / c largest scores, the last of them with what is left of the weight."""
    _, neg, _ = random_scores()
    expected = []
    for scores in neg.tolist():
        left, total = 13 / c, 0.0
        for n in sorted(scores, reverse=True):
            total += min(1.0, left) * n
            left -= min(1.0, left)
        expected.append(total * c / 13 if c < 13 else max(scores))
    for solver in ("closed_form", "bisect"):
        found = objective(neg, solve(neg, 1.0, c, solver), 1.0, c)
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("gamma", "eta"), [(2.0, 0.2), (1.5, 0.1), (3.0, 0.4), (1.1, 0.3)])
def test_the_value_is_the_worst_case_over_the_ball(gamma, eta):
    """Duality: the weights at the optimum lie on the ball's edge, attain the value, and no others in it do better."""
    gamma_star = gamma / (gamma - 1)
    c = DrRL(1, gamma=gamma, eta=eta).c

    def divergence(q):
        t = q * q.shape[-1]
        return ((t**gamma - gamma * t + gamma - 1) / (gamma * (gamma - 1))).mean(-1)

    _, neg, _ = random_scores()
    beta = solve(neg, gamma_star, c, "bisect")
    value = objective(neg, beta, gamma_star, c)
    worst = worst_case(neg, beta, gamma_star)
    torch.testing.assert_close(divergence(worst), torch.full((6,), eta).double(), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close((worst * neg).sum(1), value, rtol=1e-9, atol=1e-12)

    generator = torch.Generator().manual_seed(1)
    tried = best = torch.full((6,), -1.0, dtype=torch.float64)
    for concentration in (0.05, 0.3, 1.0, 3.0):
        draws = torch.rand(1000, 6, 13, generator=generator).double().log().neg() ** (1 / concentration)
        q = draws / draws.sum(-1, keepdim=True)
        nearby = (worst + 0.02 * (q - 1 / 13)).clamp(min=0)
        for candidates in (q, nearby / nearby.sum(-1, keepdim=True)):
            feasible = torch.where(divergence(candidates) <= eta, (candidates * neg).sum(-1), -torch.inf)
            tried = tried + torch.isfinite(feasible).sum(0)
            best = best.maximum(feasible.amax(0))
    assert bool((tried > 200).all())
    assert bool((best <= value + 1e-12).all())
    assert bool((best > value - 0.05).all())


@pytest.mark.parametrize(
    ("solver", "gamma_star", "c"),
    [case for case in SOLVERS if case[:2] != ("bisect", 1.0)] + [("bisect", 1.5, 20.0), ("closed_form", 2.0, 20.0)],
)
def test_the_gradient_with_a_constant_beta_is_that_of_the_solved_value(solver, gamma_star, c):
    """The envelope theorem, and the kinks where a beta that sits on a score must move with it.

    Bisection at gamma_star = 1 is left out: it stops beside a score, whose share of the weight is then all or nothing.
    """
    _, neg, _ = random_scores(4, 7)
    neg.requires_grad_()
    beta = solve(neg, gamma_star, c, solver)
    objective(neg, beta, gamma_star, c).sum().backward()
    step = 1e-6
    with torch.no_grad():
        for j in range(7):
            values = []
            for sign in (1, -1):
                moved = neg.clone()
                moved[:, j] += sign * step
                values.append(objective(moved, solve(moved, gamma_star, c, solver), gamma_star, c))
            torch.testing.assert_close((values[0] - values[1]) / (2 * step), neg.grad[:, j], rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(neg.grad.sum(1), torch.ones(4).double(), rtol=1e-5, atol=1e-5)


def test_where_the_largest_score_is_the_worst_case_ties_share_its_gradient():
    neg = torch.tensor([[0.3, 0.9, 0.9, -1.0], [0.1, 0.1, 0.1, 0.1], [1.0, 0.9, 0.8, 0.7]], requires_grad=True)
    loss = DrRL(1, gamma_star=2.0, c=2.0, solver="bisect", scope="row")
    value = loss(Batch(torch.zeros(3), neg))
    value.backward()
    torch.testing.assert_close(value, 1 + torch.tensor((0.9 + 0.1 + 1.0) / 3))
    expected = torch.tensor([[0, 0.5, 0.5, 0], [0.25, 0.25, 0.25, 0.25], [1.0, 0, 0, 0]]) / 3
    torch.testing.assert_close(neg.grad, expected)


def batch(users: list[int], seed: int = 9) -> Batch:
    pos, neg, _ = random_scores(len(users), 6, seed)
    return Batch(pos, neg, user=torch.tensor(users))


def test_sgd_adds_up_the_rows_of_a_user_and_touches_no_other():
    loss = DrRL(4, gamma_star=1.5, c=2.0, beta_lr=0.1, beta_init=0.2).double()
    loss.beta.copy_(torch.tensor([0.2, -0.3, 0.1, 0.0]))
    b = batch([2, 0, 2, 1])
    beta = loss.beta.clone()
    rows = beta[b.user].requires_grad_()
    expected = drrl(b.pos, b.neg, rows, 1.5, 2.0)
    expected.sum().backward()
    found = loss(b)
    torch.testing.assert_close(found, expected.detach().mean())
    step = [rows.grad[1], rows.grad[3], rows.grad[0] + rows.grad[2], torch.tensor(0.0)]
    torch.testing.assert_close(loss.beta, beta - 0.1 * torch.stack([x.double() for x in step]), rtol=1e-12, atol=1e-12)
    moved = loss.beta.clone()
    torch.testing.assert_close(loss(b), drrl(b.pos, b.neg, moved[b.user], 1.5, 2.0).mean())


@pytest.mark.parametrize("solver", ["bisect", "closed_form"])
def test_a_solver_moves_the_average_towards_the_last_row_of_the_user(solver):
    loss = DrRL(4, gamma_star=2.0, c=1.5, solver=solver, ema=0.25, beta_init=0.5).double()
    b = batch([2, 0, 2, 1])
    solved = solve(b.neg, 2.0, 1.5, "bisect")
    torch.testing.assert_close(loss(b), drrl(b.pos, b.neg, torch.full((4,), 0.5).double(), 2.0, 1.5).mean())
    average = [0.375 + 0.25 * solved[row] for row in (1, 3, 2)]
    torch.testing.assert_close(loss.beta, torch.stack([*average, torch.tensor(0.5).double()]), rtol=1e-9, atol=1e-9)
    again = loss.beta.clone()
    torch.testing.assert_close(loss(b), drrl(b.pos, b.neg, again[b.user], 2.0, 1.5).mean())
    torch.testing.assert_close(loss.beta[2], 0.75 * again[2] + 0.25 * solved[2], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("params", [{}, {"solver": "bisect"}, {"solver": "closed_form"}])
def test_state_is_written_from_the_rows_of_the_whole_batch(params):
    """Two processes of two rows each end with the state of one process of four."""
    whole = batch([2, 0, 2, 1])
    alone = DrRL(4, **params).double()
    alone(whole)
    halves = [slice(0, 2), slice(2, 4)]
    for mine in halves:
        gathered = iter([[whole.user[half] for half in halves], "state"])
        loss = DrRL(4, **params).double()

        def gather(rows, gathered=gathered, loss=loss):
            parts = next(gathered)
            if parts != "state":
                return torch.cat(parts)
            beta = torch.full((2,), 0.7).double()
            if loss.solver == "sgd":
                return torch.cat([slope(whole.neg[half], beta, loss.gamma_star, loss.c) for half in halves])
            return torch.cat([solve(whole.neg[half], loss.gamma_star, loss.c, loss.solver) for half in halves])

        loss(Batch(whole.pos[mine], whole.neg[mine], gather=gather, user=whole.user[mine]))
        assert torch.equal(loss.beta, alone.beta)


@pytest.mark.parametrize("params", [{}, {"solver": "bisect"}])
def test_beta_is_state_that_evaluation_leaves_alone(params):
    loss = DrRL(4, beta_init=0.3, **params)
    assert list(loss.parameters()) == []
    assert set(loss.state_dict()) == {"beta"}
    torch.testing.assert_close(loss.beta, torch.full((4,), 0.3), rtol=0, atol=0)
    b = batch([2, 0, 2, 1])
    loss.eval()(b)
    torch.testing.assert_close(loss.beta, torch.full((4,), 0.3), rtol=0, atol=0)
    loss.train()(b)
    assert int((loss.beta != 0.3).sum()) >= 3
    other = DrRL(4, **params)
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other.beta, loss.beta)


def test_scope_row_has_no_state_and_reads_no_user():
    loss = DrRL(4, gamma_star=3.0, c=1.4, solver="bisect", scope="row")
    assert (loss.needs, dict(loss.state_dict())) == (frozenset(), {})
    pos, neg, _ = random_scores()
    expected = drrl(pos, neg, solve(neg, 3.0, 1.4, "bisect"), 3.0, 1.4).mean()
    torch.testing.assert_close(loss(Batch(pos, neg)), expected)


def test_sgd_finds_the_beta_of_negatives_that_stay():
    """Over many batches of one user, sgd settles where the sum of the rows' objectives is least."""
    loss = DrRL(1, gamma_star=2.0, c=1.5, beta_lr=0.05)
    _, neg, _ = random_scores(1, 50)
    for _ in range(600):
        loss(Batch(torch.zeros(1), neg.float(), user=torch.tensor([0])))
    assert loss.beta.item() == pytest.approx(solve(neg, 2.0, 1.5, "bisect").item(), abs=1e-3)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"c": 1.0}, r"c must be a number above 1, got 1\.0"),
        ({"gamma_star": 2.0, "gamma": 2.0}, r"gamma_star must not be given beside gamma, got 2\.0 and 2\.0"),
        ({"c": 2.0, "eta": 0.1}, r"c must not be given beside eta, got 2\.0 and 0\.1"),
        ({"gamma_star": 1.0, "eta": 0.1}, r"gamma_star must be above 1 with eta, got 1\.0"),
        ({"solver": "closed_form", "gamma_star": 1.5}, r"solver must not be closed_form at gamma_star 1\.5"),
        ({"scope": "row"}, "scope must be user with solver sgd, got 'row'"),
        ({"solver": "bisect", "eps": 0.1}, r"eps must be 0 with solver bisect, got 0\.1"),
    ],
)
def test_combinations_without_meaning_are_refused_by_name(params, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        DrRL(3, **params)


def test_gamma_and_eta_give_gamma_star_and_c():
    loss = DrRL(1, gamma=3.0, eta=0.5)
    assert (loss.gamma_star, loss.c) == pytest.approx((1.5, 4 ** (1 / 3)))
    loss = DrRL(1, gamma_star=1.5, eta=0.5)
    assert (loss.gamma_star, loss.c) == pytest.approx((1.5, 4 ** (1 / 3)))
    assert (DrRL(1).gamma_star, DrRL(1).c) == (2.0, 3.0)


def test_the_default_c_leaves_15_percent_of_evenly_spread_negatives():
    neg = torch.linspace(-1, 1, 10001, dtype=torch.float64)[None]
    beta = solve(neg, 2.0, 3.0, "closed_form")
    assert (neg > beta).double().mean().item() == pytest.approx(4 / 27, abs=1e-3)
