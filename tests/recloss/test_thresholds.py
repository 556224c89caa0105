"""Top-K thresholds: the regression against its goldens and the exact quantile, the others against brute force."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from recloss.context import Context
from recloss.interactions import Interactions, Segments
from recloss.losses import Batch
from recloss.sampling import UniformNegatives
from recloss.thresholds import (
    THRESHOLDS,
    ExactThreshold,
    MonteCarloThreshold,
    RegressionThreshold,
    SmoothedThreshold,
    build_threshold,
    kth_largest,
)

pytestmark = pytest.mark.usefixtures("kernels")


def segments(rows: list[list[float]], dtype: torch.dtype = torch.float64) -> Segments:
    offsets = torch.tensor([0, *itertools.accumulate(len(row) for row in rows)])
    return Segments(torch.tensor([x for row in rows for x in row], dtype=dtype), offsets)


def regression(beta: list[float], n_items: int, k: int) -> RegressionThreshold:
    threshold = RegressionThreshold(len(beta), n_items, k=k).double()
    threshold.value.data[:] = torch.tensor(beta, dtype=torch.float64)
    return threshold


def value_and_gradient(threshold: RegressionThreshold, neg: list[float], pos: list[float]) -> tuple[float, float]:
    threshold.zero_grad()
    loss = threshold.loss(torch.tensor([0]), torch.tensor([neg], dtype=torch.float64), segments([pos]))
    loss.backward()
    return loss.item(), threshold.value.grad[0].item()


@pytest.mark.parametrize("number", range(5))
def test_golden_values_and_gradients(number, golden):
    """Case 0 has a negative scored exactly beta, which pulls to neither side."""
    case = golden("quantile_regression")
    row = case["cases"][number]
    threshold = regression([row["beta"]], case["num_items"], case["K"])
    value, gradient = value_and_gradient(threshold, row["sampled_neg"], case["pos_scores"])
    assert value == pytest.approx(row["Q"], rel=1e-9)
    assert gradient == pytest.approx(row["dQ_dbeta"], rel=1e-9)


def test_golden_in_float32(golden):
    case = golden("quantile_regression")
    row = case["cases"][3]
    threshold = RegressionThreshold(1, case["num_items"], k=case["K"])
    threshold.value.data[:] = row["beta"]
    neg = torch.tensor([row["sampled_neg"]])
    loss = threshold.loss(torch.tensor([0]), neg, segments([case["pos_scores"]], torch.float32))
    loss.backward()
    assert loss.item() == pytest.approx(row["Q"], rel=2e-5)
    assert threshold.value.grad.item() == pytest.approx(row["dQ_dbeta"], rel=2e-5)


def test_gradient_is_the_target_share_minus_the_weighted_share_above():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        pos, neg = (torch.rand(n, generator=generator).double().tolist() for n in (4, 9))
        beta, n_items, k = float(torch.rand((), generator=generator)), 50, 6
        _, gradient = value_and_gradient(regression([beta], n_items, k), neg, pos)
        above = sum(s > beta for s in pos) + (n_items - len(pos)) / len(neg) * sum(s > beta for s in neg)
        assert gradient == pytest.approx(k / n_items - above / n_items, abs=1e-12)


def test_minimiser_is_the_interval_between_the_scores_at_rank_k_and_k_plus_1(golden):
    case = golden("quantile_regression")
    low, high = case["minimiser_interval"]
    items = sorted(case["pos_scores"] + case["all_neg_scores"], reverse=True)
    assert [items[case["K"]], items[case["K"] - 1]] == [low, high]

    def at(beta):
        return value_and_gradient(regression([beta], 10, case["K"]), case["all_neg_scores"], case["pos_scores"])

    inside = [at(beta) for beta in (low + 0.01, (low + high) / 2, high - 0.01)]
    assert [gradient for _, gradient in inside] == pytest.approx([0, 0, 0], abs=1e-15)
    least = inside[0][0]
    assert [at(low)[0], at(high)[0]] == pytest.approx([least, least], rel=1e-12)
    assert at(low - 0.01)[0] > least + 1e-4
    assert at(high + 0.01)[0] > least + 1e-4
    assert at(low - 0.01)[1] < 0 < at(high + 0.01)[1]


@pytest.mark.parametrize("drawn", [1, 2])
def test_sampled_loss_is_unbiased_over_all_ordered_draws(drawn, golden):
    case = golden("quantile_regression")
    expected = case["unbiasedness"]
    threshold = regression([expected["beta"]], case["num_items"], case["K"])
    full = value_and_gradient(threshold, case["all_neg_scores"], case["pos_scores"])
    draws = [
        value_and_gradient(threshold, list(negatives), case["pos_scores"])
        for negatives in itertools.product(case["all_neg_scores"], repeat=drawn)
    ]
    assert full[0] == pytest.approx(expected["L_QR_full"], rel=1e-9)
    for i in range(2):
        assert sum(draw[i] for draw in draws) / len(draws) == pytest.approx(full[i], rel=1e-9)
    if drawn == 1:
        assert [value for value, _ in draws] == pytest.approx(expected["Q_each_single_negative"], rel=1e-9)


def test_gradient_over_uniform_negatives_is_on_average_that_of_all_items():
    """20,000 draws of the sampler for each of three users, within four standard errors; a weight of |I| / N is not."""
    generator = torch.Generator().manual_seed(4)
    n_items, n, draws, k = 60, 4, 20_000, 7
    scores = 2 * torch.rand(3, n_items, generator=generator).double() - 1
    seen = torch.rand(3, n_items, generator=generator) < torch.tensor([[0.05], [0.3], [0.6]])
    sampler = UniformNegatives(Interactions(*seen.nonzero(as_tuple=True), 3, n_items))
    for u, beta in enumerate((0.2, 0.5, -0.3)):
        users = torch.full((draws,), u)
        neg = scores[u][sampler.sample(users, torch.arange(draws), n, key=11)]
        own, others = scores[u][seen[u]], scores[u][~seen[u]]
        threshold = regression([beta], n_items, k)
        full = value_and_gradient(threshold, others.tolist(), own.tolist())[1]
        threshold.zero_grad()
        rows = Segments(own.repeat(draws), len(own) * torch.arange(draws + 1))
        threshold.loss(torch.zeros(draws, dtype=torch.int64), neg, rows).backward()
        error = abs(threshold.value.grad.item() - full)
        share = (others > beta).double().mean()
        deviation = float(len(others) / n_items * (share * (1 - share) / n).sqrt())
        assert error < 4 * deviation / draws**0.5
        assert len(own) / n_items * float(share) > 8 * deviation / draws**0.5, "the other weight's error is seen"


def test_golden_pinball_loss(golden):
    """The mean pinball loss of 2001 scores, which stand for 20010 items of which 2001 lie above."""
    case = golden("pinball_loss")
    scores = torch.linspace(-1, 1, 2001, dtype=torch.float64)[None]
    for key in ("0.8", "0.7", "0.9"):
        threshold = regression([float(key)], 20010, 2001)
        loss = threshold.loss(torch.tensor([0]), scores, segments([[]]))
        assert loss.item() == pytest.approx(case[f"loss_at_beta_{key}"], rel=1e-9)


def test_golden_adam_trace(golden):
    """All items are seen, the best four as positives."""
    case = golden("quantile_adam_trace_full_items")
    scores = (-1 + 2 * torch.arange(50, dtype=torch.float64) / 49).tolist()
    pos, neg = scores[46:], scores[:46]
    threshold = regression([0.0], 50, case["K"])
    optimizer = torch.optim.Adam([threshold.value], lr=case["lr"])
    trace = {int(step): beta for step, beta in case["beta_after_step"].items() if int(step) <= 2000}
    neg, pos = torch.tensor([neg], dtype=torch.float64), segments([pos])
    for step in range(1, 2001):
        optimizer.zero_grad()
        threshold.loss(torch.tensor([0]), neg, pos).backward()
        optimizer.step()
        if step in trace:
            assert threshold.value.item() == pytest.approx(trace[step], rel=1e-9), step
    assert case["rank6_score"] <= threshold.value.item() <= case["rank5_score"]


def test_golden_drift_of_an_absent_user_under_dense_adam(golden):
    threshold = regression([0.0, 0.0], 4, 1)
    optimizer = torch.optim.Adam([threshold.value], lr=1e-3)
    neg = torch.tensor([[0.5, 0.2, -0.1, 0.4]], dtype=torch.float64)
    for step, expected in enumerate(golden("dense_adam_quantile_drift")["quantile_after_each_step"]):
        optimizer.zero_grad()
        threshold.loss(torch.tensor([int(step > 0)]), neg, segments([[]])).backward()
        optimizer.step()
        assert threshold.value.tolist() == pytest.approx(expected, rel=1e-9)


def test_full_batch_regression_settles_between_the_scores_at_rank_k_and_k_plus_1():
    generator = torch.Generator().manual_seed(1)
    n_users, n_items, positives, k = 12, 60, 9, 7
    shuffled = torch.stack([torch.randperm(n_items, generator=generator) for _ in range(n_users)])
    scores = (shuffled + 0.3 * torch.rand(n_users, n_items, generator=generator)) / 30 - 1
    rows = segments(scores[:, :positives].tolist(), torch.float32)
    threshold = RegressionThreshold(n_users, n_items, k=k)
    optimizer = torch.optim.Adam([threshold.value])
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.03 if step < 100 else 0.003
        optimizer.zero_grad()
        threshold.loss(torch.arange(n_users), scores[:, positives:], rows).backward()
        optimizer.step()
    ranked = scores.sort(descending=True).values
    beta = threshold.value.detach()
    assert bool((ranked[:, k] <= beta).all())
    assert bool((beta <= ranked[:, k - 1]).all())


def test_a_row_counts_as_often_as_it_occurs():
    threshold = regression([0.1, 0.2], 10, 3)
    neg = torch.tensor([[0.3, 0.0], [0.5, -0.1], [0.15, 0.9]], dtype=torch.float64)
    rows = [[0.4], [0.6, 0.05], [0.4]]
    users = [0, 1, 0]
    total = threshold.loss(torch.tensor(users), neg, segments(rows))
    total.backward()
    gradient = threshold.value.grad.clone()
    values, gradients = [], torch.zeros(2, dtype=torch.float64)
    for b, u in enumerate(users):
        threshold.zero_grad()
        one = threshold.loss(torch.tensor([u]), neg[b : b + 1], segments([rows[b]]))
        one.backward()
        values.append(one.item())
        gradients += threshold.value.grad
    assert total.item() == pytest.approx(sum(values) / 3, rel=1e-12)
    torch.testing.assert_close(gradient, gradients / 3)


def test_regression_reaches_the_thresholds_alone():
    threshold = regression([0.1], 10, 3)
    neg = torch.tensor([[0.3, 0.0]], dtype=torch.float64, requires_grad=True)
    pos = segments([[0.4]])
    pos.values.requires_grad_()
    threshold.loss(torch.tensor([0]), neg, pos).backward()
    assert neg.grad is None
    assert pos.values.grad is None
    assert threshold.value.grad is not None
    assert not threshold(torch.tensor([0])).requires_grad


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [
        ([0.9, 0.7, 0.2], [0.65, 0.65, 0.1, -0.2, 0.3, -0.5], "mc_quantile"),
        ([0.9, 0.2, 0.4], [0.95, 0.1, 0.3, -0.5, 0.7, 0.6], "SLatK_mc_quantile"),
    ],
)
def test_golden_monte_carlo(positives, negatives, expected, golden):
    case = golden(expected)
    by_k = case.get("K_to_beta") or {name.removeprefix("beta_K"): x for name, x in case.items() if name[:6] == "beta_K"}
    assert len(by_k) >= 4
    for k, beta in by_k.items():
        neg = torch.tensor([negatives], dtype=torch.float64)
        assert kth_largest(segments([positives]), neg, int(k)).tolist() == [beta]


def test_golden_monte_carlo_of_a_short_row_beside_a_longer_one(golden):
    """The golden's padding, here a second row with more positives."""
    case = golden("mc_quantile_padding")
    inputs = case["inputs"]
    own = [s for s, kept in zip(inputs["padded_positive_scores"], inputs["mask"], strict=True) if kept]
    neg = torch.tensor([inputs["sampled_negative_scores"]] * 2, dtype=torch.float64)
    rows = segments([own, [0.95, 0.94, 0.93, 0.92, 0.91]])
    assert kth_largest(rows, neg, inputs["K"]).tolist() == [case["beta"], 0.93]


