"""Find near-duplicates: images by perceptual hash and thumbnail, texts by the character 5-grams that they share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

BAND_BITS = 16  # 64-bit hashes that differ in at most 3 bits agree in at least one of their four bands (pigeonhole)
MAX_BUCKET_IMAGES = 2000  # in a larger bucket, each row is compared only with its neighbors in hash order
IMAGE_WINDOW = 200  # neighbors compared in a large bucket, so that the time stays near-linear
GRAM = 5  # characters
BANDS, HASHES_PER_BAND = 16, 5
MAX_BUCKET_TEXTS, TEXT_WINDOW = 200, 20  # as MAX_BUCKET_IMAGES and IMAGE_WINDOW
SIMILARITY_SLACK = 0.15  # three standard errors of a similarity that is estimated from 80 hashes
BATCH_CHARACTERS = 500_000
GRAM_FACTOR = np.uint64(0x9E3779B97F4A7C15)
BAND_FACTORS = np.array([GRAM_FACTOR], dtype=np.uint64) ** np.arange(1, HASHES_PER_BAND + 1, dtype=np.uint64)
MIXERS = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))


class Clusters:
    """Disjoint sets (Tarjan 1975) of row numbers. A set's root is its smallest member.

    labels: if present, `settled` keeps sets with different labels apart, also if rows without a label connect them.
    """

    def __init__(self, size: int, labels: Sequence[str | None] | None = None) -> None:
        self._parent = list(range(size))
        self._labels = {row: {label} for row, label in enumerate(labels or []) if label is not None}

    def find(self, row: int) -> int:
        """Return the root of the row's set."""
        while self._parent[row] != row:
            self._parent[row] = self._parent[self._parent[row]]
            row = self._parent[row]
        return row

    def join(self, row: int, other: int) -> None:
        """Join two rows' sets, whatever their labels."""
        low, high = sorted((self.find(row), self.find(other)))
        self._parent[high] = low
        if low != high and high in self._labels:
            self._labels[low] = self._labels.get(low, set()) | self._labels.pop(high)

    def settled(self, row: int, other: int) -> bool:
        """Whether two rows need no comparison: they are in the same set, or their sets have different labels."""
        root, other_root = self.find(row), self.find(other)
        return root == other_root or len(self._labels.get(root, set()) | self._labels.get(other_root, set())) > 1

    def members(self) -> list[list[int]]:
        """The sets, including those of a single row, each in ascending order."""
        rows_by_root: dict[int, list[int]] = defaultdict(list)
        for row in range(len(self._parent)):
            rows_by_root[self.find(row)].append(row)
        return list(rows_by_root.values())


