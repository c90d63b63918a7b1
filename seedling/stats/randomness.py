"""Randomness as an argument: every draw comes from a seed and from what is drawn for, never from position, worker or time."""

from __future__ import annotations

import struct
from hashlib import blake2b

import numpy as np

SEED_AND_COUNTER = struct.Struct("<2Q")
AT_ONCE = struct.Struct("<8Q")  # what one hash gives: eight numbers of 64 bits
TO_UNIT = 2.0**-53


def derived_seed(seed: int, *names: object) -> int:
    """A 63-bit seed that depends on `seed` and on the names (a row id, a fold) and on nothing else."""
    text = "\x1f".join(str(name) for name in (seed, *names))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *names: object) -> np.random.Generator:
    """A generator of one's own for the thing that the names spell."""
    return np.random.default_rng(derived_seed(seed, *names))


def how_many(a_row: float, seed: int, *names: object) -> int:
    """`a_row` in the mean over rows: its whole part, and one more with the chance of the rest."""
    return int(a_row) + int(generator(seed, *names).random() < a_row % 1)


class Draws:
    """Draws from a seed, 0 to 2^64 - 1, where a few are wanted: Python's own generator takes longer to begin than to draw a hundred.

    Numbers are those of BLAKE2b over the seed and a counter, 53 bits each.
    """

    __slots__ = ("_counter", "_left", "_seed")

    def __init__(self, seed: int) -> None:
        self._seed, self._counter = seed, 0
        self._left: list[int] = []

    def random(self) -> float:
        """The next one, from 0 to below 1."""
        if not self._left:
            self._draw()
        return (self._left.pop() >> 11) * TO_UNIT

    def below(self, many: int) -> int:
        """The next one as a whole number, from 0 to below `many`."""
        if not self._left:
            self._draw()
        return int((self._left.pop() >> 11) * TO_UNIT * many)

    def _draw(self) -> None:
        self._left = list(AT_ONCE.unpack(blake2b(SEED_AND_COUNTER.pack(self._seed, self._counter)).digest()))
        self._counter += 1
