"""Confidence intervals, each by the method that suits its metric; near-duplicate groups are resampled as a whole.

benchmarks/coverage.py measures how often they contain the true value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from seedling.stats.statistics import (
    MAX_DRAWN_NUMBERS,
    Estimate,
    Floats,
    Ints,
    around_mean,
    bootstrap_t,
    by_group,
    few_groups,
    wilson_of,
)

MIN_PRIOR_ROWS, MAX_PRIOR_ROWS = 0.5, 1_000.0  # weight of the overall recall when a class's recall is smoothed
MIN_ROWS_PER_CLASS = 4
MAX_GROUP_SIZES = 8  # different sizes of groups that are drawn separately


def mean(
    values: Floats,
    groups: NDArray[np.str_],
    *,
    wrong: float,
    maximum: float,
    draws: int,
    confidence: float,
    rng: np.random.Generator,
) -> Estimate:
    """The mean of values between 0 and `maximum`, which may be skewed, with a bootstrap-t interval over groups.

    wrong: value of a wrong row. For the interval, one row of this value is added: rows that are all right do not
    prove that none is ever wrong (similar to the two successes and two failures of Agresti and Coull 1998).
    """
    sizes, sums = by_group(np.ones(len(values)), groups), by_group(values, groups)
    value = float(values.mean())
    ends = bootstrap_t(np.append(sizes, 1.0), np.append(sums, wrong), draws=draws, confidence=confidence, rng=rng)
    if few_groups(sizes) > 1:
        wide = around_mean(sizes, sums, confidence)
        ends = min(ends[0], wide[0]), max(ends[1], wide[1])
    return Estimate(value, min(value, max(0.0, ends[0])), max(value, min(maximum, ends[1])))


def balanced_accuracy_and_macro_f1(
    predicted: Ints, truth: Ints, groups: NDArray[np.str_], *, draws: int, confidence: float, rng: np.random.Generator
) -> dict[str, Estimate]:
    """balanced_accuracy, the mean recall over the true classes, and macro_f1, over the true and predicted classes.

    The observed confusion table is smoothed first: the recall r_c of class c with n_c rows becomes
    (n_c r_c + m r) / (n_c + m), where r is the overall recall and m follows from the variance of the recalls beyond
    chance (moments of the beta-binomial, Kleinman 1973).

    Variance of balanced accuracy: sum over classes of s_c (1 - s_c) / n_c, divided by the squared number of classes,
    where s_c is the smoothed recall. Variance of macro_f1: over tables drawn from the smoothed one (parametric
    bootstrap, Efron and Tibshirani 1993, chapter 6; each group falls into one cell as a whole).

    The interval is Wilson's with n = p (1 - p) / variance, at most the effective number of rows. macro_f1 is not a
    mean over rows: with few rows per class it is biased downward, and its interval is centered on the value without
    this bias. With fewer than MIN_ROWS_PER_CLASS effective rows per class, its interval also contains that of balanced
    accuracy.
    """
    classes, indices = np.unique(np.concatenate([truth, predicted]), return_inverse=True)
    truth, predicted, n_classes = indices[: len(truth)], indices[len(truth) :], len(classes)
    sizes = by_group(np.ones(len(truth)), groups)
    effective = float(sizes.sum() ** 2 / (sizes**2).sum())
    table = _Table.of(predicted, truth, n_classes, effective / len(truth))
    f1 = float(table.macro_f1(table.observed[None])[0])
    center, drawn_f1 = float(table.macro_f1(table.smooth[None])[0]), _draw_f1(table, sizes, draws, rng)
    is_true, effective_of_class = table.n_true > 0, _effective_rows_of_classes(truth, groups, n_classes)
    recall = table.observed[:n_classes][is_true] / table.n_true[is_true]
    smoothed = table.smooth[:n_classes][is_true] / table.n_true[is_true]
    variance_of_recall = float((smoothed * (1 - smoothed) / effective_of_class[is_true]).sum()) / len(recall) ** 2

    def interval(value: float, bias: float, center: float, variance: float) -> Estimate:
        rows = min(max(center * (1 - center), 1e-12) / max(variance, 1e-12), effective)
        corrected = min(value + bias, 1.0)
        inside = float(np.clip(value + bias, 0.5 / effective, 1 - 0.5 / effective))
        # Both: a few groups that are all right may not all be right again, and the interval must contain the value.
        estimates = [wilson_of(share, rows, confidence) for share in (corrected, inside)]
        low, high = min(estimate.low for estimate in estimates), max(estimate.high for estimate in estimates)
        return Estimate(value, min(value, low), max(value, high))

    balanced = interval(float(recall.mean()), 0.0, float(smoothed.mean()), variance_of_recall)
    macro = interval(f1, max(0.0, center - float(drawn_f1.mean())), center, float(drawn_f1.var()))
    if effective < MIN_ROWS_PER_CLASS * len(recall):
        macro = Estimate(f1, min(macro.low, balanced.low), max(macro.high, balanced.high))
    return {"balanced_accuracy": balanced, "macro_f1": macro}


@dataclass(frozen=True)
class _Table:
    """Cells of a confusion table: the hits of each class, the observed mistakes, and one cell per class for the rest.

    Mistakes that were not observed go to the next one of the true classes.

    observed, smooth: (n_cells,) rows, as observed and smoothed towards the overall recall; n_true: (n_classes,) rows
    per true class; into_row, into_column: (n_cells, n_classes), 1 where the cell is in the class's row or column.
    """

    observed: Floats
    smooth: Floats
    n_true: Floats
    into_row: csr_matrix
    into_column: csr_matrix

    @classmethod
    def of(cls, predicted: Ints, truth: Ints, n_classes: int, effective_per_row: float) -> _Table:
        """effective_per_row: effective rows per row, below 1 if rows come in groups."""
        cells, counts = np.unique(truth * n_classes + predicted, return_counts=True)
        rows, columns, wrong = cells // n_classes, cells % n_classes, cells // n_classes != cells % n_classes
        hits = np.bincount(rows[~wrong], weights=counts[~wrong], minlength=n_classes).astype(np.float64)
        n_true = np.bincount(rows, weights=counts, minlength=n_classes).astype(np.float64)
        overall_recall = (hits.sum() + 1) / (len(truth) + 2)
        prior_rows = _prior_rows(hits, n_true, overall_recall, effective_per_row)
        weight = n_true / np.maximum(n_true + prior_rows, 1e-300)  # of the observed recall
        every_class, true_classes = np.arange(n_classes), np.flatnonzero(n_true)
        neighbor = every_class.copy()
        neighbor[true_classes] = np.roll(true_classes, 1)
        mistakes, prior = counts[wrong].astype(np.float64), (1 - weight) * n_true
        row_of_cell = np.concatenate([every_class, rows[wrong], every_class])
        column_of_cell = np.concatenate([every_class, columns[wrong], neighbor])
        n_cells = len(row_of_cell)
        ones, cell_indices = np.ones(n_cells), np.arange(n_cells)
        return cls(
            np.concatenate([hits, mistakes, np.zeros(n_classes)]),
            np.concatenate(
                [
                    weight * hits + prior * overall_recall,
                    weight[rows[wrong]] * mistakes,
                    prior * (1 - overall_recall),
                ]
            ),
            n_true,
            csr_matrix((ones, (cell_indices, row_of_cell)), (n_cells, n_classes)),
            csr_matrix((ones, (cell_indices, column_of_cell)), (n_cells, n_classes)),
        )

    def macro_f1(self, tables: Floats) -> Floats:
        """2 hits / (true + predicted rows), averaged over the classes with any; (n_tables, n_cells) to (n_tables,)."""
        hits, totals = tables[:, : len(self.n_true)], tables @ self.into_row + tables @ self.into_column
        f1 = np.divide(2 * hits, totals, out=np.zeros_like(hits), where=totals > 0)
        return np.asarray(f1.sum(axis=1) / (totals > 0).sum(axis=1))


def _draw_f1(table: _Table, sizes: Floats, draws: int, rng: np.random.Generator) -> Floats:
    """(draws,): macro_f1 of tables drawn from the smooth one. Each group, of size `sizes`, falls into one cell."""
    distinct_sizes, groups_of_size = np.unique(sizes, return_counts=True)
    if len(distinct_sizes) > MAX_GROUP_SIZES:  # replace by groups of one size with the same effective number of rows
        groups_of_size = np.array([max(1, round(float(sizes.sum() ** 2 / (sizes**2).sum())))])
        distinct_sizes = sizes.sum() / groups_of_size
    blocks, probabilities = [], table.smooth / table.smooth.sum()
    tables_per_block = max(1, MAX_DRAWN_NUMBERS // len(probabilities))
    for first in range(0, draws, tables_per_block):
        tables = np.zeros((min(tables_per_block, draws - first), len(probabilities)))
        for size, n_groups in zip(distinct_sizes, groups_of_size, strict=True):
            tables += size * rng.multinomial(n_groups, probabilities, size=len(tables))
        blocks.append(table.macro_f1(tables))
    return np.concatenate(blocks)


def _effective_rows_of_classes(truth: Ints, groups: NDArray[np.str_], n_classes: int) -> Floats:
    """(n_classes,): effective rows of each class, n^2 / sum of squared group sizes (Kish 1965); 0 without rows."""
    _, group_of_row = np.unique(groups, return_inverse=True)
    class_in_group, sizes = np.unique(group_of_row * n_classes + truth, return_counts=True)
    squares = np.bincount(class_in_group % n_classes, weights=sizes.astype(np.float64) ** 2, minlength=n_classes)
    return np.asarray(np.bincount(truth, minlength=n_classes) ** 2 / np.maximum(squares, 1.0))


def _prior_rows(hits: Floats, n_true: Floats, overall_recall: float, effective_per_row: float) -> float:
    """The number of rows m with the overall recall r that smooth each class's recall.

    m = r (1 - r) / between - 1, where `between` is the mean over classes of (r_c - r)^2 - r (1 - r) / n_c, with
    effective rows n_c.
    """
    is_true = n_true > 0
    variance = overall_recall * (1 - overall_recall)
    by_chance = variance / (n_true[is_true] * effective_per_row)  # if all classes have the same recall
    between = float(((hits[is_true] / n_true[is_true] - overall_recall) ** 2 - by_chance).mean())
    rows = np.clip(variance / between - 1, MIN_PRIOR_ROWS, MAX_PRIOR_ROWS) if between > 0 else MAX_PRIOR_ROWS
    return float(rows) / effective_per_row


def auroc(inside: Floats, outside: Floats, *, draws: int, confidence: float, rng: np.random.Generator) -> Estimate:
    """P(inside > outside) + P(inside = outside) / 2 (Mann and Whitney 1947), with its interval.

    The interval is a percentile bootstrap that resamples the two kinds of scores separately.
    """

    def area(first: Floats, second: Floats) -> float:
        below = np.searchsorted(np.sort(second), first, side="left")
        upto = np.searchsorted(np.sort(second), first, side="right")
        return float((below + upto).mean() / 2 / len(second))

    value = area(inside, outside)
    resampled = [
        area(
            inside[rng.integers(len(inside), size=len(inside))], outside[rng.integers(len(outside), size=len(outside))]
        )
        for _ in range(draws)
    ]
    smallest = 0.5 / (len(inside) * len(outside)) ** 0.5  # all pairs right do not prove that none is ever wrong
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, min(float(low), max(0.0, value - smallest)), max(float(high), min(1.0, value + smallest)))