def test_kth_largest_equals_sorting_the_candidates():
    generator = torch.Generator().manual_seed(2)
    for k in (1, 2, 5, 9, 40):
        counts = [0, 1, 7, 0, 3, 30]
        rows = [(torch.randint(-5, 6, (c,), generator=generator) / 4).tolist() for c in counts]
        neg = torch.randint(-5, 6, (len(counts), 8), generator=generator) / 4
        candidates = [sorted(row + n, reverse=True) for row, n in zip(rows, neg.tolist(), strict=True)]
        expected = [c[min(k, len(c)) - 1] for c in candidates]
        assert kth_largest(segments(rows, torch.float32), neg, k).tolist() == expected


class Watched:
    """A context over fixed scores that remembers the negatives it gave."""

    def __init__(self, n_users: int = 300, n_items: int = 40) -> None:
        generator = torch.Generator().manual_seed(3)
        self.epoch = 0
        self.table = torch.randint(-20, 21, (n_users, n_items), generator=generator) / 20
        seen = torch.rand(n_users, n_items, generator=generator) < torch.rand(n_users, 1, generator=generator) * 0.6
        self.train = Interactions(*seen.nonzero(as_tuple=True), n_users, n_items)
        self.free = [(~seen[u]).nonzero().flatten() for u in range(n_users)]
        self.given: dict[int, torch.Tensor] = {}
        self.epochs_asked: list[int] = []

    def scores(self, users: torch.Tensor) -> torch.Tensor:
        return self.table[users]

    def negatives(self, users: torch.Tensor, n: int, purpose: str) -> torch.Tensor:
        rows = []
        for u in users.tolist():
            generator = torch.Generator().manual_seed(1000 * self.epoch + u)
            rows.append(self.free[u][torch.randint(len(self.free[u]), (n,), generator=generator)])
            self.given[u] = rows[-1]
            self.epochs_asked.append(self.epoch)
        return torch.stack(rows)

    def brute_force(self, k: int) -> list[float]:
        values = []
        for u, row in enumerate(self.table.tolist()):
            items = self.train.item[self.train.user == u].tolist() + self.given[u].tolist()
            candidates = sorted((row[i] for i in items), reverse=True)
            values.append(candidates[min(k, len(candidates)) - 1])
        return values


