"""Draws: the same by their seed alone, and evenly spread."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from scipy.stats import kstest

from seedling.stats.randomness import Draws


def test_draws_are_the_hash_of_seed_and_counter() -> None:
    """The first is the last eight bytes of BLAKE2b over sixteen, of which the upper 53 bits count; the ninth is the next counter's
    first. One below five says in which fifth it lies.
    """
    draws = Draws(7)
    found = [draws.random() for _ in range(9)]
    for place, counter in ((0, 0), (8, 1)):
        digest = hashlib.blake2b((7).to_bytes(8, "little") + counter.to_bytes(8, "little")).digest()
        assert found[place] == pytest.approx(int.from_bytes(digest[56:], "little") / 2**64, abs=2**-53)
    again = Draws(7)
    assert [again.random() for _ in range(9)] == found
    whole = Draws(7)
    assert [whole.below(5) for _ in range(9)] == [int(5 * one) for one in found]


def test_draws_are_even_within_a_seed_and_over_neighboring_seeds() -> None:
    """By Kolmogorov and Smirnov's test, and neighbors do not go together."""
    draws = Draws(1)
    within = np.array([draws.random() for _ in range(4_000)])
    over = np.array([Draws(seed).random() for seed in range(4_000)])
    for found in (within, over):
        assert kstest(found, "uniform").pvalue > 0.01
        assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 0.05
