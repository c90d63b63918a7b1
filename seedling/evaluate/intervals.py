"""Intervals, each by the method that suits its metric; near-duplicate groups count whole.

How often they cover is measured, and where they do not: benchmarks/coverage.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from seedling.stats.statistics import (
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

PRIOR, MOST_PRIOR = 0.5, 1_000.0  # rows by which a class's recall is drawn to that of all, at least and at most
FEW_ROWS = 4  # of a class
MOST_SIZES = 8  # of groups, that are drawn apart


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

    The table that was seen is smoothed: a class's recall is drawn towards that of all by as many rows as the recalls' differences, beyond what chance
    makes of so few, leave room for (the beta-binomial's moments, Kleinman 1973). Balanced accuracy then varies as a mean of shares does, macro_f1 as
    it does over tables drawn around that one (a parametric bootstrap, Efron and Tibshirani 1993, chapter 6; each group falls into one cell, whole).
    The interval is Wilson's of as many rows as have that variance, at most those that there are. macro_f1's is around what ever more rows would give:
    it is no mean over rows, and with a few of them a class it is too small; with fewer than four even that is, and its interval holds balanced
    accuracy's too.
    """
    classes, places = np.unique(np.concatenate([truth, said]), return_inverse=True)
    truth, said, many = places[: len(truth)], places[len(truth) :], len(classes)
    sizes = by_group(np.ones(len(truth)), groups)
    most = float(sizes.sum() ** 2 / (sizes**2).sum())  # rows that they are worth
    table = _Table.of(said, truth, many, most / len(truth))
    f1 = float(table.macro_f1(table.seen[None])[0])
    center, drawn = float(table.macro_f1(table.smooth[None])[0]), _drawn_f1(table, sizes, draws, rng)
    there, worths = table.were > 0, _worth_of_classes(truth, groups, many)
    recall = table.seen[:many][there] / table.were[there]
    smoothed = table.smooth[:many][there] / table.were[there]
    of_recalls = float((smoothed * (1 - smoothed) / worths[there]).sum()) / len(recall) ** 2

    def around(value: float, less: float, center: float, variance: float) -> Estimate:
        worth = min(max(center * (1 - center), 1e-12) / max(variance, 1e-12), most)
        end, inside = min(value + less, 1.0), float(np.clip(value + less, 0.5 / most, 1 - 0.5 / most))
        # Both: few groups that are all right may not all be, and yet the value must not be left alone at the end.
        ends = [wilson_of(one, worth, confidence) for one in (end, inside)]
        return Estimate(value, min(value, *(one.low for one in ends)), max(value, *(one.high for one in ends)))

    balanced = around(float(recall.mean()), 0.0, float(smoothed.mean()), of_recalls)
    macro = around(f1, max(0.0, center - float(drawn.mean())), center, float(drawn.var()))
    if most < FEW_ROWS * len(recall):
        macro = Estimate(f1, min(macro.low, balanced.low), max(macro.high, balanced.high))
    return {"balanced_accuracy": balanced, "macro_f1": macro}


@dataclass(frozen=True)
class _Table:
    """A confusion table's cells: each class's hits, the mistakes that were seen, and one more a class for those that were not, which go to its
    neighbor among the classes that are true.

    seen, smooth: (n_cells,) rows, as they are and drawn towards all classes' recall; were: (n_classes,), rows of each class.
    """

    seen: Floats
    smooth: Floats
    were: Floats
    into_row: csr_matrix
    into_column: csr_matrix

    @classmethod
    def of(cls, said: Ints, truth: Ints, many: int, worth: float) -> _Table:
        """worth: of a row, where they come in groups."""
        cells, counts = np.unique(truth * many + said, return_counts=True)
        rows, columns, wrong = cells // many, cells % many, cells // many != cells % many
        hits = np.bincount(rows[~wrong], weights=counts[~wrong], minlength=many).astype(np.float64)
        were = np.bincount(rows, weights=counts, minlength=many).astype(np.float64)
        right = (hits.sum() + 1) / (len(truth) + 2)
        kept = were / np.maximum(were + _rows_beforehand(hits, were, right, worth), 1e-300)
        every, there = np.arange(many), np.flatnonzero(were)
        beside = every.copy()
        beside[there] = np.roll(there, 1)
        mistakes, drawn = counts[wrong].astype(np.float64), (1 - kept) * were
        at = [np.concatenate([every, rows[wrong], every]), np.concatenate([every, columns[wrong], beside])]
        ones, cell = np.ones(len(at[0])), np.arange(len(at[0]))
        return cls(
            np.concatenate([hits, mistakes, np.zeros(many)]),
            np.concatenate([kept * hits + drawn * right, kept[rows[wrong]] * mistakes, drawn * (1 - right)]),
            were,
            *(csr_matrix((ones, (cell, one)), (len(cell), many)) for one in at),
        )

    def macro_f1(self, tables: Floats) -> Floats:
        """(n_tables,): over the classes that the truth or the prediction holds; tables: (n_tables, n_cells)."""
        found, among = tables[:, : len(self.were)], tables @ self.into_row + tables @ self.into_column
        f1 = np.divide(2 * found, among, out=np.zeros_like(found), where=among > 0)
        return np.asarray(f1.sum(axis=1) / (among > 0).sum(axis=1))


def _drawn_f1(table: _Table, sizes: Floats, draws: int, rng: np.random.Generator) -> Floats:
    """(draws,): macro-F1 of tables around the smooth one, into which groups of these sizes fall."""
    drawn, of_size = np.unique(sizes, return_counts=True)
    if len(drawn) > MOST_SIZES:  # as many groups of one size, worth the same
        of_size = np.array([max(1, round(float(sizes.sum() ** 2 / (sizes**2).sum())))])
        drawn = sizes.sum() / of_size
    parts, chances = [], table.smooth / table.smooth.sum()
    for first in range(0, draws, at_once := max(1, DRAWN_AT_ONCE // len(chances))):
        tables = np.zeros((min(at_once, draws - first), len(chances)))
        for size, many in zip(drawn, of_size, strict=True):
            tables += size * rng.multinomial(many, chances, size=len(tables))
        parts.append(table.macro_f1(tables))
    return np.concatenate(parts)


def _worth_of_classes(truth: Ints, groups: NDArray[np.str_], many: int) -> Floats:
    """(n_classes,): how many rows each class's are worth, those of one group being alike (Kish 1965); 0 where there is none."""
    _, where = np.unique(groups, return_inverse=True)
    in_both, alike = np.unique(where * many + truth, return_counts=True)
    squares = np.bincount(in_both % many, weights=alike.astype(np.float64) ** 2, minlength=many)
    return np.asarray(np.bincount(truth, minlength=many) ** 2 / np.maximum(squares, 1.0))


def _rows_beforehand(hits: Floats, were: Floats, right: float, worth: float) -> float:
    """By how many rows, as right as all are, each class's recall is drawn towards that of all. worth: of a row, where they come in groups."""
    there = were > 0
    by_chance = right * (1 - right) / (were[there] * worth)  # the variance of a class's recall, were all alike
    between = float(((hits[there] / were[there] - right) ** 2 - by_chance).mean())
    rows = np.clip(right * (1 - right) / between - 1, PRIOR, MOST_PRIOR) if between > 0 else MOST_PRIOR
    return float(rows) / worth


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