@pytest.mark.parametrize(("k", "samples"), [(1, 5), (6, 10), (6, 3), (40, 2)])
def test_monte_carlo_equals_sorting_positives_and_negatives(k, samples):
    """Including users without positives and users with fewer candidates than K; 300 users take several blocks."""
    context = Watched()
    threshold = MonteCarloThreshold(300, 40, k=k, refresh=1, samples=samples)
    context.epoch = 1
    threshold.on_epoch_start(context)
    torch.testing.assert_close(threshold.value, torch.tensor(context.brute_force(k)), rtol=0, atol=0)
    assert len(context.epochs_asked) == 300, "each user is drawn for once"
    picked = torch.tensor([7, 299, 7])
    assert torch.equal(threshold(picked), threshold.value[picked])


@pytest.mark.parametrize(("refresh", "expected"), [(1, [1, 2, 3, 4, 5, 6, 7]), (3, [3, 6]), (7, [7]), (8, [])])
def test_monte_carlo_refreshes_in_the_multiples_of_refresh_counted_from_1(refresh, expected):
    context = Watched(n_users=4)
    threshold = MonteCarloThreshold(4, 40, k=2, refresh=refresh, samples=3)
    changes = []
    for context.epoch in range(1, 8):
        before = threshold.value.clone()
        threshold.on_epoch_start(context)
        if not torch.equal(before, threshold.value):
            changes.append(context.epoch)
            torch.testing.assert_close(threshold.value, torch.tensor(context.brute_force(2)), rtol=0, atol=0)
    assert sorted(set(context.epochs_asked)) == expected
    assert set(changes) <= set(expected)
    assert changes[:1] == expected[:1]
    if not expected:
        assert torch.equal(threshold.value, torch.zeros(4))


