"""The counter-based generator: exactly splitmix64, and statistically uniform and uncorrelated."""

import math
from itertools import pairwise

import pytest
import torch

from recloss.randomness import integers, permutation, reals, row_states, stream_key

MASK = 2**64 - 1
GAMMA = 0x9E3779B97F4A7C15


def mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def unsigned(states: torch.Tensor) -> list[int]:
    return [state & MASK for state in states.tolist()]


def test_published_outputs_of_splitmix64():
    assert unsigned(row_states(0, torch.tensor([1]))) == [0xE220A8397B1DCDAF]
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert unsigned(row_states(1234567, torch.arange(1, 6))) == published


@pytest.mark.parametrize("key", [0, 1, 2**63 - 1, 0x5DEECE66D1234567])
def test_states_and_integers_equal_big_integer_arithmetic(key):
    positions = [0, 1, 2, 1000, 10**6, 2**31, 2**40 + 3]
    counters = [0, 1, 999, (16 << 32) + 5, (17 << 32) + 2**31]
    highs = [1, 2, 3, 1000, 40981, 2**31 - 1]
    states = row_states(key, torch.tensor(positions))
    expected = [mix((position * GAMMA + key) & MASK) for position in positions]
    assert unsigned(states) == expected
    for high in highs:
        drawn = integers(states[:, None], torch.tensor(counters), high)
        by_hand = [[((mix((s + c * GAMMA) & MASK) >> 32) * high) >> 32 for c in counters] for s in expected]
        assert drawn.tolist() == by_hand
    each = integers(states, torch.tensor(7), torch.arange(2, 9))
    by_hand = [((mix((s + 7 * GAMMA) & MASK) >> 32) * h) >> 32 for s, h in zip(expected, range(2, 9), strict=True)]
    assert each.tolist() == by_hand


def test_reals_are_the_48_high_bits_and_a_product_stays_below_its_integer():
    positions, counters = [0, 1, 2**40 + 3], [0, 5, (17 << 32) + 2**31]
    drawn = reals(row_states(9, torch.tensor(positions))[:, None], torch.tensor(counters))
    states = [mix((position * GAMMA + 9) & MASK) for position in positions]
    assert drawn.tolist() == [[(mix((s + c * GAMMA) & MASK) >> 16) / 2**48 for c in counters] for s in states]
    largest = torch.tensor(1 - 2**-48, dtype=torch.float64)
    assert all(
        int((largest * (2**power + add)).to(torch.int64)) < 2**power + add for power in (40, 43) for add in (-1, 0, 1)
    )


@pytest.mark.parametrize("high", [1, 2, 7, 1000])
def test_integers_are_uniform_over_their_range(high):
    n = 200_000
    draws = integers(row_states(5, torch.arange(n // 100))[:, None], torch.arange(100), high)
    assert (int(draws.min()), int(draws.max())) == (0, high - 1)
    counts = torch.bincount(draws.flatten(), minlength=high).double()
    if high > 1:
        statistic = float(((counts - n / high) ** 2 / (n / high)).sum())
        assert abs(statistic - (high - 1)) < 5 * math.sqrt(2 * (high - 1)) + 5
    deviation = math.sqrt((high**2 - 1) / 12)
    assert abs(float(draws.double().mean()) - (high - 1) / 2) <= 5 * deviation / math.sqrt(n)
    assert float(draws.double().var()) == pytest.approx(deviation**2, rel=0.02)


def test_neighbouring_columns_positions_and_keys_are_uncorrelated():
    def uniform(key):
        table = integers(row_states(key, torch.arange(400))[:, None], torch.arange(400), 2**20).double()
        return (table - table.mean()) / table.std()

    table, bound = uniform(8), 5 / 400
    assert abs(float((table[:, 1:] * table[:, :-1]).mean())) < bound
    assert abs(float((table[1:] * table[:-1]).mean())) < bound
    assert abs(float((table[1:, 1:] * table[:-1, :-1]).mean())) < bound
    assert abs(float((table[:, 100:] * table[:, :-100]).mean())) < bound
    for other in (9, 8 + 2**32, 8 ^ (1 << 62)):
        assert abs(float((table * uniform(other)).mean())) < bound


def test_pairs_of_neighbours_are_jointly_uniform():
    draws = integers(row_states(13, torch.arange(500))[:, None], torch.arange(200), 8)
    for left, right in ((draws[:, 1:], draws[:, :-1]), (draws[1:], draws[:-1])):
        cells = torch.bincount((8 * left + right).flatten(), minlength=64).double()
        expected = left.numel() / 64
        assert float(((cells - expected) ** 2 / expected).sum()) < 63 + 5 * math.sqrt(2 * 63)


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_a_permutation_holds_each_index_once(n):
    assert sorted(permutation(n, 3).tolist()) == list(range(n))


def test_permutations_differ_by_key_repeat_for_it_and_leave_the_global_generator():
    before = torch.get_rng_state()
    orders = [tuple(permutation(50, key).tolist()) for key in (1, 1, 2, 2**63 - 1)]
    assert orders[0] == orders[1]
    assert len(set(orders)) == 3
    assert torch.equal(torch.get_rng_state(), before)


def test_permutations_put_every_item_everywhere_equally_often():
    n, draws = 6, 6000
    table = torch.stack([permutation(n, key) for key in range(draws)])
    counts = torch.stack([torch.bincount(table[:, place], minlength=n) for place in range(n)]).double()
    statistic = float(((counts - draws / n) ** 2 / (draws / n)).sum())
    assert statistic < (n - 1) ** 2 + 5 * math.sqrt(2 * (n - 1) ** 2)


def test_stream_keys_are_63_bits_and_tell_seed_epoch_and_purpose_apart():
    asked = [(s, e, p) for s in (0, 1, 11) for e in (0, 1, 11) for p in ("order 0", "negatives 0", "threshold", "1")]
    keys = [stream_key(*request) for request in asked]
    assert len(set(keys)) == len(asked)
    assert keys == [stream_key(*request) for request in asked]
    assert all(0 <= key < 2**63 for key in keys)
    assert max(keys) > 2**62
    assert not any(b - a == 1 for a, b in pairwise(sorted(keys)))


def test_streams_never_change_between_versions():
    """Other numbers here mean that checkpoints and results of earlier versions can no longer be replayed."""
    key = stream_key(0, 1, "order 0")
    assert key == 691290438044919810
    draws = integers(row_states(key, torch.arange(3))[:, None], torch.arange(4), 1000)
    assert draws.tolist() == [[327, 714, 871, 790], [96, 765, 32, 644], [73, 484, 882, 620]]
