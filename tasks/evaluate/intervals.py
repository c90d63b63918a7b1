"""Intervals, each by the method that suits its metric; near-duplicate groups count whole.

How often they cover is measured, and where they do not: benchmarks/coverage.py.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from tasks.statistics import DRAWN_AT_ONCE, Estimate, Floats, Ints, around_mean, bootstrap_t, by_group, few_groups

PRIOR = 1.0  # rows of each class beforehand, as right as all are
BIAS_DRAWS = 200


def effective_rows(values: Floats, groups: NDArray[np.str_]) -> float:
    """How many independent rows these are worth (Kish 1965): as many as would give their mean the variance that it has over groups.

    Where all values are alike nothing tells how alike groups are: then each group counts as one that is all of a kind.
    """
    sizes, sums = by_group(np.ones(len(values)), groups), by_group(values, groups)
    rows, mean = len(values), float(values.mean())
    variance = float(((sums - mean * sizes) ** 2).sum()) / rows**2
    least = rows**2 / float((sizes**2).sum())
    return min(float(mean * (1 - mean) / variance), float(rows)) if variance > 0 else least


def rows_for_interval(values: Floats, groups: NDArray[np.str_], confidence: float = 0.95) -> float:
    """The effective rows, fewer where groups are few: as many as make Wilson's interval allow for that."""
    return effective_rows(values, groups) / few_groups(by_group(np.ones(len(values)), groups), confidence) ** 2


def share(hits: NDArray[np.bool_], groups: NDArray[np.str_], confidence: float) -> Estimate:
    """A share with Wilson's score interval (1927) of the effective rows, fewer where groups are few."""
    values = hits.astype(np.float64)
    return wilson_of(float(values.mean()), rows_for_interval(values, groups, confidence), confidence)