def test_golden_smoothed_step(golden, dtype):
    """A positive and its negatives are one list; a user's two rows move the threshold twice from where it was."""
    case = golden("ksong_prac_one_step")
    inputs = case["inputs"]
    pred, start, moved = (torch.tensor(x, dtype=dtype) for x in (inputs["pred"], inputs["lambda"], case["lambda_new"]))
    tolerance = {"rtol": 1e-9, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 2e-5, "atol": 1e-6}
    for users in ([0, 1], [1, 0, 1]):
        threshold = SmoothedThreshold(3, inputs["num_item"], k=inputs["K"], lr=inputs["eta0"]).to(dtype)
        threshold.value[:2] = start
        rows = pred[users]
        threshold.fit(Batch(rows[:, 0], rows[:, 1:], user=torch.tensor(users)))
        times = torch.tensor([users.count(user) for user in (0, 1)], dtype=dtype)
        gradient = torch.tensor(case["lambda_grad"], dtype=dtype)
        torch.testing.assert_close(threshold.value[:2], start - times * inputs["eta0"] * gradient, **tolerance)
        assert threshold.value[2] == 0
    torch.testing.assert_close(start - inputs["eta0"] * gradient, moved, **tolerance)
    threshold.eval().fit(Batch(rows[:, 0], rows[:, 1:], user=torch.tensor(users)))
    torch.testing.assert_close(threshold.value[:2], start - times * inputs["eta0"] * gradient, **tolerance)


