"""Intervals and comparisons: the bootstrap (Efron 1979), temperature scaling and calibration (Guo et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SMALLEST = 1e-12  # keeps logarithms finite
FAR = 2.0  # deviations, of what is added to either side of a paired difference
LEAST_ERROR = 0.3  # of a draw, as a share of the standard error of all rows
DRAWN_AT_ONCE = 1_000_000  # numbers of a bootstrap that are in memory together


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with the interval that holds it."""

    value: float
    low: float
    high: float

    def rounded(self, digits: int = 6) -> dict[str, float]:
        """As it is written to metrics.json: the digits beyond are noise, and differ between processors."""
        return {name: round(value, digits) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Difference:
    """New minus old on the same rows, with its interval and the bootstrap's probability that the new one is worse."""

    value: float
    low: float
    high: float
    probability_worse: float

    def rounded(self, digits: int = 6) -> dict[str, float]:
        """As it is written to decision.json."""
        return {name: round(value, digits) for name, value in asdict(self).items()}


def softmax(logits: Floats) -> Floats:
    """Row-wise; (n_rows, n_classes), rows sum to 1."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Floats = shifted / shifted.sum(axis=1, keepdims=True)
    return result


def log_losses(probabilities: Floats) -> Floats:
    """(n_rows, n_classes): minus the log of each class's probability."""
    return np.asarray(-np.log(np.maximum(probabilities, SMALLEST)))


def briers(probabilities: Floats) -> Floats:
    """(n_rows, n_classes): the squared distance of the probabilities from each class (Brier 1950), 0 to 2."""
    return np.asarray((probabilities**2).sum(axis=1, keepdims=True) - 2 * probabilities + 1)


def of_truth(scores: Floats, truth: Ints) -> Floats:
    """(n_rows,): the true class's. scores: (n_rows, n_classes)."""
    return np.asarray(scores[np.arange(len(truth)), truth])


def log_loss_of_rows(probabilities: Floats, truth: Ints) -> Floats:
    """(n_rows,): minus the log of the true class's probability."""
    result: Floats = -np.log(np.maximum(probabilities[np.arange(len(truth)), truth], SMALLEST))
    return result


def chances_if_wrong(probabilities: Floats) -> Floats:
    """(n_rows, n_classes), 1 in all: how likely each row is to be wrong, and then of which class, as the model thinks."""
    likeliest = np.arange(len(probabilities)), probabilities.argmax(axis=1)
    others = probabilities.copy()
    others[likeliest] = 0.0
    if others.sum() < SMALLEST:  # all are sure: each is as likely to be wrong
        others = np.ones_like(probabilities)
        others[likeliest] = 0.0
    return np.asarray(others / (others.sum() or 1.0))  # 0 where there is one class alone


def difference_if_wrong(old: Floats, new: Floats, scores: Callable[[Floats], Floats]) -> float:
    """Root mean square of new − old of the scores that rows would have where the likeliest class is not the right one, as likely as both models
    together think that it is not: the `wrong` of `paired_difference`.

    old, new: (n_rows, n_classes) probabilities; scores: of them, (n_rows, n_classes), were each class the right one.
    """
    gaps = scores(new) - scores(old)
    return float(np.sqrt((chances_if_wrong((old + new) / 2) * gaps**2).sum()))


def macro_f1(predicted: Ints, truth: Ints, classes: int) -> float:
    """The mean of the classes' F1, over the classes that the truth or the prediction holds."""
    table = confusion(predicted, truth, classes)
    hits, said, were = np.diag(table), table.sum(axis=0), table.sum(axis=1)
    present = (said + were) > 0
    return float((2 * hits[present] / (said + were)[present]).mean())


def confusion(predicted: Ints, truth: Ints, classes: int) -> Ints:
    """(classes, classes): rows are the truth, columns what was predicted."""
    counts: Ints = np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)
    return counts


