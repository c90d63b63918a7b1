"""Rows that are the same, or nearly so: exact copies by id, near-duplicates by perceptual hash, or by what texts share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

BAND_BITS = 16  # 64-bit hashes that differ in at most 3 bits share one of their four bands (pigeonhole)
WHOLE_BUCKET = 2000  # beyond, a row is compared with its neighbors in hash order only, so that time stays near-linear
WINDOW = 200
GRAM = 5  # characters
BANDS, ROWS_A_BAND = 16, 5
SMALL_BUCKET, NEAREST = 200, 20  # as WHOLE_BUCKET and WINDOW, of texts
SLACK = 0.15  # three standard errors of a similarity that is estimated from 80 hashes
CHARACTERS_AT_ONCE = 500_000
GRAM_FACTOR = np.uint64(0x9E3779B97F4A7C15)
BAND_FACTORS = np.array([GRAM_FACTOR], dtype=np.uint64) ** np.arange(1, ROWS_A_BAND + 1, dtype=np.uint64)
MIXERS = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))


class Clusters:
    """Disjoint sets (Tarjan 1975) over row numbers; a set's root is its smallest member.

    labels: where given, `settled` keeps sets apart that hold different labels, also by way of rows that have none.
    """

    def __init__(self, size: int, labels: Sequence[str | None] | None = None) -> None:
        self._parent = list(range(size))
        self._held = {row: {label} for row, label in enumerate(labels or []) if label is not None}

    def find(self, one: int) -> int:
        """The root of the set that `one` is in."""
        while self._parent[one] != one:
            self._parent[one] = self._parent[self._parent[one]]
            one = self._parent[one]
        return one

    def join(self, one: int, other: int) -> None:
        """Makes one set of two, whatever they hold."""
        low, high = sorted((self.find(one), self.find(other)))
        self._parent[high] = low
        if low != high and high in self._held:
            self._held[low] = self._held.get(low, set()) | self._held.pop(high)

    def settled(self, one: int, other: int) -> bool:
        """Whether nothing is to be decided: they are in one set already, or their sets hold different labels."""
        mine, its = self.find(one), self.find(other)
        return mine == its or len(self._held.get(mine, set()) | self._held.get(its, set())) > 1

    def members(self) -> list[list[int]]:
        """The sets, single rows among them, each in rising order."""
        found: dict[int, list[int]] = defaultdict(list)
        for number in range(len(self._parent)):
            found[self.find(number)].append(number)
        return list(found.values())


def equal_texts(normalized: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs of row numbers whose normalized texts are equal, each with the first of its kind."""
    first: dict[str, int] = {}
    for number, text in enumerate(normalized):
        if first.setdefault(text, number) != number:
            yield first[text], number


def near_duplicate_texts(
    normalized: Sequence[str], similarity: float, settled: Callable[[int, int], bool] = lambda one, other: False
) -> Iterator[tuple[int, int]]:
    """Pairs of row numbers whose normalized texts differ, and share so much of their character 5-grams: Jaccard's similarity of at
    least `similarity`; of equal texts the first stands for all.

    MinHash (Broder 1997) in bands finds candidates, which are then compared exactly. Two texts that are 0.8 alike are candidates with a
    probability of 0.998. settled: pairs of which nothing is to be known; it may change while the pairs are taken.
    """
    first = {text: number for number, text in reversed(list(enumerate(normalized)))}
    if similarity >= 1 or len(first) < 2:
        return
    numbers = np.sort(np.fromiter(first.values(), dtype=np.intp))
    texts = [normalized[number] for number in numbers]
    signatures = np.concatenate([minhash(texts[first:last]) for first, last in _batches(texts)])
    decided: set[tuple[int, int]] = set()
    for band in range(BANDS):
        own = signatures[:, band * ROWS_A_BAND : (band + 1) * ROWS_A_BAND]
        keys = (own.astype(np.uint64) * BAND_FACTORS).sum(axis=1, dtype=np.uint64)
        order = np.argsort(keys, kind="stable")
        for bucket in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
            if len(bucket) > 1:
                for one, other in _likely_pairs(bucket, signatures, similarity):
                    pair = (int(numbers[one]), int(numbers[other]))
                    if settled(*pair) or pair in decided:
                        continue
                    decided.add(pair)
                    if jaccard(*(np.unique(hashed_grams([normalized[number]])[0]) for number in pair)) >= similarity:
                        yield pair