def real_context(epoch: int, n_users: int = 23, n_items: int = 17) -> Context:
    """Over embeddings that change with the epoch; some users have no positives."""
    generator = torch.Generator().manual_seed(epoch)
    user, item = (torch.randn(n, 4, generator=generator).double() for n in (n_users, n_items))
    seen = (torch.arange(n_users)[:, None] % 4) * torch.arange(n_items) % 5 == 1
    train = Interactions(*seen.nonzero(as_tuple=True), n_users, n_items)
    return Context(epoch, train, lambda: (user, item))


def kth_of_all(context: Context, k: int) -> list[float]:
    rows = context.scores(torch.arange(23)).tolist()
    return [sorted(row, reverse=True)[k - 1] for row in rows]


@pytest.mark.parametrize("k", [1, 5, 17])
@pytest.mark.parametrize("users_per_block", [256, 23, 7, 1])
def test_exact_equals_sorting_all_items(k, users_per_block, monkeypatch):
    monkeypatch.setattr("recloss.thresholds._USERS_PER_BLOCK", users_per_block)
    context = real_context(1)
    threshold = ExactThreshold(23, 17, k=k, refresh=1).double()
    threshold.on_epoch_start(context)
    torch.testing.assert_close(
        threshold.value, torch.tensor(kth_of_all(context, k), dtype=torch.float64), rtol=1e-12, atol=1e-12
    )
    picked = torch.tensor([22, 0, 22])
    assert torch.equal(threshold(picked), threshold.value[picked])


def test_exact_counts_equal_scores_and_positives_like_any_item():
    class Fixed(Context):
        def scores(self, users):
            return torch.tensor([[0.5, 0.9, 0.5, 0.9, -1.0], [0.1, 0.2, 0.3, 0.4, 0.5]])[users]

    train = Interactions(torch.tensor([0, 1]), torch.tensor([1, 4]), 2, 5)
    found = []
    for k in range(1, 6):
        threshold = ExactThreshold(2, 5, k=k, refresh=1)
        threshold.on_epoch_start(Fixed(1, train, tuple))
        found.append(threshold.value)
    expected = torch.tensor([[0.9, 0.9, 0.5, 0.5, -1.0], [0.5, 0.4, 0.3, 0.2, 0.1]])
    assert torch.equal(torch.stack(found, 1), expected)