def calibration_error(probabilities: Floats, truth: Ints, bins: int) -> float:
    """Expected calibration error: |confidence − accuracy| over equal-width bins of confidence, weighted by rows."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = np.bincount(place, weights=confidence - right, minlength=bins)
    return float(np.abs(gap).sum() / len(truth))


def resamples(groups: NDArray[np.str_], draws: int, rng: np.random.Generator) -> Iterator[NDArray[np.intp]]:
    """Row numbers of each bootstrap draw; groups are drawn whole, as near-duplicates are not independent."""
    _, where = np.unique(groups, return_inverse=True)
    order = np.argsort(where, kind="stable")
    starts = np.flatnonzero(np.diff(where[order], prepend=-1))
    members = np.split(order, starts[1:])
    alone = len(members) == len(groups)
    for _ in range(draws):
        chosen = rng.integers(len(members), size=len(members))
        yield order[chosen] if alone else np.concatenate([members[one] for one in chosen])


def interval(
    metric: Callable[[NDArray[np.intp]], float],
    groups: NDArray[np.str_],
    *,
    draws: int,
    confidence: float,
    rng: np.random.Generator,
) -> Estimate:
    """The metric over all rows, and its bootstrap percentile interval.

    metric: of row numbers; groups: (n_rows,), drawn whole.
    """
    values = np.array([metric(rows) for rows in resamples(groups, draws, rng)])
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Estimate(metric(np.arange(len(groups))), float(low), float(high))


def wilson(hits: int, rows: int, confidence: float = 0.95) -> Estimate:
    """A share of rows that are each their own, with Wilson's score interval (1927)."""
    return wilson_of(hits / rows, rows, confidence)


def by_group(values: Floats, groups: NDArray[np.str_]) -> Floats:
    """(n_groups,): each group's sum, in the groups' order."""
    _, where = np.unique(groups, return_inverse=True)
    return np.asarray(np.bincount(where, weights=values), dtype=np.float64)