def wilson_of(value: float, rows: float, confidence: float) -> Estimate:
    """Wilson's score interval of a share; rows: effective ones, no whole number."""
    z = float(norm.ppf(0.5 + confidence / 2))
    centre = (value + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * float(np.sqrt(value * (1 - value) / rows + z**2 / (4 * rows**2)))
    return Estimate(value, max(0.0, min(value, centre - half)), min(1.0, max(value, centre + half)))


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

    How far they would vary is what they do over draws from the posterior of the confusion table (Goutte and Gaussier 2005, here of all
    classes together, each with a row beforehand that is as right as all are): rare classes, of which a bootstrap may draw none, keep their
    share of it. The interval is Wilson's of as many rows as have that variance, at most those that there are.
    """
    sizes = by_group(np.ones(len(truth)), groups)
    worth = float(sizes.sum() / (sizes**2).sum())  # of a row
    classes, places = np.unique(np.concatenate([truth, said]), return_inverse=True)
    truth, said, many = places[: len(truth)], places[len(truth) :], len(classes)
    cells, counts = np.unique(truth * many + said, return_counts=True)
    rows, columns = cells // many, cells % many
    wrong = rows != columns
    mistakes = counts[wrong].astype(np.float64)
    hits = np.bincount(rows[~wrong], weights=counts[~wrong], minlength=many).astype(np.float64)
    were = np.bincount(rows, weights=counts, minlength=many).astype(np.float64)
    right = (hits.sum() + 1) / (len(truth) + 2)

    def both(found: Floats, missed: Floats, mistaken: Floats) -> tuple[Floats, Floats]:
        recall = found / np.maximum(found + missed, 1e-300)
        balanced = recall[..., were > 0].mean(axis=-1)
        return balanced, (2 * found / np.maximum(2 * found + missed + mistaken, 1e-300)).mean(axis=-1)

    into_row, into_column = (np.eye(many)[one[wrong]] for one in (rows, columns))
    exact = both(hits, mistakes @ into_row, mistakes @ into_column)
    kept: tuple[list[Floats], list[Floats]] = ([], [])
    for first in range(0, draws, at_once := max(1, DRAWN_AT_ONCE // (len(cells) + many))):
        size = min(at_once, draws - first)
        errors = rng.gamma(mistakes * worth, size=(size, len(mistakes)))
        found = rng.gamma(hits * worth + PRIOR * right, size=(size, many))
        missed, mistaken = (rng.gamma(PRIOR * (1 - right), size=(size, many)) for _ in range(2))
        for one, drawn in zip(
            kept, both(found, missed + errors @ into_row, mistaken + errors @ into_column), strict=True
        ):
            one.append(drawn)
    result, most = {}, len(truth) * worth
    lost = (0.0, _f1_lost_to_few_rows(hits + PRIOR * right, mistakes, into_row, into_column, round(most), rng))
    for name, value, parts, less in zip(("balanced_accuracy", "macro_f1"), exact, kept, lost, strict=True):
        centre = float(np.clip(value + less, 0.5 / most, 1 - 0.5 / most))
        variance = max(float(np.concatenate(parts).var()), 1e-12)
        around = wilson_of(centre, min(centre * (1 - centre) / variance, most), confidence)
        result[name] = Estimate(float(value), min(float(value), around.low), max(float(value), around.high))
    return result


def _f1_lost_to_few_rows(
    hits: Floats, mistakes: Floats, into_row: Floats, into_column: Floats, many: int, rng: np.random.Generator
) -> float:
    """By how much macro-F1 of so many rows falls short, in the mean, of what it is of ever more rows: it is no mean over rows, and with a few of
    them a class it is too small. From tables drawn around the one that was seen.

    hits: (n_classes,); mistakes: (n_cells,), with their truth and what was said as rows of (n_cells, n_classes).
    """

    def macro_f1(found: Floats, wrong: Floats) -> float:
        among = 2 * found + wrong @ into_row + wrong @ into_column
        there = among > 0
        of_table = np.where(there, 2 * found / np.maximum(among, 1e-300), 0.0).sum(axis=-1) / there.sum(axis=-1)
        return float(of_table.mean())

    cells = np.concatenate([hits, mistakes])
    tables = rng.multinomial(many, cells / cells.sum(), size=BIAS_DRAWS).astype(np.float64)
    drawn = macro_f1(tables[:, : len(hits)], tables[:, len(hits) :])
    return max(0.0, macro_f1(hits[None], mistakes[None]) - drawn)


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

    Gaps of few rows are never 0, so the plain sum is too large, and a bootstrap of it larger. Here the gaps are scaled down until
    their sum, with the noise that they have over groups, is as large as the one seen in half of the draws (the value) or in a tail
    of them (the interval's ends): a test inverted.
    """
    surest = probabilities.max(axis=1)
    gap = surest - (probabilities.argmax(axis=1) == truth)
    place = np.minimum((surest * bins).astype(int), bins - 1)
    sizes = by_group(np.ones(len(truth)), groups)
    sums = np.stack([by_group(np.where(place == one, gap, 0.0), groups) for one in range(bins)], axis=1)
    gaps = sums.sum(axis=0) / len(truth)
    seen_noise = ((sums - gaps * sizes[:, None]) ** 2).sum(axis=0)
    # Where few rows are wrong the sample shows less noise than such confidence has.
    expected = np.bincount(place, weights=surest * (1 - surest), minlength=bins) * float((sizes**2).sum() / sizes.sum())
    errors = np.sqrt(np.maximum(seen_noise, expected)) / len(truth)
    seen, noise = float(np.abs(gaps).sum()), rng.normal(size=(draws, bins)) * errors

    def at(chance: float) -> float:
        """The scale of the gaps under which the sum is as small as the one seen with this probability."""

        def smaller(scale: float) -> float:
            return float((np.abs(gaps * scale + noise).sum(axis=1) <= seen + 1e-12).mean())

        low, high = 0.0, 3.0
        if smaller(low) <= chance:
            return 0.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if smaller(middle) > chance else (low, middle)
        return low

    if not errors.any():
        return Estimate(seen, seen, seen)
    tail = (1 - confidence) / 2
    low, value, high = (seen * at(chance) for chance in (1 - tail, 0.5, tail))
    return Estimate(value, low, high)


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
