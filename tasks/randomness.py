"""Randomness as an argument: every draw comes from a seed and from what is drawn for, never from position, worker or time."""

from __future__ import annotations

import hashlib

import numpy as np


def derived_seed(seed: int, *names: object) -> int:
    """A 63-bit seed that depends on `seed` and on the names (a row id, a fold) and on nothing else."""
    text = "\x1f".join(str(name) for name in (seed, *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *names: object) -> np.random.Generator:
    """A generator of one's own for the thing that the names spell."""
    return np.random.default_rng(derived_seed(seed, *names))
