"""Confidence intervals, paired comparisons, and temperature scaling (Guo et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SMALLEST = 1e-12  # keeps logarithms finite
PSEUDO_GROUP_DEVIATIONS = 2.0  # size of the differences in the two groups that `paired_difference` adds
MIN_DRAW_ERROR = 0.3  # standard error of a draw, as a share of the standard error of all rows
MAX_DRAWN_NUMBERS = 1_000_000  # random numbers of a bootstrap that are in memory together


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its confidence interval."""

    value: float
    low: float
    high: float

    def rounded(self, digits: int = 6) -> dict[str, float]:
        """The fields as in metrics.json. Further digits are noise and differ between processors."""
        return {name: round(value, digits) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference new - old on the same rows, its interval, and the bootstrap probability that new is worse."""

    value: float
    low: float
    high: float
    probability_worse: float

    def rounded(self, digits: int = 6) -> dict[str, float]:
        """The fields as in decision.json."""
        return {name: round(value, digits) for name, value in asdict(self).items()}


def softmax(logits: Floats) -> Floats:
    """(n_rows, n_classes): exp(logit) normalized so that rows sum to 1."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Floats = shifted / shifted.sum(axis=1, keepdims=True)
    return result


def log_losses(probabilities: Floats) -> Floats:
    """(n_rows, n_classes): the log loss if each class were the true one, -log p_k."""
    return np.asarray(-np.log(np.maximum(probabilities, SMALLEST)))


def briers(probabilities: Floats) -> Floats:
    """(n_rows, n_classes): the Brier score if each class were the true one (Brier 1950), 0 to 2.

    It is sum_j (p_j - [j = k])² = sum_j p_j² - 2 p_k + 1.
    """
    return np.asarray((probabilities**2).sum(axis=1, keepdims=True) - 2 * probabilities + 1)


def of_truth(scores: Floats, truth: Ints) -> Floats:
    """(n_rows,): the score of the true class. scores: (n_rows, n_classes)."""
    return np.asarray(scores[np.arange(len(truth)), truth])


def log_loss_of_rows(probabilities: Floats, truth: Ints) -> Floats:
    """(n_rows,): the log loss, -log p of the true class."""
    result: Floats = -np.log(np.maximum(probabilities[np.arange(len(truth)), truth], SMALLEST))
    return result


def chances_if_wrong(probabilities: Floats) -> Floats:
    """(n_rows, n_classes): the joint probability of the row and its true class, given one wrong prediction.

    It is proportional to p_k for all classes but the predicted one, and 0 for that one; all entries sum to 1.
    """
    predicted = np.arange(len(probabilities)), probabilities.argmax(axis=1)
    others = probabilities.copy()
    others[predicted] = 0.0
    if others.sum() < SMALLEST:  # all predictions are certain: each is equally likely to be wrong
        others = np.ones_like(probabilities)
        others[predicted] = 0.0
    return np.asarray(others / (others.sum() or 1.0))  # 0 if there is only one class


def difference_if_wrong(old: Floats, new: Floats, scores: Callable[[Floats], Floats]) -> float:
    """The root mean square of the score difference new - old on a wrong prediction: `wrong` of `paired_difference`.

    With w = `chances_if_wrong` of the mean probabilities, it is sqrt(sum_ik w_ik (score_new_ik - score_old_ik)²).

    old, new: (n_rows, n_classes) probabilities; scores: maps probabilities to the score if each class were the true
    one, (n_rows, n_classes).
    """
    gaps = scores(new) - scores(old)
    return float(np.sqrt((chances_if_wrong((old + new) / 2) * gaps**2).sum()))


def confusion(predicted: Ints, truth: Ints, classes: int) -> Ints:
    """(classes, classes): the number of rows per true class (row) and predicted class (column)."""
    counts: Ints = np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)
    return counts


