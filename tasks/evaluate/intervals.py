"""Intervals, each by the method that suits its metric; near-duplicate groups count whole.

How often they cover is measured, and where they do not: benchmarks/coverage.py.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from tasks.statistics import (
    DRAWN_AT_ONCE,
    Estimate,
    Floats,
    Ints,
    around_mean,
    bootstrap_t,
    by_group,
    few_groups,
    wilson_of,
)

PRIOR, MOST_PRIOR = 0.75, 20.0  # rows of each class beforehand, as right as all are, and of all classes
SEARCHED = 20  # halvings of what an end may be


def mean(
    values: Floats,
    groups: NDArray[np.str_],
    *,
    wrong: float,
    most: float,
    draws: int,
    confidence: float,
    rng: np.random.Generator,
) -> Estimate:
    """The mean of values between 0 and `most`, which may be skewed, with the bootstrap-t interval over groups.

    wrong: the value of one row more, which is put among them for the interval: what a wrong row would have. Rows that are all right do not
    prove that none is ever wrong (as two successes and two failures are added to a share, Agresti and Coull 1998).
    """
    sizes, sums = by_group(np.ones(len(values)), groups), by_group(values, groups)
    value = float(values.mean())
    ends = bootstrap_t(np.append(sizes, 1.0), np.append(sums, wrong), draws=draws, confidence=confidence, rng=rng)
    if few_groups(sizes) > 1:
        wide = around_mean(sizes, sums, confidence)
        ends = min(ends[0], wide[0]), max(ends[1], wide[1])
    return Estimate(value, min(value, max(0.0, ends[0])), max(value, min(most, ends[1])))


def of_confusion(
    said: Ints, truth: Ints, groups: NDArray[np.str_], *, draws: int, confidence: float, rng: np.random.Generator
) -> dict[str, Estimate]:
    """balanced_accuracy, the mean recall of the classes that the truth holds, and macro_f1, over those that either holds.

    How far they would vary is what they do over tables drawn around the one that was seen (a parametric bootstrap, Efron and Tibshirani 1993,
    chapter 6; each group falls into one cell, whole), in which each class has three quarters of a row beforehand that are as right as all are: a rare class
    that was right three times out of three may yet be wrong. The interval is Wilson's of as many rows as have that variance, at most those
    that there are. macro_f1's is around what ever more rows would give: it is no mean over rows, and with a few of them a class it is too small.
    """
    sizes = by_group(np.ones(len(truth)), groups)
    most = float(sizes.sum() ** 2 / (sizes**2).sum())  # rows that they are worth
    classes, places = np.unique(np.concatenate([truth, said]), return_inverse=True)
    truth, said, many = places[: len(truth)], places[len(truth) :], len(classes)
    cells, counts = np.unique(truth * many + said, return_counts=True)
    rows, columns = cells // many, cells % many
    wrong = rows != columns
    hits = np.bincount(rows[~wrong], weights=counts[~wrong], minlength=many).astype(np.float64)
    right = (hits.sum() + 1) / (len(truth) + 2)
    before = min(PRIOR, MOST_PRIOR / many)
    every = np.arange(many)
    # Hits, the mistakes that were seen, and those that were not: what a class may lose goes to its neighbour in the list.
    at_row = np.concatenate([every, rows[wrong], every])
    at_column = np.concatenate([every, columns[wrong], np.roll(every, 1)])
    seen = np.concatenate([hits, counts[wrong].astype(np.float64), np.zeros(many)])
    smooth = seen + np.concatenate(
        [np.full(many, before * right), np.zeros(int(wrong.sum())), np.full(many, before * (1 - right))]
    )
    shape = (len(seen), many)
    into_row, into_column = (
        csr_matrix((np.ones(len(seen)), (np.arange(len(seen)), one)), shape) for one in (at_row, at_column)
    )

    def both(tables: Floats) -> tuple[Floats, Floats]:
        """(n_tables,) of either; tables: (n_tables, n_cells)."""
        found, were, called = tables[:, :many], tables @ into_row, tables @ into_column
        of_class = np.divide(found, were, out=np.zeros_like(found), where=were > 0)
        f1 = np.divide(2 * found, were + called, out=np.zeros_like(found), where=were + called > 0)
        return of_class.sum(axis=1) / (were > 0).sum(axis=1), f1.sum(axis=1) / (were + called > 0).sum(axis=1)

    kept: tuple[list[Floats], list[Floats]] = ([], [])
    for first in range(0, draws, at_once := max(1, DRAWN_AT_ONCE // len(seen))):
        tables = np.zeros((min(at_once, draws - first), len(seen)))
        for size, so_many in zip(*np.unique(sizes, return_counts=True), strict=True):
            tables += size * rng.multinomial(so_many, smooth / smooth.sum(), size=len(tables))
        for one, drawn in zip(kept, both(tables), strict=True):
            one.append(drawn)
    result = {}
    for name, value, around, parts in zip(
        ("balanced_accuracy", "macro_f1"), both(seen[None]), both(smooth[None]), kept, strict=True
    ):
        varied, centre = np.concatenate(parts), float(around[0])
        lost = max(0.0, centre - float(varied.mean())) if name == "macro_f1" else 0.0
        worth = min(centre * (1 - centre) / max(float(varied.var()), 1e-12), most)
        ends = wilson_of(float(np.clip(float(value[0]) + lost, 0.5 / most, 1 - 0.5 / most)), worth, confidence)
        result[name] = Estimate(float(value[0]), min(float(value[0]), ends.low), max(float(value[0]), ends.high))
    return result


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
    often right as that says (groups count once), and the value is the error under which half of the draws have no larger sum than the one seen.
    The interval holds the errors that a test does not refuse. Of none, only a large sum speaks against it, so there all of the test's share lies
    on that side; it moves to both, as the draws leave those without an error behind (after Feldman and Cousins 1998).
    """
    surest = probabilities.max(axis=1)
    right = (probabilities.argmax(axis=1) == truth).astype(np.float64)
    held, place = np.unique(np.minimum((surest * bins).astype(int), bins - 1), return_inverse=True)
    rows = np.bincount(place).astype(np.float64)
    said, gaps = (np.bincount(place, weights=one) / rows for one in (surest, surest - right))
    in_group = np.stack([by_group((place == one).astype(np.float64), groups) for one in range(len(held))])
    worth = np.maximum(1, np.round(rows**2 / (in_group**2).sum(axis=1))).astype(np.int64)
    weights, seed, tail = rows / len(truth), int(rng.integers(2**31)), (1 - confidence) / 2

    def accuracy(scale: float) -> Floats:
        return np.clip(said - scale * gaps, 0.0, 1.0)

    def error(scale: float) -> float:
        return float((weights * np.abs(said - accuracy(scale))).sum())

    def drawn(scale: float) -> Floats:
        """(draws,): the plain sums; the same chance at each scale, so that ends can be searched for."""
        hits = np.random.default_rng(seed).binomial(worth, accuracy(scale), size=(draws, len(worth)))
        return np.asarray((weights * np.abs(said - hits / worth)).sum(axis=1))

    seen, usual = error(1.0), float(np.median(drawn(0.0)))

    def below(sums: Floats) -> float:
        """The test's share on the side of small sums: none where there is no error, half where the draws are beyond those without."""
        return tail * (1 - 2 * min(0.5, float((sums <= usual).mean())))

    def too_small(scale: float) -> bool:
        sums = drawn(scale)
        return float((sums >= seen - 1e-12).mean()) <= 2 * tail - below(sums)

    def not_too_large(scale: float) -> bool:
        sums = drawn(scale)
        return float((sums <= seen + 1e-12).mean()) > below(sums)

    def under_half(scale: float) -> bool:
        return float((drawn(scale) <= seen + 1e-12).mean()) > 0.5

    def last(holds: Callable[[float], bool]) -> float:
        """The error of the largest scale up to which this holds."""
        if not holds(0.0):
            return 0.0
        low, high = 0.0, max(4.0, 1 / max(seen, 0.01))
        for _ in range(SEARCHED):
            middle = (low + high) / 2
            low, high = (middle, high) if holds(middle) else (low, middle)
        return error(high)

    return Estimate(last(under_half), last(too_small), last(not_too_large))


def area(inside: Floats, outside: Floats, *, draws: int, confidence: float, rng: np.random.Generator) -> Estimate:
    """AUROC: how often a score of the first kind is above one of the second, ties half (Mann and Whitney 1947), with its interval by
    a bootstrap of both kinds on the log odds.
    """

    def found(first: Floats, second: Floats) -> float:
        below = np.searchsorted(np.sort(second), first, side="left")
        upto = np.searchsorted(np.sort(second), first, side="right")
        return float((below + upto).mean() / 2 / len(second))

    value = found(inside, outside)
    drawn = [
        found(
            inside[rng.integers(len(inside), size=len(inside))], outside[rng.integers(len(outside), size=len(outside))]
        )
        for _ in range(draws)
    ]
    smallest = 0.5 / (len(inside) * len(outside)) ** 0.5  # all pairs right do not prove that none is ever wrong
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, min(float(low), max(0.0, value - smallest)), max(float(high), min(1.0, value + smallest)))