def few_groups(sizes: Floats, confidence: float = 0.95) -> float:
    """By how much the error of a mean over groups of rows must be stretched: with few of them, or one that holds most rows, the groups do not
    tell how far they vary. Student's quantile over the normal one, and the variance's lost degree of freedom; of as many groups as these are
    worth (Kish 1965; Carter, Schnepel and Steigerwald 2017 count clusters so). 1 where each row is its own. sizes: (n_groups,).
    """
    from scipy.stats import norm, t

    if sizes.max() <= 1:
        return 1.0
    worth = float(sizes.sum() ** 2 / (sizes**2).sum())
    tail = 0.5 + confidence / 2
    student = float(t.ppf(tail, max(1.0, worth - 1)) / norm.ppf(tail))
    return student * float(np.sqrt(worth / max(worth - 1, 0.5)))


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
    from scipy.stats import norm

    z = float(norm.ppf(0.5 + confidence / 2))
    center = (value + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * float(np.sqrt(value * (1 - value) / rows + z**2 / (4 * rows**2)))
    return Estimate(value, max(0.0, min(value, center - half)), min(1.0, max(value, center + half)))


def around_mean(sizes: Floats, sums: Floats, confidence: float) -> tuple[float, float]:
    """The interval of sum(sums) / sum(sizes) by the variance over groups and Student's quantile; sizes, sums: (n_groups,)."""
    from scipy.stats import norm

    if len(sums) < 2:  # nothing tells how far another group would be
        return -np.inf, np.inf
    center = float(sums.sum() / sizes.sum())
    error = float(np.sqrt(((sums - center * sizes) ** 2).sum()) / sizes.sum())
    reach = few_groups(sizes, confidence) * float(norm.ppf(0.5 + confidence / 2)) * error
    return center - reach, center + reach


def bootstrap_t(
    sizes: Floats, sums: Floats, *, draws: int, confidence: float, rng: np.random.Generator
) -> tuple[float, float]:
    """The interval of sum(sums) / sum(sizes) by a bootstrap in which each draw is brought to its own standard error (Efron and Tibshirani 1993,
    chapter 12), which keeps to its share where values are skewed. sizes, sums: (n_groups,), rows of each group and their values' sum.
    """

    def error_of(size: Floats, square: Floats, cross: Floats, large: Floats, at: Floats) -> Floats:
        return np.sqrt(np.maximum(square - 2 * at * cross + at**2 * large, 0.0)) / size

    many, center = len(sums), float(sums.sum() / sizes.sum())
    columns = (sizes, sums, sums**2, sums * sizes, sizes**2)
    size, _, square, cross, large = (np.array([one.sum()]) for one in columns)
    error = float(error_of(size, square, cross, large, np.array([center]))[0])
    if error == 0:
        return center, center
    away = []
    for first in range(0, draws, at_once := max(1, DRAWN_AT_ONCE // many)):
        drawn = rng.integers(many, size=(min(at_once, draws - first), many))
        size, total, square, cross, large = (one[drawn].sum(axis=1) for one in columns)
        of_draw = total / size
        errors = error_of(size, square, cross, large, of_draw)
        away.append((of_draw - center) / np.maximum(errors, LEAST_ERROR * error))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(away), [tail, 1 - tail])
    return center - float(high) * error, center - float(low) * error


def paired_difference(
    old: Floats,
    new: Floats,
    groups: NDArray[np.str_],
    *,
    larger_is_better: bool,
    draws: int,
    rng: np.random.Generator,
    confidence: float = 0.95,
    margin: float = 0.0,
    wrong: float = 0.0,
) -> Difference:
    """Paired bootstrap of the mean of new − old. The interval is the bootstrap-t's, with two groups more of twice the deviation, or
    of `wrong` where that is more, one to either side: rows that hardly differ do not prove that none ever will. Where rows are grouped it is at least the one of `around_mean`, and
    probability_worse allows for few groups too. With several seeds it is the plain bootstrap's, which draws them too.

    old, new: (n_rows,) scores of the same rows, or (n_seeds, n_rows) where they were trained with several seeds, which are
    drawn with replacement as the rows are. probability_worse: share of draws strictly on the bad side of zero, by more than `margin`.
    wrong: by how much a row that turns wrong differs, which few rows may not show: 1 where scores are right or wrong; `difference_if_wrong`.
    """
    gap = np.atleast_2d(new - old)
    seeds = len(gap)

    def mean_of_draw(rows: NDArray[np.intp]) -> float:
        if seeds == 1:
            return float(gap[0, rows].mean())
        return float(gap[rng.integers(seeds, size=seeds)].mean(axis=0)[rows].mean())

    rows = len(groups)
    if (
        seeds == 1 and rows * draws <= DRAWN_AT_ONCE and len(np.unique(groups)) == rows
    ):  # the same draws, without a loop
        means = gap[0, np.argsort(groups, kind="stable")][rng.integers(rows, size=(draws, rows))].mean(axis=1)
    else:
        means = np.array([mean_of_draw(drawn) for drawn in resamples(groups, draws, rng)])
    value, sizes = float(gap.mean()), by_group(np.ones(rows), groups)
    stretched = few_groups(sizes, confidence)
    if stretched > 1:  # a draw without a difference stays one
        means = np.where(means == 0, 0.0, value + (means - value) * stretched)
    if seeds == 1:
        far, sums = max(FAR * float(np.sqrt((gap**2).mean())), wrong), by_group(gap[0], groups)
        size = float((sizes**2).sum() / sizes.sum())  # of the group that a row is in
        ends = bootstrap_t(
            np.append(sizes, [size, size]),
            np.append(sums, [size * far, -size * far]),
            draws=draws,
            confidence=confidence,
            rng=rng,
        )
        wide = around_mean(sizes, sums, confidence) if stretched > 1 else (value, value)
        most = max(float(np.abs(gap).max()), wrong)
        low, high = max(-most, min(value, ends[0], wide[0])), min(most, max(value, ends[1], wide[1]))
    else:
        low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    worse = (means < -margin) if larger_is_better else (means > margin)
    probability = float(worse.mean()) if len(sizes) > 1 else 0.5
    return Difference(value, float(low), float(high), probability)


def fit_temperature(logits: Floats, truth: Ints) -> float:
    """The temperature that makes softmax(logits / temperature) likeliest on these rows, between 1/20 and 20.

    logits: (n_rows, n_classes), of models that were not trained on the rows; truth: (n_rows,). The truth counts for
    (n + 1) / (n + 2), as in Platt (1999): 50 rows that are all right do not prove that no row is ever wrong.
    """
    rows, classes = logits.shape
    if rows == 0:
        return 1.0
    wanted = np.full((rows, classes), 1 / (rows + 2) / max(1, classes - 1))
    wanted[np.arange(rows), truth] = (rows + 1) / (rows + 2)

    def loss(log_temperature: float) -> float:
        probabilities = softmax(logits / np.exp(log_temperature))
        return float(-(wanted * np.log(np.maximum(probabilities, SMALLEST))).sum(axis=1).mean())

    found = minimize_scalar(loss, bounds=(-np.log(20), np.log(20)), method="bounded", options={"xatol": 1e-4})
    return round(float(np.exp(found.x)), 6)