def resamples(groups: NDArray[np.str_], draws: int, rng: np.random.Generator) -> Iterator[NDArray[np.intp]]:
    """Yield the row numbers of each bootstrap draw (Efron 1979).

    Whole groups are drawn, because near-duplicates are not independent. groups: (n_rows,).
    """
    _, group_index = np.unique(groups, return_inverse=True)
    order = np.argsort(group_index, kind="stable")
    starts = np.flatnonzero(np.diff(group_index[order], prepend=-1))
    members = np.split(order, starts[1:])
    is_ungrouped = len(members) == len(groups)
    for _ in range(draws):
        chosen = rng.integers(len(members), size=len(members))
        yield order[chosen] if is_ungrouped else np.concatenate([members[group] for group in chosen])


def interval(
    metric: Callable[[NDArray[np.intp]], float],
    groups: NDArray[np.str_],
    *,
    draws: int,
    confidence: float,
    rng: np.random.Generator,
) -> Estimate:
    """The metric of all rows, and its bootstrap percentile interval.

    metric: a function of row numbers; groups: (n_rows,), drawn whole.
    """
    values = np.array([metric(rows) for rows in resamples(groups, draws, rng)])
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Estimate(metric(np.arange(len(groups))), float(low), float(high))


def wilson(hits: int, rows: int, confidence: float = 0.95) -> Estimate:
    """The share of hits among independent rows, with Wilson's score interval (1927)."""
    return wilson_of(hits / rows, rows, confidence)


def by_group(values: Floats, groups: NDArray[np.str_]) -> Floats:
    """(n_groups,): the sum of each group's values, in the order of the group names."""
    _, group_index = np.unique(groups, return_inverse=True)
    return np.asarray(np.bincount(group_index, weights=values), dtype=np.float64)


def few_groups(sizes: Floats, confidence: float = 0.95) -> float:
    """The factor by which the standard error of a mean over groups is enlarged if there are few groups.

    With few groups, or one group with most rows, the variance between groups is uncertain. With the effective number of
    groups g = (sum n_j)² / sum n_j² (Kish 1965; used for clusters by Carter, Schnepel and Steigerwald 2017), the factor
    is t_{g-1} / z sqrt(g / (g - 1)) for Student's and the normal quantile. It is 1 if each row is its own group.

    sizes: (n_groups,).
    """
    from scipy.stats import norm, t

    if sizes.max() <= 1:
        return 1.0
    effective_groups = float(sizes.sum() ** 2 / (sizes**2).sum())
    tail = 0.5 + confidence / 2
    quantile_ratio = float(t.ppf(tail, max(1.0, effective_groups - 1)) / norm.ppf(tail))
    return quantile_ratio * float(np.sqrt(effective_groups / max(effective_groups - 1, 0.5)))


def effective_rows(values: Floats, groups: NDArray[np.str_]) -> float:
    """The effective number of rows (Kish 1965): independent rows whose mean would have the same variance.

    For a share p of hits, it is p (1 - p) / Var(p), where Var(p) = sum_j (s_j - p n_j)² / n² over groups of n_j rows
    with the sum s_j, and at most n. If the variance is 0, the rows of a group count as equal: n² / sum n_j².
    """
    sizes, sums = by_group(np.ones(len(values)), groups), by_group(values, groups)
    rows, mean = len(values), float(values.mean())
    variance = float(((sums - mean * sizes) ** 2).sum()) / rows**2
    if variance <= 0:
        return rows**2 / float((sizes**2).sum())
    return min(float(mean * (1 - mean) / variance), float(rows))


def rows_for_interval(values: Floats, groups: NDArray[np.str_], confidence: float = 0.95) -> float:
    """The effective number of rows divided by `few_groups`²: the number for which Wilson's interval is valid."""
    return effective_rows(values, groups) / few_groups(by_group(np.ones(len(values)), groups), confidence) ** 2


def share(hits: NDArray[np.bool_], groups: NDArray[np.str_], confidence: float) -> Estimate:
    """The share of hits, with Wilson's score interval (1927) for the number of rows from `rows_for_interval`."""
    values = hits.astype(np.float64)
    return wilson_of(float(values.mean()), rows_for_interval(values, groups, confidence), confidence)