def equal_texts(normalized: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs of row numbers with equal normalized texts: each later row with the first one."""
    first: dict[str, int] = {}
    for number, text in enumerate(normalized):
        if first.setdefault(text, number) != number:
            yield first[text], number


def near_duplicate_texts(
    normalized: Sequence[str], similarity: float, settled: Callable[[int, int], bool] = lambda row, other: False
) -> Iterator[tuple[int, int]]:
    """Pairs of row numbers whose normalized texts differ but are similar; the first of equal texts represents them all.

    The similarity is Jaccard's, |A ∩ B| / |A ∪ B| of the sets of character 5-grams. MinHash (Broder 1997) in bands
    finds candidates, which are then compared exactly. Two texts with the similarity s are candidates with the
    probability 1 - (1 - s^HASHES_PER_BAND)^BANDS, 0.998 for s = 0.8.

    similarity: the minimum; settled: pairs to skip, whose answer may change while the pairs are consumed.
    """
    first = {text: number for number, text in reversed(list(enumerate(normalized)))}
    if similarity >= 1 or len(first) < 2:
        return
    numbers = np.sort(np.fromiter(first.values(), dtype=np.intp))
    texts = [normalized[number] for number in numbers]
    signatures = np.concatenate([minhash(texts[first:last]) for first, last in _batches(texts)])
    compared: set[tuple[int, int]] = set()
    for band in range(BANDS):
        band_hashes = signatures[:, band * HASHES_PER_BAND : (band + 1) * HASHES_PER_BAND]
        keys = (band_hashes.astype(np.uint64) * BAND_FACTORS).sum(axis=1, dtype=np.uint64)
        order = np.argsort(keys, kind="stable")
        for bucket in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
            if len(bucket) > 1:
                for position, other in _likely_pairs(bucket, signatures, similarity):
                    pair = (int(numbers[position]), int(numbers[other]))
                    if settled(*pair) or pair in compared:
                        continue
                    compared.add(pair)
                    if jaccard(*(np.unique(hashed_grams([normalized[number]])[0]) for number in pair)) >= similarity:
                        yield pair


def _likely_pairs(
    bucket: NDArray[np.intp], signatures: NDArray[np.uint32], similarity: float
) -> Iterator[tuple[int, int]]:
    """The pairs of a bucket whose signatures suggest that they are similar enough, the smaller number first."""
    for position, others in _candidates(np.sort(bucket), MAX_BUCKET_TEXTS, TEXT_WINDOW):
        likely = (signatures[others] == signatures[position]).mean(axis=1) >= similarity - SIMILARITY_SLACK
        yield from ((int(position), int(other)) for other in others[likely])


def _batches(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Start and end of consecutive texts with about `BATCH_CHARACTERS` together."""
    start, characters = 0, 0
    for number, text in enumerate(texts):
        characters += len(text)
        if characters >= BATCH_CHARACTERS or number == len(texts) - 1:
            yield start, number + 1
            start, characters = number + 1, 0


def minhash(texts: Sequence[str]) -> NDArray[np.uint32]:
    """(n_texts, BANDS × HASHES_PER_BAND): each hash function's minimum over a text's 5-grams, its upper 32 bits."""
    hashed, starts = hashed_grams(texts)
    rng = np.random.default_rng(0)
    factors, offsets = (rng.integers(0, 2**64, BANDS * HASHES_PER_BAND, dtype=np.uint64) for _ in range(2))
    columns = [
        np.minimum.reduceat(_mixed(hashed * (factor | np.uint64(1)) + offset), starts)
        for factor, offset in zip(factors, offsets, strict=True)
    ]
    return (np.stack(columns, axis=1) >> np.uint64(32)).astype(np.uint32)


def hashed_grams(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """The hashed character 5-grams of all texts in sequence, and the position where each text's grams start.

    A text with fewer than five characters is a single gram.
    """
    padded = [text if len(text) >= GRAM else text.ljust(GRAM, "\0") for text in texts]
    points = np.frombuffer("".join(padded).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    lengths = np.array([len(text) for text in padded])
    ends = np.cumsum(lengths)
    starts_gram = np.ones(len(points), dtype=bool)  # each character starts a gram, except the last four of a text
    for step in range(1, GRAM):
        starts_gram[ends - step] = False
    gram_starts = np.flatnonzero(starts_gram)
    hashed = np.zeros(len(gram_starts), dtype=np.uint64)
    for step in range(GRAM):
        hashed = hashed * GRAM_FACTOR + points[gram_starts + step]
    counts = lengths - GRAM + 1
    return _mixed(hashed), np.cumsum(counts) - counts


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix the bits so that each output bit depends on every input bit (finalizer of MurmurHash3, Appleby 2011)."""
    for factor in MIXERS:
        values = (values ^ (values >> np.uint64(33))) * factor
    return values ^ (values >> np.uint64(33))


def jaccard(grams: NDArray[np.uint64], other: NDArray[np.uint64]) -> float:
    """The size of the intersection of two sorted sets divided by the size of their union."""
    common = len(np.intersect1d(grams, other, assume_unique=True))
    return common / (len(grams) + len(other) - common)


def near_duplicate_images(
    hashes: NDArray[np.uint64], thumbnails: NDArray[np.uint8], *, bits: int, difference: float
) -> Iterator[tuple[int, int]]:
    """Pairs of row numbers whose hashes differ in at most `bits` bits and whose thumbnails are similar.

    The thumbnails differ by at most `difference` gray levels on average; this second check keeps different images with
    a plain background apart.

    hashes: (n,); thumbnails: (n, values), 0 to 255; bits: 0 to 3.
    """
    for band in range(64 // BAND_BITS):
        keys = (hashes >> np.uint64(band * BAND_BITS)) & np.uint64(2**BAND_BITS - 1)
        order = np.lexsort((hashes, keys))
        edges = np.flatnonzero(np.diff(keys[order])) + 1
        for bucket in np.split(order, edges):
            for row, others in _candidates(bucket, MAX_BUCKET_IMAGES, IMAGE_WINDOW):
                near = others[np.bitwise_count(hashes[others] ^ hashes[row]) <= bits]
                gaps = np.abs(thumbnails[near].astype(np.int16) - thumbnails[row].astype(np.int16)).mean(axis=1)
                yield from ((int(row), int(other)) for other in near[gaps <= difference])


def _candidates(bucket: NDArray[np.intp], max_rows: int, window: int) -> Iterator[tuple[np.intp, NDArray[np.intp]]]:
    """Each row of the bucket with the rows after it: all in a bucket of up to `max_rows`, else `window` rows."""
    reach = len(bucket) if len(bucket) <= max_rows else window
    for position in range(len(bucket) - 1):
        yield bucket[position], bucket[position + 1 : position + 1 + reach]
