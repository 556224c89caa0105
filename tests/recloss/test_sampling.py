"""Negatives: distributed as their sampler says, which ``log_q`` repeats, and the same for any batching."""

import math

import pytest
import torch

from recloss.backbones import MF
from recloss.errors import InputError
from recloss.interactions import Interactions
from recloss.losses import SL
from recloss.randomness import permutation, stream_key
from recloss.sampling import (
    SAMPLERS,
    PooledFalseNegatives,
    Sampler,
    UniformNegatives,
    WholeBatch,
    build_sampler,
    false_negative_pool,
)
from recloss.training import FitSettings, fit

pytestmark = pytest.mark.usefixtures("kernels")


def interactions(positives: list[list[int]], n_items: int) -> Interactions:
    user = torch.tensor([u for u, items in enumerate(positives) for _ in items], dtype=torch.int64)
    item = torch.tensor([i for items in positives for i in items], dtype=torch.int64)
    return Interactions(user, item, len(positives), n_items)


def some_items(count: int, n_items: int, seed: int) -> list[int]:
    return torch.randperm(n_items, generator=torch.Generator().manual_seed(seed))[:count].tolist()


def assert_distributed(draws: torch.Tensor, probability: torch.Tensor) -> None:
    """A chi-square statistic within five standard deviations of its mean; items too rare for it count as one."""
    counts = torch.bincount(draws.flatten(), minlength=len(probability)).double()
    assert len(counts) == len(probability)
    assert float(counts[probability == 0].sum()) == 0
    expected = probability.double() * draws.numel()
    rare = expected < 5
    if float(expected[rare].sum()) >= 5:
        counts, expected = (torch.cat([x[~rare], x[rare].sum()[None]]) for x in (counts, expected))
    else:
        counts, expected = counts[~rare], expected[~rare]
    assert len(counts), "too few draws for the statistic"
    statistic, degrees = float(((counts - expected) ** 2 / expected).sum()), len(counts) - 1
    assert abs(statistic - degrees) <= 5 * math.sqrt(2 * degrees) + 5 * (degrees < 10)


def assert_uniform(draws: torch.Tensor, positives: list[int], n_items: int) -> None:
    free = torch.ones(n_items, dtype=torch.float64)
    free[positives] = 0
    assert draws.numel() / float(free.sum()) >= 5, "too few draws for the statistic"
    assert_distributed(draws, free / free.sum())


CATALOGUES = {
    "no positives": (50, 0),
    "few items": (7, 3),
    "one item left of few": (5, 4),
    "exact filter of a full power of two": (4096, 2000),
    "filter with collisions": (10_000, 3000),
    "all but one item": (5000, 4999),
    "99 % of the catalogue": (5000, 4950),
    "99 % of a filtered catalogue": (12_000, 11_880),
}