def _likely_pairs(
    bucket: NDArray[np.intp], signatures: NDArray[np.uint32], similarity: float
) -> Iterator[tuple[int, int]]:
    """The pairs of a bucket whose signatures say that they may be alike enough, the smaller number first."""
    for one, others in _candidates(np.sort(bucket), SMALL_BUCKET, NEAREST):
        likely = (signatures[others] == signatures[one]).mean(axis=1) >= similarity - SLACK
        yield from ((int(one), int(other)) for other in others[likely])


def _batches(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """First and last of consecutive texts that have so many characters together."""
    begins, held = 0, 0
    for number, text in enumerate(texts):
        held += len(text)
        if held >= CHARACTERS_AT_ONCE or number == len(texts) - 1:
            yield begins, number + 1
            begins, held = number + 1, 0


def minhash(texts: Sequence[str]) -> NDArray[np.uint32]:
    """(n_texts, BANDS × ROWS_A_BAND): of each text's character 5-grams the smallest value under each hash function, its upper half."""
    hashed, starts = hashed_grams(texts)
    rng = np.random.default_rng(0)
    odd, added = (rng.integers(0, 2**64, BANDS * ROWS_A_BAND, dtype=np.uint64) for _ in range(2))
    columns = [
        np.minimum.reduceat(_mixed(hashed * (one | np.uint64(1)) + other), starts)
        for one, other in zip(odd, added, strict=True)
    ]
    return (np.stack(columns, axis=1) >> np.uint64(32)).astype(np.uint32)


def hashed_grams(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """The texts' character 5-grams as numbers, one text behind the other, and where each text's begin. A shorter text is one gram."""
    padded = [text if len(text) >= GRAM else text.ljust(GRAM, "\0") for text in texts]
    points = np.frombuffer("".join(padded).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    lengths = np.array([len(text) for text in padded])
    ends = np.cumsum(lengths)
    within = np.ones(len(points), dtype=bool)  # a gram begins at each point but a text's last four
    for step in range(1, GRAM):
        within[ends - step] = False
    begins = np.flatnonzero(within)
    hashed = np.zeros(len(begins), dtype=np.uint64)
    for step in range(GRAM):
        hashed = hashed * GRAM_FACTOR + points[begins + step]
    counts = lengths - GRAM + 1
    return _mixed(hashed), np.cumsum(counts) - counts


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Every bit of the result depends on every bit given (the finalizer of MurmurHash3, Appleby 2011)."""
    for factor in MIXERS:
        values = (values ^ (values >> np.uint64(33))) * factor
    return values ^ (values >> np.uint64(33))


def jaccard(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> float:
    """What two sorted sets share, over what they have together."""
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)


def near_duplicate_images(
    hashes: NDArray[np.uint64], thumbnails: NDArray[np.uint8], *, bits: int, difference: float
) -> Iterator[tuple[int, int]]:
    """Pairs of row numbers whose hashes differ in at most `bits` bits and whose thumbnails differ in the mean by at
    most `difference` gray levels: the second look keeps images with a plain background apart.

    hashes: (n,); thumbnails: (n, values), 0 to 255; bits: 0 to 3.
    """
    for band in range(64 // BAND_BITS):
        keys = (hashes >> np.uint64(band * BAND_BITS)) & np.uint64(2**BAND_BITS - 1)
        order = np.lexsort((hashes, keys))
        edges = np.flatnonzero(np.diff(keys[order])) + 1
        for bucket in np.split(order, edges):
            for one, others in _candidates(bucket, WHOLE_BUCKET, WINDOW):
                near = np.bitwise_count(hashes[others] ^ hashes[one]) <= bits
                close = others[near]
                apart = np.abs(thumbnails[close].astype(np.int16) - thumbnails[one].astype(np.int16)).mean(axis=1)
                yield from ((int(one), int(other)) for other in close[apart <= difference])


def _candidates(bucket: NDArray[np.intp], whole: int, window: int) -> Iterator[tuple[np.intp, NDArray[np.intp]]]:
    """Each row of the bucket with those behind it: all of them up to `whole` rows, else so many as `window`."""
    reach = len(bucket) if len(bucket) <= whole else window
    for place in range(len(bucket) - 1):
        yield bucket[place], bucket[place + 1 : place + 1 + reach]


def clusters(size: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """The sets of row numbers that the pairs connect, single rows among them, each in rising order."""
    sets = Clusters(size)
    for one, other in pairs:
        sets.join(one, other)
    return sets.members()
