"""The expected calibration error with a confidence interval, by inverting a test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seedling.evaluate.intervals import MAX_GROUP_SIZES
from seedling.stats.statistics import Estimate, Floats, Ints

GRID_POINTS, HALVINGS = 16, 6  # of the search for an end of the interval


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
    """Expected calibration error without the bias that chance adds, with its interval.

    The plain error is sum over bins b of n_b / n |confidence_b - accuracy_b|, over equal-width bins of confidence. It
    is biased upward, as the gaps of few rows are never 0, and a bootstrap of it is biased more. Here, rows are drawn
    with the accuracy confidence_b - scale * direction_b. The value is the error at which half of the draws have no
    larger plain error than the observed one. The interval contains the errors that a test on the plain error does not
    reject, for three directions: the observed gaps, and the same gap in all bins, upward and downward.

    At an error of 0, only a large plain error is evidence against it, so the whole level of the test is on that side.
    For larger errors it moves to both sides, as the draws depart from those at an error of 0 (after Feldman and
    Cousins 1998). Rows of a group are drawn as all alike and as independent; the wider interval is used.
    """
    binned = Bins.of(probabilities, truth, bins)
    seed, even = int(rng.integers(2**31)), np.ones(len(binned.rows))
    tests = [
        _Test(binned, direction, design, draws, seed, (1 - confidence) / 2)
        for direction in (binned.gaps, even, -even)
        for design in _groups_in_bins(binned.bin_of_row, groups)
    ]
    value = tests[0].median  # in the direction of the observed gaps, rows of a group alike
    low, high = min(test.smallest for test in tests), max(test.largest for test in tests)
    return Estimate(value, min(value, low), max(value, high))


@dataclass(frozen=True)
class Bins:
    """Rows in equal-width bins of confidence, without empty bins. gaps: mean confidence minus accuracy.

    bin_of_row: (n_rows,); rows (their number), mean_confidence, gaps: (n_bins,).
    """

    bin_of_row: NDArray[np.intp]
    rows: Floats
    mean_confidence: Floats
    gaps: Floats

    @classmethod
    def of(cls, probabilities: Floats, truth: Ints, bins: int) -> Bins:
        """Assign the rows to bins. probabilities: (n_rows, n_classes); truth: (n_rows,)."""
        highest = probabilities.max(axis=1)
        right = (probabilities.argmax(axis=1) == truth).astype(np.float64)
        _, bin_of_row = np.unique(np.minimum((highest * bins).astype(int), bins - 1), return_inverse=True)
        rows = np.bincount(bin_of_row).astype(np.float64)
        mean_confidence = np.bincount(bin_of_row, weights=highest) / rows
        return cls(bin_of_row, rows, mean_confidence, np.bincount(bin_of_row, weights=highest - right) / rows)

    def plain_error(self, gaps: Floats) -> Floats:
        """Sum over bins of n_b / n |gap_b|; (..., n_bins) to (...)."""
        return np.asarray((self.rows / self.rows.sum() * np.abs(gaps)).sum(axis=-1))


class _Shares(NamedTuple):
    """Shares of draws with at least the observed plain error, and with at most it; `tail`: the level of the latter."""

    no_smaller: float
    no_larger: float
    tail: float


@dataclass(frozen=True)
class _Test:
    """A test of ever larger calibration errors in one direction.

    An error is rejected if draws under it rarely have a plain error like the observed one.

    bins: the observed rows; direction: (n_bins,); design: pairs of (n_bins,) group sizes and numbers of groups of that
    size, the rows of a group are alike; tail: level on either side.
    """

    bins: Bins
    direction: Floats
    design: Sequence[tuple[Floats, Ints]]
    draws: int
    seed: int
    tail: float

    @property
    def smallest(self) -> float:
        """The largest error for which the observed plain error is too large."""
        return self._last(lambda shares: shares.no_smaller <= 2 * self.tail - shares.tail)

    @property
    def median(self) -> float:
        """The largest error at which more than half of the draws have no larger plain error."""
        return self._last(lambda shares: shares.no_larger > 0.5)

    @property
    def largest(self) -> float:
        """The largest error that is not rejected."""
        return self._last(lambda shares: shares.no_larger > shares.tail)

    def _last(self, holds: Callable[[_Shares], bool]) -> float:
        """The largest error for which the condition holds, by bisection between grid points; 0 if it never holds."""
        holding = np.flatnonzero([holds(shares) for shares in self._shares_on_grid])
        if not len(holding):
            return 0.0
        low, high = self._grid[holding[-1]], self._grid[min(holding[-1] + 1, len(self._grid) - 1)]
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if holds(self._shares(middle)) else (low, middle)
        return float(self.bins.plain_error(self.bins.mean_confidence - self._accuracy((low + high) / 2)))

    @cached_property
    def _grid(self) -> Floats:
        """(GRID_POINTS + 1,): scales of the direction."""
        largest_scale = 1 / max(
            float(self.bins.plain_error(self.direction)), 1e-3
        )  # an error of 1 if nothing is clipped
        return np.concatenate([[0.0], largest_scale * np.geomspace(0.002, 1.0, GRID_POINTS)])

    @cached_property
    def _shares_on_grid(self) -> list[_Shares]:
        return [self._shares(float(scale)) for scale in self._grid]

    @cached_property
    def _median_at_zero(self) -> float:
        """The median plain error of draws from a calibrated model."""
        return float(np.median(self._draw_errors(0.0)))

    def _shares(self, scale: float) -> _Shares:
        errors, observed = self._draw_errors(scale), self.bins.plain_error(self.bins.gaps)
        tail = self.tail * (1 - 2 * min(0.5, float((errors <= self._median_at_zero).mean())))
        return _Shares(float((errors >= observed - 1e-12).mean()), float((errors <= observed + 1e-12).mean()), tail)

    def _draw_errors(self, scale: float) -> Floats:
        """(draws,): plain errors. Each scale uses the same random numbers, so that the search is smooth."""
        rng, hits = np.random.default_rng(self.seed), np.zeros((self.draws, len(self.bins.rows)))
        for size, n_groups in self.design:
            hits += size * rng.binomial(n_groups, self._accuracy(scale), size=hits.shape)
        return self.bins.plain_error(self.bins.mean_confidence - hits / self.bins.rows)

    def _accuracy(self, scale: float) -> Floats:
        return np.clip(self.bins.mean_confidence - scale * self.direction, 0.0, 1.0)


def _groups_in_bins(bin_of_row: NDArray[np.intp], groups: NDArray[np.str_]) -> list[list[tuple[Floats, Ints]]]:
    """Designs for drawing the rows of a bin: rows of a group alike, and each row independent.

    A design is a list of (n_bins,) group sizes and the number of groups of that size per bin.
    """
    rows = np.bincount(bin_of_row)
    n_bins, independent = len(rows), [(np.ones(len(rows)), rows.astype(np.int64))]
    _, group_of_row = np.unique(groups, return_inverse=True)
    bin_in_group, sizes = np.unique(group_of_row * n_bins + bin_of_row, return_counts=True)
    bin_of_group = bin_in_group % n_bins
    distinct_sizes = np.unique(sizes)
    if len(distinct_sizes) == 1 and distinct_sizes[0] == 1:
        return [independent]
    if len(distinct_sizes) > MAX_GROUP_SIZES:  # replace by groups of one size with the same effective number of rows
        squares = np.bincount(bin_of_group, weights=sizes.astype(np.float64) ** 2)
        n_groups = np.maximum(1, np.round(rows**2 / squares))
        return [[(rows / n_groups, n_groups.astype(np.int64))], independent]
    alike = [
        (np.full(n_bins, float(size)), np.bincount(bin_of_group[sizes == size], minlength=n_bins).astype(np.int64))
        for size in distinct_sizes
    ]
    return [alike, independent]
