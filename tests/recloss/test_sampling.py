"""Negatives: never a positive, uniform over the rest, the same for any batching."""

import math

import pytest
import torch

from recloss.interactions import Interactions
from recloss.sampling import UniformNegatives


def interactions(positives: list[list[int]], n_items: int) -> Interactions:
    user = torch.tensor([u for u, items in enumerate(positives) for _ in items], dtype=torch.int64)
    item = torch.tensor([i for items in positives for i in items], dtype=torch.int64)
    return Interactions(user, item, len(positives), n_items)


def some_items(count: int, n_items: int, seed: int) -> list[int]:
    return torch.randperm(n_items, generator=torch.Generator().manual_seed(seed))[:count].tolist()


def assert_uniform(draws: torch.Tensor, positives: list[int], n_items: int) -> None:
    """A chi-square statistic within five standard deviations of its mean, on the items outside ``positives``."""
    counts = torch.bincount(draws.flatten(), minlength=n_items).double()
    assert float(counts[positives].sum()) == 0
    free = torch.ones(n_items, dtype=torch.bool)
    free[positives] = False
    counts = counts[free]
    expected = draws.numel() / len(counts)
    assert expected >= 5, "too few draws for the statistic"
    statistic, degrees = float(((counts - expected) ** 2 / expected).sum()), len(counts) - 1
    assert abs(statistic - degrees) <= 5 * math.sqrt(2 * degrees) + 5 * (degrees < 10)


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
