"""Random numbers that depend only on a seed and on names, never on a row's position, the worker or the time."""

from __future__ import annotations

import struct
from hashlib import blake2b

import numpy as np

SEED_AND_COUNTER = struct.Struct("<2Q")
NUMBERS_PER_HASH = struct.Struct("<8Q")  # a hash has eight numbers of 64 bits
TO_UNIT = 2.0**-53


def derived_seed(seed: int, *names: object) -> int:
    """A 63-bit seed that depends only on `seed` and on the names, for example a row id or a fold."""
    text = "\x1f".join(str(name) for name in (seed, *names))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *names: object) -> np.random.Generator:
    """A random generator seeded by `derived_seed`."""
    return np.random.default_rng(derived_seed(seed, *names))


def how_many(per_row: float, seed: int, *names: object) -> int:
    """A random integer with the mean `per_row`: its integer part, plus one with the probability of its fraction."""
    return int(per_row) + int(generator(seed, *names).random() < per_row % 1)


class Draws:
    """A fast random generator for a few numbers per seed: Python's own takes longer to start than to draw a hundred.

    The numbers have 53 bits each, from the BLAKE2b hash of the seed and a counter. seed: 0 to 2^64 - 1.
    """

    __slots__ = ("_counter", "_remaining", "_seed")

    def __init__(self, seed: int) -> None:
        self._seed, self._counter = seed, 0
        self._remaining: list[int] = []

    def random(self) -> float:
        """The next number, at least 0 and below 1."""
        if not self._remaining:
            self._draw()
        return (self._remaining.pop() >> 11) * TO_UNIT

    def below(self, limit: int) -> int:
        """The next number as an integer, at least 0 and below `limit`."""
        if not self._remaining:
            self._draw()
        return int((self._remaining.pop() >> 11) * TO_UNIT * limit)

    def _draw(self) -> None:
        content = SEED_AND_COUNTER.pack(self._seed, self._counter)
        self._remaining = list(NUMBERS_PER_HASH.unpack(blake2b(content).digest()))
        self._counter += 1