def wilson_of(value: float, rows: float, confidence: float) -> Estimate:
    """Wilson's score interval of a share p of n rows.

    With the normal quantile z, it is (p + z² / 2n ± z sqrt(p (1 - p) / n + z² / 4n²)) / (1 + z² / n).

    rows: the effective number, not necessarily an integer.
    """
    from scipy.stats import norm

    z = float(norm.ppf(0.5 + confidence / 2))
    center = (value + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * float(np.sqrt(value * (1 - value) / rows + z**2 / (4 * rows**2)))
    return Estimate(value, max(0.0, min(value, center - half)), min(1.0, max(value, center + half)))


def around_mean(sizes: Floats, sums: Floats, confidence: float) -> tuple[float, float]:
    """The interval of the mean m = sum_j s_j / sum_j n_j by the variance between groups and Student's quantile.

    It is m ± z `few_groups` sqrt(sum_j (s_j - m n_j)²) / sum_j n_j.

    sizes, sums: (n_groups,), the number of rows n_j and the sum of values s_j of each group.
    """
    from scipy.stats import norm

    if len(sums) < 2:  # the variance between groups is unknown
        return -np.inf, np.inf
    center = float(sums.sum() / sizes.sum())
    error = float(np.sqrt(((sums - center * sizes) ** 2).sum()) / sizes.sum())
    reach = few_groups(sizes, confidence) * float(norm.ppf(0.5 + confidence / 2)) * error
    return center - reach, center + reach


def bootstrap_t(
    sizes: Floats, sums: Floats, *, draws: int, confidence: float, rng: np.random.Generator
) -> tuple[float, float]:
    """The bootstrap-t interval of the mean m = sum_j s_j / sum_j n_j (Efron and Tibshirani 1993, chapter 12).

    Each draw b of groups gives t_b = (m_b - m) / se_b with its own standard error se² = sum_j (s_j - m n_j)² / (sum_j
    n_j)². The interval is m - se times the upper and lower quantile of t_b. It keeps its coverage if the values are
    skewed.

    sizes, sums: (n_groups,), the number of rows n_j and the sum of values s_j of each group.
    """

    def standard_error(size: Floats, square: Floats, cross: Floats, size_square: Floats, mean: Floats) -> Floats:
        # sum_j (s_j - m n_j)² = sum s_j² - 2 m sum s_j n_j + m² sum n_j²
        return np.sqrt(np.maximum(square - 2 * mean * cross + mean**2 * size_square, 0.0)) / size

    group_count, center = len(sums), float(sums.sum() / sizes.sum())
    columns = (sizes, sums, sums**2, sums * sizes, sizes**2)
    size, _, square, cross, size_square = (np.array([column.sum()]) for column in columns)
    error = float(standard_error(size, square, cross, size_square, np.array([center]))[0])
    if error == 0:
        return center, center
    statistics = []
    for first in range(0, draws, block := max(1, MAX_DRAWN_NUMBERS // group_count)):
        drawn = rng.integers(group_count, size=(min(block, draws - first), group_count))
        size, total, square, cross, size_square = (column[drawn].sum(axis=1) for column in columns)
        means = total / size
        errors = standard_error(size, square, cross, size_square, means)
        statistics.append((means - center) / np.maximum(errors, MIN_DRAW_ERROR * error))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(statistics), [tail, 1 - tail])
    return center - float(high) * error, center - float(low) * error


def paired_difference(  # noqa: PLR0913  (two arrays of scores, and the settings of one bootstrap by name)
    old: Floats,
    new: Floats,
    groups: NDArray[np.str_],
    *,
    larger_is_better: bool,
    draws: int,
    rng: np.random.Generator,
    confidence: float = 0.95,
    wrong: float = 0.0,
) -> Difference:
    """The mean of new - old with its confidence interval, and the probability that new is worse, by paired bootstrap.

    The interval is the bootstrap-t interval after two groups are added, one with large positive and one with large
    negative differences: rows that hardly differ do not prove that no row ever will. Their difference is
    `PSEUDO_GROUP_DEVIATIONS` root mean squares, or `wrong` if that is larger. If the rows are grouped, the interval is
    at least as wide as that of `around_mean`, and probability_worse also accounts for few groups.

    Args:
        old: (n_rows,) scores.
        new: the same for the same rows.
        groups: (n_rows,), drawn whole.
        larger_is_better: whether a larger score is better.
        draws: the number of bootstrap draws.
        rng: the source of the draws.
        confidence: the probability inside the interval.
        wrong: the score difference of a row whose prediction becomes wrong, which few rows may not show: 1 for
            accuracy, else `difference_if_wrong`.
    """
    gap = new - old
    value, sizes = float(gap.mean()), by_group(np.ones(len(groups)), groups)
    widening = few_groups(sizes, confidence)
    means = _means_of_draws(gap, groups, draws, rng)
    if widening > 1:  # a draw without a difference keeps none
        means = np.where(means == 0, 0.0, value + (means - value) * widening)
    sums, most = by_group(gap, groups), max(float(np.abs(gap).max()), wrong)
    extreme = max(PSEUDO_GROUP_DEVIATIONS * float(np.sqrt((gap**2).mean())), wrong)
    size = float((sizes**2).sum() / sizes.sum())  # mean size of the group that a row is in
    ends = bootstrap_t(
        np.append(sizes, [size, size]),
        np.append(sums, [size * extreme, -size * extreme]),
        draws=draws,
        confidence=confidence,
        rng=rng,
    )
    wide = around_mean(sizes, sums, confidence) if widening > 1 else (value, value)
    low, high = max(-most, min(value, ends[0], wide[0])), min(most, max(value, ends[1], wide[1]))
    is_worse = (means < 0) if larger_is_better else (means > 0)
    probability = float(is_worse.mean()) if len(sizes) > 1 else 0.5
    return Difference(value, float(low), float(high), probability)


def _means_of_draws(gap: Floats, groups: NDArray[np.str_], draws: int, rng: np.random.Generator) -> Floats:
    """(draws,): the mean difference of each bootstrap draw of groups. gap: (n_rows,)."""
    rows = len(groups)
    is_ungrouped = len(np.unique(groups)) == rows
    if rows * draws <= MAX_DRAWN_NUMBERS and is_ungrouped:  # the same draws, without a loop
        in_order = gap[np.argsort(groups, kind="stable")]
        return np.asarray(in_order[rng.integers(rows, size=(draws, rows))].mean(axis=1))
    return np.array([float(gap[drawn].mean()) for drawn in resamples(groups, draws, rng)])


def fit_temperature(logits: Floats, truth: Ints) -> float:
    """The temperature T between 1/20 and 20 that minimizes the log loss of softmax(logits / T).

    As in Platt (1999), the target of the true class is (n + 1) / (n + 2) for n rows, and the rest is shared by the
    other classes: 50 correct predictions do not prove that no prediction is ever wrong.

    logits: (n_rows, n_classes), of models that were not trained on the rows; truth: (n_rows,).
    """
    from scipy.optimize import minimize_scalar  # here: 0.4 s, which most commands do not need

    rows, classes = logits.shape
    if rows == 0:
        return 1.0
    targets = np.full((rows, classes), 1 / (rows + 2) / max(1, classes - 1))
    targets[np.arange(rows), truth] = (rows + 1) / (rows + 2)

    def loss(log_temperature: float) -> float:
        probabilities = softmax(logits / np.exp(log_temperature))
        return float(-(targets * np.log(np.maximum(probabilities, SMALLEST))).sum(axis=1).mean())

    optimum = minimize_scalar(loss, bounds=(-np.log(20), np.log(20)), method="bounded", options={"xatol": 1e-4})
    return round(float(np.exp(optimum.x)), 6)
