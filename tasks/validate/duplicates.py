"""Rows that are the same, or nearly so: exact copies by id, near-duplicates by perceptual hash or normalised text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

BAND_BITS = 16  # 64-bit hashes that differ in at most 3 bits share one of their four bands (pigeonhole)
WHOLE_BUCKET = 2000  # beyond, a row is compared with its neighbours in hash order only, so that time stays near-linear
WINDOW = 200


class Clusters:
    """Disjoint sets (Tarjan 1975) over row numbers; a set's root is its smallest member."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def find(self, one: int) -> int:
        """The root of the set that `one` is in."""
        while self._parent[one] != one:
            self._parent[one] = self._parent[self._parent[one]]
            one = self._parent[one]
        return one

    def join(self, one: int, other: int) -> None:
        """Makes one set of two."""
        low, high = sorted((self.find(one), self.find(other)))
        self._parent[high] = low


def near_duplicate_texts(normalised: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs of row numbers whose normalised texts are equal."""
    first: dict[str, int] = {}
    for number, text in enumerate(normalised):
        if first.setdefault(text, number) != number:
            yield first[text], number


def near_duplicate_images(
    hashes: NDArray[np.uint64], thumbnails: NDArray[np.uint8], *, bits: int, difference: float
) -> Iterator[tuple[int, int]]:
    """Pairs of row numbers whose hashes differ in at most `bits` bits and whose thumbnails differ in the mean by at
    most `difference` grey levels: the second look keeps pictures with a plain background apart.

    hashes: (n,); thumbnails: (n, values), 0 to 255; bits: 0 to 3.
    """
    for band in range(64 // BAND_BITS):
        keys = (hashes >> np.uint64(band * BAND_BITS)) & np.uint64(2**BAND_BITS - 1)
        order = np.lexsort((hashes, keys))
        edges = np.flatnonzero(np.diff(keys[order])) + 1
        for bucket in np.split(order, edges):
            for one, others in _candidates(bucket):
                near = np.bitwise_count(hashes[others] ^ hashes[one]) <= bits
                close = others[near]
                apart = np.abs(thumbnails[close].astype(np.int16) - thumbnails[one].astype(np.int16)).mean(axis=1)
                yield from ((int(one), int(other)) for other in close[apart <= difference])


def _candidates(bucket: NDArray[np.intp]) -> Iterator[tuple[np.intp, NDArray[np.intp]]]:
    reach = len(bucket) if len(bucket) <= WHOLE_BUCKET else WINDOW
    for place in range(len(bucket) - 1):
        yield bucket[place], bucket[place + 1 : place + 1 + reach]


def clusters(size: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """The sets of row numbers that the pairs connect, single rows among them, each in rising order."""
    sets = Clusters(size)
    for one, other in pairs:
        sets.join(one, other)
    members: dict[int, list[int]] = defaultdict(list)
    for number in range(size):
        members[sets.find(number)].append(number)
    return list(members.values())