@pytest.mark.parametrize("catalogue", CATALOGUES)
def test_uniform_over_the_items_outside_the_positives(catalogue):
    n_items, count = CATALOGUES[catalogue]
    own = some_items(count, n_items, seed=1)
    before, after = some_items(min(3, n_items - 1), n_items, 2), some_items(n_items // 2, n_items, 3)
    train = interactions([before, own, after], n_items)
    rows = max(1, 30 * (n_items - count) // 500)
    draws = UniformNegatives(train).sample(torch.full((rows,), 1), torch.arange(rows), 500, key=7)
    assert draws.shape == (rows, 500)
    assert_uniform(draws, own, n_items)


def test_a_full_power_of_two_of_bits_and_one_item_more():
    """At 4097 items the filter no longer tells item 0 from item 4096."""
    for own in ([0], [4096], [0, 4096], list(range(4096))):
        sampler = UniformNegatives(interactions([own], 4097))
        assert_uniform(sampler.sample(torch.zeros(100, dtype=torch.int64), torch.arange(100), 500, 3), own, 4097)


def test_no_user_of_a_mixed_batch_gets_a_positive():
    n_items, counts = 6000, [0, 1, 5999, 5940, 3000, 0, 5990, 20]
    positives = [some_items(c, n_items, seed) for seed, c in enumerate(counts)]
    train = interactions(positives, n_items)
    users = torch.randint(8, (300,), generator=torch.Generator().manual_seed(4))
    draws = UniformNegatives(train).sample(users, torch.arange(300), 64, key=1)
    assert (int(draws.min()) >= 0, int(draws.max()) < n_items) == (True, True)
    seen = [set(items) for items in positives]
    for user, row in zip(users.tolist(), draws.tolist(), strict=True):
        assert not seen[user] & set(row)
    for u, count in enumerate(counts):
        if count >= 5990:
            assert set(draws[users == u].flatten().tolist()) == set(range(n_items)) - seen[u]


def test_any_slice_of_a_batch_draws_what_the_batch_draws():
    positives = [some_items(c, 5000, c) for c in (0, 4990, 2500, 4999, 10)]
    sampler = UniformNegatives(interactions(positives, 5000))
    users = torch.arange(60) % 5
    positions = torch.arange(1000, 1060)
    whole = sampler.sample(users, positions, 40, key=5)
    for low, high in ((0, 1), (0, 30), (13, 14), (29, 60), (7, 7)):
        assert torch.equal(sampler.sample(users[low:high], positions[low:high], 40, key=5), whole[low:high])
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sampler.sample(users[order], positions[order], 40, key=5), whole[order])
    assert torch.equal(sampler.sample(users, positions, 15, key=5), whole[:, :15])


def test_keys_positions_and_columns_draw_independently():
    n_items = 1000
    own = some_items(900, n_items, 6)
    sampler = UniformNegatives(interactions([own], n_items))
    users, positions = torch.zeros(200, dtype=torch.int64), torch.arange(200)
    base = sampler.sample(users, positions, 200, key=5)
    others = {
        "another key": sampler.sample(users, positions, 200, key=6),
        "other positions": sampler.sample(users, positions + 200, 200, key=5),
        "the next position": base.roll(1, 0),
        "the next column": base.roll(1, 1),
    }
    for what, other in others.items():
        share = float((base == other).double().mean())
        assert share == pytest.approx(1 / 100, abs=5 * math.sqrt(0.01 / 40_000)), what


def test_draws_are_independent_of_the_other_users_in_the_batch():
    positives = [some_items(4995, 5000, 1), some_items(4995, 5000, 2)]
    sampler = UniformNegatives(interactions(positives, 5000))
    alone = sampler.sample(torch.tensor([1]), torch.tensor([9]), 30, key=2)
    beside = sampler.sample(torch.tensor([0, 1]), torch.tensor([8, 9]), 30, key=2)
    assert torch.equal(alone[0], beside[1])


def test_a_user_with_the_whole_catalogue_is_named():
    with pytest.raises(ValueError, match="^user 1 has all 3 items as training positives: no negatives$"):
        UniformNegatives(interactions([[0, 1], [2, 0, 1], [1]], 3))


def catalogue(n_items: int, counts: list[int]) -> Interactions:
    """Users with ``counts`` positives, most of them of low index; all but the last twentieth of the items occur."""
    generator = torch.Generator().manual_seed(n_items)
    occur = n_items - n_items // 20
    weights = 1 / (1 + torch.arange(occur, dtype=torch.float64))
    positives = [torch.multinomial(weights, count, generator=generator).tolist() if count else [] for count in counts]
    positives[-1] = sorted(set(range(occur)).difference(*positives[:-1]).union(positives[-1]))
    return interactions(positives, n_items)


TRAINS = {
    "few items": catalogue(7, [3, 1, 6, 0, 2]),
    "an exact filter": catalogue(60, [5, 20, 56, 0, 1, 30, 30]),
    "a filter with collisions": catalogue(4500, [10, 2200, 4274, 0, 1900, 4200]),
}
"""User 2 has all items that occur but one, user 3 has no positives."""
NAMES = {"popularity by degree": ("popularity", {"power": 1.0}), "popularity flat": ("popularity", {"power": 0.0})}
KINDS = [*(name for name, cls in SAMPLERS.items() if not cls.needs_pool), *NAMES, "pooled", "pooled positives"]


def sampler_of(kind: str, train: Interactions) -> Sampler:
    if kind.startswith("pooled"):
        kept, pool = false_negative_pool(train, share=0.3)
        return PooledFalseNegatives(train if kind == "pooled positives" else kept, pool, ratio=0.4)
    name, params = NAMES.get(kind, (kind, {}))
    return build_sampler(name, params, train)


def probabilities(kind: str, sampler: Sampler, n: int, weights: torch.Tensor | None = None) -> torch.Tensor:
    """(n_users, n_items) from the definitions; ``weights`` (n_items,) are the batch's counts for in-batch negatives."""
    train = sampler.train
    positive = torch.zeros(train.n_users, train.n_items, dtype=torch.float64)
    positive[train.user, train.item] = 1
    degree = positive.sum(0)
    uniform = (1 - positive) / (1 - positive).sum(1, keepdim=True)
    name, params = NAMES.get(kind, (kind, {}))
    if name == "uniform":
        return uniform
    if name in ("uniform_all", "shared"):
        return torch.full_like(positive, 1 / train.n_items)
    if name in ("popularity", "in_batch"):
        popularity = torch.where(degree > 0, degree ** params.get("power", 0.75), 0)
        weights = degree if weights is None else weights.double()
        left = (popularity if name == "popularity" else weights) * (1 - positive)
        left = torch.where(left.sum(1, keepdim=True) > 0, left, degree * (1 - positive))
        return left / left.sum(1, keepdim=True)
    own, share = positive, int(n * 0.125) / n
    if kind.startswith("pooled"):
        own, share = torch.zeros_like(positive), 0.4
        own[sampler.own.user, sampler.own.item] = 1
    share = share * (own.sum(1, keepdim=True) > 0)
    return share * own / own.sum(1, keepdim=True).clamp(min=1) + (1 - share) * uniform


def some_batch(train: Interactions, size: int = 200) -> WholeBatch:
    rows = permutation(len(train), 5)[:size]
    return WholeBatch(train.item[rows], 4000)


@pytest.mark.parametrize("name", TRAINS)
@pytest.mark.parametrize("kind", KINDS)
def test_draws_of_each_user_are_distributed_as_the_definition_says(kind, name):
    train, columns = TRAINS[name], 100
    sampler = sampler_of(kind, train)
    batch = some_batch(train)
    counts = torch.bincount(batch.items, minlength=train.n_items) if kind == "in_batch" else None
    wanted = probabilities(kind, sampler, columns, counts)
    rows = max(10, train.n_items // 19)
    for user in range(train.n_users):
        users, positions = torch.full((rows,), user), 1000 * user + torch.arange(rows)
        if kind == "shared":
            batches = [WholeBatch(batch.items, start) for start in positions.tolist()]
            draws = torch.cat([sampler.sample(users[:1], positions[:1], columns, 11, each) for each in batches])
        else:
            draws = sampler.sample(users, positions, columns, 11, batch)
        assert draws.dtype == torch.int64
        assert draws.shape == (rows, columns)
        assert_distributed(draws, wanted[user])


@pytest.mark.parametrize("name", TRAINS)
@pytest.mark.parametrize("kind", KINDS)
def test_log_q_is_the_log_of_each_users_distribution(kind, name):
    train = TRAINS[name]
    sampler = sampler_of(kind, train)
    wanted = probabilities(kind, sampler, train.n_items)
    users = torch.tensor([3, 0, 2, 1, 2])
    every = torch.arange(train.n_items).expand(len(users), -1)
    log_q = sampler.log_q(users, every)
    assert log_q.dtype == torch.get_default_dtype()
    assert log_q.shape == every.shape
    drawn = wanted[users] > 0
    torch.testing.assert_close(
        log_q[drawn].double(), (wanted[users] * train.n_items)[drawn].log(), rtol=1e-5, atol=1e-5
    )
    total = torch.where(drawn, log_q.double().exp(), 0).sum(1) / train.n_items
    torch.testing.assert_close(total, torch.ones(len(users), dtype=torch.float64), rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_any_split_of_a_batch_draws_what_the_batch_draws(kind):
    train = TRAINS["a filter with collisions"]
    sampler = sampler_of(kind, train)
    users = torch.arange(60) % train.n_users
    positions = torch.arange(1000, 1060)
    for batch in (some_batch(train), WholeBatch(train.of(torch.tensor([2])).values[:40], 1000)):
        whole = sampler.sample(users, positions, 40, 5, batch)
        for low, high in ((0, 1), (0, 30), (13, 14), (30, 60)):
            part = sampler.sample(users[low:high], positions[low:high], 40, 5, batch)
            assert torch.equal(part, whole[low:high])
        order = permutation(60, 0)
        assert torch.equal(sampler.sample(users[order], positions[order], 40, 5, batch), whole[order])
        assert sampler.sample(users, positions, 0, 5, batch).shape == (60, 0)
        assert float((sampler.sample(users, positions, 40, 6, batch) == whole).double().mean()) < 0.5, "another key"


def test_in_batch_negatives_are_in_proportion_to_the_degree_over_the_batches_of_many_epochs():
    """With batches of six, some hold nothing but positives of the user: the fallback keeps the distribution."""
    train = interactions([[0, 1, 2, 3], [0, 1], [0, 4, 5], [1, 4], [0, 2, 5, 6], [3]], 9)
    sampler = build_sampler("in_batch", {}, train)
    user, fallbacks, draws = 0, 0, []
    for epoch in range(4000):
        order = permutation(len(train), stream_key(0, epoch, "order 0"))
        place = int((train.user[order] == user).nonzero()[0])
        start = place // 6 * 6
        batch = WholeBatch(train.item[order[start : start + 6]], start)
        fallbacks += set(batch.items.tolist()) <= {0, 1, 2, 3}
        key = stream_key(0, epoch, "negatives 0")
        draws.append(sampler.sample(torch.tensor([user]), torch.tensor([place]), 1, key, batch))
    assert fallbacks > 40
    wanted = torch.tensor([0, 0, 0, 0, 2, 2, 1, 0, 0]) / 5
    assert_distributed(torch.cat(draws), wanted)
    log_q = sampler.log_q(torch.tensor([user]), torch.tensor([[4, 5, 6]]))
    torch.testing.assert_close(log_q, (wanted[4:7] * 9).log()[None])


def test_a_batch_of_nothing_but_the_users_positives_gives_a_row_of_the_training_data():
    train = TRAINS["few items"]
    own = train.of(torch.tensor([0])).values
    sampler = build_sampler("in_batch", {}, train)
    draws = sampler.sample(torch.zeros(50, dtype=torch.int64), torch.arange(50), 20, 1, WholeBatch(own, 0))
    assert_distributed(draws, probabilities("in_batch", sampler, 20)[0])
    beside = sampler.sample(torch.tensor([0, 1, 3]), torch.tensor([0, 60, 61]), 20, 1, WholeBatch(own, 0))
    assert torch.equal(beside[0], draws[0]), "whatever the other rows"
    assert set(beside[2].tolist()) <= set(own.tolist())


@pytest.mark.parametrize("name", ["in_batch", "shared"])
def test_a_sampler_that_looks_at_the_batch_must_be_given_it(name):
    sampler = build_sampler(name, {}, TRAINS["few items"])
    with pytest.raises(ValueError, match=f"^batch must be given to the sampler '{name}', got None$"):
        sampler.sample(torch.tensor([0]), torch.tensor([0]), 3, 1)


def test_shared_items_are_those_of_the_batch():
    sampler = build_sampler("shared", {}, TRAINS["an exact filter"])
    users = torch.arange(5)
    first, again, second = (
        sampler.sample(users, start + torch.arange(5), 30, 1, WholeBatch(users, start)) for start in (0, 0, 5)
    )
    assert torch.equal(first, first[:1].expand(5, 30))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_popularity_needs_an_item_left_with_weight():
    train = interactions([[0, 1], [2, 0, 1], [1]], 5)
    for name in ("popularity", "in_batch"):
        with pytest.raises(ValueError, match="^user 1 has all 3 items that occur as training positives: no negatives$"):
            build_sampler(name, {}, train)
    build_sampler("uniform", {}, train)


def test_a_large_power_leaves_the_rare_items_drawable():
    sampler = build_sampler("popularity", {"power": 50.0}, TRAINS["a filter with collisions"])
    degrees = torch.bincount(sampler.train.item, minlength=sampler.train.n_items)
    assert torch.equal(sampler.weights > 0, degrees > 0)
    assert int(sampler.weights[:10].argmax()) == int(degrees[:10].argmax())


@pytest.mark.parametrize("ratio", [0, 0.125, 0.29, 1])
def test_the_first_draws_are_positives_and_the_rest_those_of_the_uniform_sampler(ratio):
    train = TRAINS["an exact filter"]
    users, positions = torch.arange(7).repeat(20), torch.arange(140)
    draws = build_sampler("false_negatives", {"ratio": ratio}, train).sample(users, positions, 100, 3)
    ordinary = UniformNegatives(train).sample(users, positions, 100, 3)
    own, count = users != 3, {0: 0, 0.125: 12, 0.29: 29, 1: 100}[ratio]
    assert bool(train.contains(users[own][:, None], draws[own][:, :count]).all())
    assert torch.equal(draws[:, count:], ordinary[:, count:])
    assert torch.equal(draws[~own], ordinary[~own]), "a user without positives has no false negatives"


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("popularity", {"power": -1}, "power must be a number of at least 0, got -1"),
        ("popularity", {"power": math.nan}, "power must be a number of at least 0, got nan"),
        ("popularity", {"power": math.inf}, "power must be a number of at least 0, got inf"),
        ("popularity", {"power": "1"}, "power must be a number of at least 0, got '1'"),
        ("false_negatives", {"ratio": -0.1}, r"ratio must lie in 0\.\.1, got -0\.1"),
        ("false_negatives", {"ratio": 1.1}, r"ratio must lie in 0\.\.1, got 1\.1"),
        ("false_negatives", {"ratio": math.nan}, r"ratio must lie in 0\.\.1, got nan"),
    ],
)
def test_a_value_out_of_range_is_named(name, params, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        build_sampler(name, params, TRAINS["few items"])


def test_an_unknown_sampler_suggests_the_nearest():
    with pytest.raises(InputError, match="^unknown sampler 'popular'; did you mean 'popularity'\\? "):
        build_sampler("popular", {}, TRAINS["few items"])
    assert {name: cls.name for name, cls in SAMPLERS.items()} == {name: name for name in SAMPLERS}


def test_a_pool_is_a_random_share_of_all_pairs():
    train = TRAINS["an exact filter"]
    taken = torch.zeros(len(train))
    for seed in range(400):
        kept, pool = false_negative_pool(train, share=0.3, seed=seed)
        assert len(pool) == int(0.3 * len(train))
        assert torch.equal(torch.cat([kept.keys, pool.keys]).sort().values, train.keys)
        taken += torch.isin(train.keys, pool.keys)
    share = int(0.3 * len(train)) / len(train)
    assert (taken / 400 - share).abs().max() < 5 * math.sqrt(share * (1 - share) / 400)
    assert torch.equal(pool.keys, false_negative_pool(train, share=0.3, seed=399)[1].keys)
    for share, sizes in ((0, (len(train), 0)), (1, (0, len(train)))):
        assert tuple(len(part) for part in false_negative_pool(train, share=share)) == sizes
    with pytest.raises(ValueError, match=r"^share must lie in 0\.\.1, got 1\.5$"):
        false_negative_pool(train, share=1.5)


def test_a_pool_that_stays_positive_is_drawn_at_its_ratio_alone():
    train = TRAINS["an exact filter"]
    kept, pool = false_negative_pool(train)
    users, positions = torch.full((500,), 5), torch.arange(500)
    for positives, rest in ((train, 0), (kept, len(pool.of(torch.tensor([5])).values))):
        draws = PooledFalseNegatives(positives, pool, ratio=0.2).sample(users, positions, 100, 1)
        free = train.n_items - int(positives.degrees[5])
        expected = 0.2 + 0.8 * rest / free
        hits = float(pool.contains(users[:, None], draws).double().mean())
        assert hits == pytest.approx(expected, abs=5 * math.sqrt(0.25 / 50_000))
    nothing = PooledFalseNegatives(train, false_negative_pool(train, share=0)[1], ratio=0.5)
    assert torch.equal(nothing.sample(users, positions, 9, 1), UniformNegatives(train).sample(users, positions, 9, 1))
    with pytest.raises(ValueError, match=r"^pool must be of \(7, 60\) users and items like train, got \(5, 7\)$"):
        PooledFalseNegatives(train, TRAINS["few items"], ratio=0.5)


def test_a_pooled_sampler_by_name_needs_a_pool():
    train = TRAINS["an exact filter"]
    kept, pool = false_negative_pool(train)
    users, positions = torch.arange(5), torch.arange(5)
    named = build_sampler("pooled_false_negatives", {"ratio": 0.5}, kept, pool)
    expected = PooledFalseNegatives(kept, pool, ratio=0.5)
    assert torch.equal(named.sample(users, positions, 50, 1), expected.sample(users, positions, 50, 1))
    with pytest.raises(InputError, match="'pooled_false_negatives' needs a pool of false negatives, which this data"):
        build_sampler("pooled_false_negatives", {"ratio": 0.5}, train)


@pytest.mark.parametrize("kind", KINDS)
def test_training_gives_the_loss_the_draws_of_its_sampler_and_their_log_q(kind):
    train = TRAINS["an exact filter"]
    settings = FitSettings(
        epochs=2, batch_size=37, negatives=5, valid_every=1, metric="ndcg_5", cutoffs=(5,), weight_decay=0.1, seed=1
    )
    seen = []

    class Watched(SL):
        def compute(self, batch):
            seen.append((batch.user, batch.neg_item, batch.log_q))
            return super().compute(batch)

    loss = Watched(log_q=True)
    loss.needs = frozenset({"neg_item", "log_q", "user"})
    torch.manual_seed(0)
    backbone = MF(train.n_users, train.n_items, dim=4)
    before = backbone.user.detach().clone()
    sampler = sampler_of(kind, train)
    valid = Interactions(torch.tensor([0, 1]), torch.tensor([59, 58]), train.n_users, train.n_items)
    result = fit(backbone, loss, train, valid, settings, sampler=sampler)
    assert all(math.isfinite(validation.loss) for validation in result.history)
    assert not torch.equal(backbone.user, before)
    step = 0
    for epoch in (1, 2):
        order = permutation(len(train), stream_key(1, epoch, "order 0"))
        for start in range(0, len(train), 37):
            rows = order[start : start + 37]
            positions, batch = torch.arange(start, start + len(rows)), WholeBatch(train.item[rows], start)
            drawn = sampler.sample(train.user[rows], positions, 5, stream_key(1, epoch, "negatives 0"), batch)
            users, negatives, log_q = seen[step]
            assert torch.equal(users, train.user[rows])
            assert torch.equal(negatives, drawn)
            assert torch.equal(log_q, sampler.log_q(users, drawn))
            assert bool(log_q.isfinite().all())
            step += 1
    assert step == len(seen)


@pytest.mark.parametrize("user", [-1, 3])
def test_a_user_who_is_not_there_is_refused(user):
    train = interactions([[0], [1], [2]], 9)
    with pytest.raises((IndexError, ValueError)):
        UniformNegatives(train).sample(torch.tensor([0, user]), torch.arange(2), 4, key=1)


def test_users_of_another_integer_type_draw_the_same():
    train = interactions([[0], [1], [2]], 9)
    sampler, users = UniformNegatives(train), torch.tensor([2, 0, 1])
    expected = sampler.sample(users, torch.arange(3), 50, key=1)
    assert torch.equal(sampler.sample(users.int(), torch.arange(3), 50, key=1), expected)
