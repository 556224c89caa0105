import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.prepare import draws as random


def test_draws_are_splitmix64():
    # the first output of the published generator (java.util.SplittableRandom, xoshiro's seeder) for the seed 0
    assert int(random._mix(np.array(0, np.uint64))) == 0xE220A8397B1DCDAF

    def mix(x):
        x = (x + 0x9E3779B97F4A7C15) % 2**64
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        return x ^ x >> 31

    users, items = np.array([0, 7, 2**31 - 1], np.int32), np.array([5, 0, 2**31 - 1], np.int32)
    expected = [mix(mix(mix(42) + u) + i) for u, i in zip(users.tolist(), items.tolist(), strict=True)]
    assert random.draws(42, users, items).tolist() == expected


def test_draws_are_uniform():
    users, items = (grid.ravel().astype(np.int32) for grid in np.meshgrid(np.arange(300), np.arange(300)))
    drawn = random.draws(0, users, items) / 2.0**64
    assert abs(drawn.mean() - 0.5) < 0.004  # four standard errors
    assert abs(np.corrcoef(drawn, users)[0, 1]) < 0.014
    assert abs(np.corrcoef(drawn, random.draws(1, users, items))[0, 1]) < 0.014
    assert len(np.unique(drawn)) == len(drawn)


def test_streams_are_independent():
    users, items = (grid.ravel().astype(np.int32) for grid in np.meshgrid(np.arange(300), np.arange(300)))
    seeds = [0, random.stream(0, "a"), random.stream(0, "b"), random.stream(1, "a")]
    drawn = [random.draws(seed, users, items) / 2.0**64 for seed in seeds]
    assert np.abs(np.corrcoef(drawn) - np.eye(4)).max() < 0.014
    assert random.stream(0, "a") == 0x28486F056789E9D7


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(1, 2**32 - 1)), min_size=1))
def test_below_is_the_high_word_of_the_product(numbers):
    drawn, n = (np.array(column, np.uint64) for column in zip(*numbers, strict=True))
    assert random.below(drawn, n).tolist() == [d * m >> 64 for d, m in numbers]


@pytest.mark.parametrize("n", [1, 2, 10])
def test_below_a_number(n):
    assert random.below(np.array([0, 2**63, 2**64 - 1], np.uint64), n).tolist() == [0, n // 2, n - 1]
