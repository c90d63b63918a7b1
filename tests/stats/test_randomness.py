"""Random draws: they depend only on the seed, and they are uniform."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from scipy.stats import kstest

from seedling.stats.randomness import Draws


def test_draws_are_the_hash_of_seed_and_counter() -> None:
    """The first number is the last eight bytes of the hash, of which the upper 53 bits are used.

    The ninth number is the first one of the next counter. A number below five is the fifth that the number is in.
    """
    draws = Draws(7)
    numbers = [draws.random() for _ in range(9)]
    for index, counter in ((0, 0), (8, 1)):
        digest = hashlib.blake2b((7).to_bytes(8, "little") + counter.to_bytes(8, "little")).digest()
        assert numbers[index] == pytest.approx(int.from_bytes(digest[56:], "little") / 2**64, abs=2**-53)
    again = Draws(7)
    assert [again.random() for _ in range(9)] == numbers
    whole = Draws(7)
    assert [whole.below(5) for _ in range(9)] == [int(5 * number) for number in numbers]


def test_draws_are_uniform_within_a_seed_and_over_neighboring_seeds() -> None:
    """The Kolmogorov-Smirnov test passes, and neighbors are not correlated."""
    draws = Draws(1)
    within = np.array([draws.random() for _ in range(4_000)])
    over = np.array([Draws(seed).random() for seed in range(4_000)])
    for numbers in (within, over):
        assert kstest(numbers, "uniform").pvalue > 0.01
        assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.05