@pytest.mark.parametrize(("refresh", "expected"), [(1, [1, 2, 3, 4, 5, 6]), (2, [2, 4, 6]), (6, [6]), (7, [])])
def test_exact_refreshes_in_the_multiples_of_refresh_counted_from_1(refresh, expected):
    threshold = ExactThreshold(23, 17, k=3, refresh=refresh).double()
    changed = []
    for epoch in range(1, 7):
        before = threshold.value.clone()
        context = real_context(epoch)
        threshold.on_epoch_start(context)
        if torch.equal(threshold.value, before):
            continue
        changed.append(epoch)
        expected_now = torch.tensor(kth_of_all(context, 3), dtype=torch.float64)
        torch.testing.assert_close(threshold.value, expected_now, rtol=1e-12, atol=1e-12)
    assert changed == expected
    assert bool((threshold.value != 0).all()) == bool(expected)


def test_monte_carlo_with_a_real_context_draws_what_the_context_gives(monkeypatch):
    monkeypatch.setattr("recloss.thresholds._USERS_PER_BLOCK", 5)
    context = real_context(2)
    threshold = MonteCarloThreshold(23, 17, k=4, refresh=2, samples=6).double()
    threshold.on_epoch_start(context)
    drawn = context.negatives(torch.arange(23), 6, "threshold")
    rows = context.scores(torch.arange(23)).tolist()
    expected = []
    for u, row in enumerate(rows):
        items = context.train.item[context.train.user == u].tolist() + drawn[u].tolist()
        expected.append(sorted((row[i] for i in items), reverse=True)[3])
    torch.testing.assert_close(threshold.value, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def smoothed_batch() -> Batch:
    """Users 1, 3, 1; distances from their thresholds are small multiples of the smoothing's 0.01, or far."""
    pos = torch.tensor([0.21, 0.5, 0.2], dtype=torch.float64, requires_grad=True)
    neg = torch.tensor([[0.2, -0.9, 0.19], [0.0, 0.1, -0.5], [0.9, 0.8, 0.2]], dtype=torch.float64, requires_grad=True)
    return Batch(pos, neg, user=torch.tensor([1, 3, 1]))


def smoothed(lr: float = 0.1) -> SmoothedThreshold:
    threshold = SmoothedThreshold(4, 20, k=3, lr=lr).double()
    threshold.value.copy_(torch.tensor([0.7, 0.2, -0.4, 0.1]))
    return threshold


def test_the_smoothed_step_by_hand_adds_up_the_rows_of_a_user():
    """Shares above, from sigmoids at 1, 0, far below, -1; far above, far below, 0, far below; 0, far, far, 0."""
    threshold = smoothed()
    beta = threshold.value.tolist()
    threshold.fit(smoothed_batch())
    up = 1 / (1 + math.exp(-1))
    shares = [(up + 0.5 + (1 - up)) / 4, (1 + 0.5) / 4, (0.5 + 1 + 1 + 0.5) / 4]
    assert shares[::2] == pytest.approx([0.375, 0.75])
    steps = [3 / 20 + 1e-4 * b - share for b, share in zip([beta[1], beta[3], beta[1]], shares, strict=True)]
    expected = [beta[0], beta[1] - 0.1 * (steps[0] + steps[2]), beta[2], beta[3] - 0.1 * steps[1]]
    assert threshold.value.tolist() == pytest.approx(expected, rel=1e-4)  # sigmoid(-10) is not quite 0
    assert threshold.value[0].item() == beta[0]


def test_the_smoothed_step_in_plain_python():
    threshold, batch = smoothed(0.03), smoothed_batch()
    expected = before = threshold.value.tolist()
    expected = list(expected)
    for u, p, row in zip(batch.user.tolist(), batch.pos.tolist(), batch.neg.tolist(), strict=True):
        above = [1 / (1 + math.exp(-(s - before[u]) / 0.01)) for s in (p, *row)]
        expected[u] -= 0.03 * (3 / 20 + 1e-4 * before[u] - sum(above) / 4)
    assert threshold.fit(batch) is None
    assert threshold.value.tolist() == pytest.approx(expected, rel=1e-12)
    assert not threshold.value.requires_grad
    assert not threshold(batch.user).requires_grad
    assert batch.pos.grad is None


def test_the_smoothed_step_takes_the_rows_of_all_processes():
    """Two processes of some of the rows each end with the thresholds of one that has them all."""
    whole, alone = smoothed_batch(), smoothed()
    alone.fit(whole)
    seen = []

    def recorded(part):
        def gather(rows):
            seen.append(rows)
            return rows

        return Batch(whole.pos[part], whole.neg[part], gather=gather, user=whole.user[part])

    halves = [slice(0, 1), slice(1, 3)]
    for half in halves:
        smoothed().fit(recorded(half))
    assert len(seen) == 4
    gathered = [torch.cat([seen[0], seen[2]]), torch.cat([seen[1], seen[3]])]
    assert gathered[0].tolist() == [1, 3, 1]
    for half in halves:
        replies = iter(gathered)
        threshold = smoothed()
        threshold.fit(replace(recorded(half), gather=lambda rows, replies=replies: next(replies)))
        assert torch.equal(threshold.value, alone.value)


def test_the_smoothed_threshold_rests_in_evaluation_mode():
    threshold = smoothed().eval()
    before = threshold.value.clone()
    threshold.fit(smoothed_batch())
    assert torch.equal(threshold.value, before)


def test_the_smoothed_threshold_settles_where_the_share_above_is_k_of_all():
    """With the list in the place of the catalogue, between the scores at rank K and K + 1."""
    threshold = SmoothedThreshold(1, 10, k=3, lr=0.01).double()
    pos, neg = torch.tensor([0.9]).double(), torch.linspace(-0.8, 0.8, 9)[None].double()
    for _ in range(500):
        threshold.fit(Batch(pos, neg, user=torch.tensor([0])))
    assert 0.4 < threshold.value.item() < 0.6
    share = torch.sigmoid((torch.cat([pos, neg[0]]) - threshold.value) / 0.01).mean().item()
    assert share == pytest.approx(3 / 10 + 1e-4 * threshold.value.item(), abs=0.01)


def test_estimators_without_state_of_their_own_add_nothing_to_the_loss_or_the_optimiser():
    for cls in (MonteCarloThreshold, ExactThreshold, SmoothedThreshold):
        threshold = cls(4, 20, k=3)
        assert threshold.fit(replace(smoothed_batch(), pos=torch.zeros(3), neg=torch.zeros(3, 2))) is None
        assert threshold.parameter_groups() == []
        assert set(threshold.state_dict()) == {"value"}


def test_regression_fits_from_a_batch_what_its_loss_says():
    threshold, batch = regression([0.0, 0.2, 0.1, 0.3], 20, 3), smoothed_batch()
    positives = segments([[0.4], [0.6, 0.05], [0.4]])
    found = threshold.fit(replace(batch, positives=positives))
    assert found.item() == threshold.loss(batch.user, batch.neg, positives).item()
    (group,) = threshold.parameter_groups()
    assert (group["lr"], group["weight_decay"]) == (1e-3, 0.0)
    assert group["params"][0] is threshold.value


def test_hyper_parameters_out_of_range_are_named():
    good = {"k": 2, "lr": 0.01, "refresh": 1, "samples": 1}
    for kind in THRESHOLDS:
        assert build_threshold(kind, 3, 10, **good).kind == kind
        for key, bad, message in (
            ("k", 0, r"k must lie in 1\.\.10 .*got 0$"),
            ("k", 11, r"k must lie in 1\.\.10 .*got 11$"),
            ("lr", 0, "threshold_lr must be a number above 0, got 0"),
            ("refresh", 0, "refresh must be at least 1, got 0"),
            ("samples", 0, "samples must be at least 1, got 0"),
        ):
            with pytest.raises(ValueError, match=f"^{message}"):
                build_threshold(kind, 3, 10, **good | {key: bad})
    with pytest.raises(ValueError, match="^threshold must be one of regression, .*, got 'median'"):
        build_threshold("median", 3, 10, **good)
