"""The calibration error, and its interval: the errors under which rows may well have such gaps as were seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seedling.evaluate.intervals import MOST_SIZES
from seedling.stats.statistics import Estimate, Floats, Ints

PLACES, HALVINGS = 16, 6  # of an interval's end, where it is looked for


def calibration_error(
    probabilities: Floats,
    truth: Ints,
    groups: NDArray[np.str_],
    *,
    bins: int,
    draws: int,
    confidence: float,
    rng: np.random.Generator,
) -> Estimate:
    """Expected calibration error, |confidence - accuracy| over equal-width bins of confidence weighted by rows, without what chance adds.

    Gaps of few rows are never 0, so the plain sum is too large, and a bootstrap of it larger. Here the gaps are scaled, rows are drawn that are as
    often right as that says, and the value is the error under which half of the draws have no larger sum than the one seen. The interval holds the
    errors that a test does not refuse, of the gaps that were seen, scaled, and of all bins surer, or less sure, than right by the same. Of no error
    only a large sum speaks against it, so there all of the test's share lies on that side; it moves to both, as the draws leave those without an
    error behind (after Feldman and Cousins 1998). Rows of a group may be all alike or each its own: what refuses less counts.
    """
    surest = probabilities.max(axis=1)
    right = (probabilities.argmax(axis=1) == truth).astype(np.float64)
    _, place = np.unique(np.minimum((surest * bins).astype(int), bins - 1), return_inverse=True)
    rows = np.bincount(place).astype(np.float64)
    said, gaps = (np.bincount(place, weights=one) / rows for one in (surest, surest - right))
    seed, even = int(rng.integers(2**31)), np.ones(len(rows))
    tests = [
        _Test(rows, said, gaps, way, design, draws, seed, (1 - confidence) / 2)
        for way in (gaps, even, -even)
        for design in _groups_in_bins(place, groups)
    ]
    value = tests[0].median  # of the gaps that were seen, groups alike
    return Estimate(value, min(value, *(one.smallest for one in tests)), max(value, *(one.largest for one in tests)))


class _Shares(NamedTuple):
    """Of draws under one error: with no smaller sum than the one seen, with no larger one, and the test's share on the latter side."""

    no_smaller: float
    no_larger: float
    tail: float


@dataclass(frozen=True)
class _Test:
    """Of ever larger errors in one direction: which are refused, as the rows drawn under them hardly ever have such a sum of gaps as was seen.

    rows, said, gaps, way: (n_bins,), how many rows there are, their mean confidence, what it is off by as seen, and the direction; design: (n_bins,)
    sizes of groups and how many there are of each, the rows of a group being alike; tail: the share of draws on either side that refuses.
    """

    rows: Floats
    said: Floats
    gaps: Floats
    way: Floats
    design: Sequence[tuple[Floats, Ints]]
    draws: int
    seed: int
    tail: float

    @property
    def smallest(self) -> float:
        """The largest error that the sum seen is too large for."""
        return self._last(lambda found: found.no_smaller <= 2 * self.tail - found.tail)

    @property
    def median(self) -> float:
        """The largest error under which half of the draws have no larger sum."""
        return self._last(lambda found: found.no_larger > 0.5)

    @property
    def largest(self) -> float:
        """The largest error that is not refused."""
        return self._last(lambda found: found.no_larger > found.tail)

    def _last(self, holds: Callable[[_Shares], bool]) -> float:
        """The error furthest away for which this holds; 0 where it does nowhere."""
        tried = np.flatnonzero([holds(found) for found in self._at_places])
        if not len(tried):
            return 0.0
        low, high = self._places[tried[-1]], self._places[min(tried[-1] + 1, len(self._places) - 1)]
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if holds(self._shares(middle)) else (low, middle)
        return float(self._sum(self.said - self._accuracy((low + high) / 2)))

    @cached_property
    def _places(self) -> Floats:
        reach = 1 / max(float(self._sum(self.way)), 1e-3)  # an error of 1, were nothing cut off
        return np.concatenate([[0.0], reach * np.geomspace(0.002, 1.0, PLACES)])

    @cached_property
    def _at_places(self) -> list[_Shares]:
        return [self._shares(float(one)) for one in self._places]

    @cached_property
    def _usual(self) -> float:
        """The median sum where nothing is off."""
        return float(np.median(self._drawn(0.0)))

    def _shares(self, far: float) -> _Shares:
        sums, seen = self._drawn(far), self._sum(self.gaps)
        tail = self.tail * (1 - 2 * min(0.5, float((sums <= self._usual).mean())))
        return _Shares(float((sums >= seen - 1e-12).mean()), float((sums <= seen + 1e-12).mean()), tail)

    def _drawn(self, far: float) -> Floats:
        """(draws,): the plain sums; the same chance wherever, so that ends can be searched for."""
        rng, hits = np.random.default_rng(self.seed), np.zeros((self.draws, len(self.rows)))
        for size, many in self.design:
            hits += size * rng.binomial(many, self._accuracy(far), size=hits.shape)
        return self._sum(self.said - hits / self.rows)

    def _accuracy(self, far: float) -> Floats:
        return np.clip(self.said - far * self.way, 0.0, 1.0)

    def _sum(self, gaps: Floats) -> Floats:
        """Of gaps a bin, weighted by its rows; (..., n_bins) to (...)."""
        return np.asarray((self.rows / self.rows.sum() * np.abs(gaps)).sum(axis=-1))


def _groups_in_bins(place: NDArray[np.intp], groups: NDArray[np.str_]) -> list[list[tuple[Floats, Ints]]]:
    """Rows of a bin as they are drawn: those of a group alike, and each its own; (n_bins,) sizes, and how many there are of each."""
    rows = np.bincount(place)
    bins, alone = len(rows), [(np.ones(len(rows)), rows.astype(np.int64))]
    _, where = np.unique(groups, return_inverse=True)
    in_both, sizes = np.unique(where * bins + place, return_counts=True)
    of = in_both % bins
    drawn = np.unique(sizes)
    if len(drawn) == 1 and drawn[0] == 1:
        return [alone]
    if len(drawn) > MOST_SIZES:  # as many groups of one size, worth the same
        many = np.maximum(1, np.round(rows**2 / np.bincount(of, weights=sizes.astype(np.float64) ** 2)))
        return [[(rows / many, many.astype(np.int64))], alone]
    of_sizes = [(np.full(bins, float(one)), np.bincount(of[sizes == one], minlength=bins)) for one in drawn]
    return [[(size, many.astype(np.int64)) for size, many in of_sizes], alone]
