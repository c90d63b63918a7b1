"""Which labels are doubtful: for each row the probability that its label is wrong, by models that did not learn from it.

Learners that err in different ways say out of fold what a row is (seedling/label_quality/out_of_fold.py). Their
common opinion and the given labels are explained by wrong labels, and the learners learn twice more with what was found out, each row
counting as far as it is believed. What they say at last is weighed by models of the mistakes that people make.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import expit

from seedling.features.classical import Inputs
from seedling.label_quality.noise_model import Explained, Mistakes, sharpened
from seedling.label_quality.out_of_fold import Learners
from seedling.stats.statistics import SMALLEST, Estimate, Floats, Ints, fit_temperature, log_loss_of_rows, softmax

LOOKS = 3
HARDEST = 2 / 3  # of the wrong labels, at most, are of the kind that is hardest to see
LEAST = 0.3  # probability of being wrong below which no label is called doubtful


@dataclass(frozen=True, slots=True)
class Doubt:
    """What was found of each row.

    p_label_error: (n_rows,), the probability that its label is wrong, NaN where nobody can judge; suggested: (n_rows,), the likeliest
    other class; flagged: (n_rows,), whether the label is called doubtful; believed: (n_rows,), how likely it is what it
    most likely is; would_show: (n_rows, n_classes), the p_label_error that it would have under each other label, NaN under what it most
    likely is; confused: (n_rows,), the same under the label of the class with which it is most easily confused; between: how
    many labels are wrong at least and at most, with 95 %; p_label_error sums to what is expected.
    """

    p_label_error: Floats
    suggested: Ints
    flagged: NDArray[np.bool_]
    believed: Floats
    would_show: Floats
    confused: Floats
    between: tuple[float, float]

    @property
    def expected(self) -> float:
        """How many labels are wrong, as expected."""
        return float(np.nansum(self.p_label_error))

    def share_found(self, rows: int) -> Estimate:
        """The share of all wrong labels that a person finds who looks at so many rows, the most doubtful first.

        The value is the expected one. A wrong label that names the class with which the row is most easily confused is
        harder to see than one that names any class, and nobody knows beforehand how many are of which kind. So the interval
        reaches from what the same rows would catch if two thirds of them were of the first kind to what they would catch if all were
        of the second; it holds what is expected if they are as few or as many as can be, and two standard errors.
        """
        judged = np.sort(np.nan_to_num(self.p_label_error, nan=0.0))[::-1]
        total = float(judged.sum())
        if total <= 0 or rows <= 0:
            return Estimate(0.0, 0.0, 1.0 if rows > 0 else 0.0)
        if rows >= len(judged):
            return Estimate(1.0, 1.0, 1.0)
        limit = judged[rows - 1]
        expected = float(judged[:rows].sum()) / total
        under_each = [_share_of_first(judged, rows, count) for count in self.between if count > 0]
        known = ~np.isnan(self.p_label_error)
        weights, shown = self.believed[known], self.would_show[known]
        hardest = float((weights * (self.confused[known] >= limit)).sum() / weights.sum())
        any_label = float((weights * np.nanmean(shown >= limit, axis=1, where=~np.isnan(shown))).sum() / weights.sum())
        low, high = (
            min(expected, expected + HARDEST * (hardest - expected), *under_each),
            max(expected, any_label, *under_each),
        )
        below, above = (2 * float(np.sqrt(max(one * (1 - one), 0.25 / total) / total)) for one in (low, high))
        return Estimate(expected, max(0.0, low - below), min(1.0, high + above))


class CannotJudge(Exception):
    """Nothing can be said of these labels; the message says why, in a sentence."""


def doubt(inputs: Inputs, given: Ints, fold: Ints, weights: Floats, classes: int) -> Doubt:
    """Judges each row's label by models of the other folds.

    given: (n_rows,) class numbers; fold: (n_rows,); weights: (n_rows,), what a label counts before it is doubted. Raises
    CannotJudge where there are too few folds or classes, features that are no numbers or all the same, or models that say no more than
    the classes' shares.
    """
    folds = np.unique(fold)
    _check(inputs, given, fold, folds, weights)
    learners = Learners.of(inputs, fold)
    known = np.zeros(len(given), dtype=bool)  # whose class stands in another fold too
    for one in folds:
        mine = fold == one
        known[mine] = np.isin(given[mine], given[~mine])
    if not known.any():
        raise CannotJudge("every class has all its rows in one fold")
    belief = weights.copy()
    for look in range(LOOKS):
        said = list(learners.say(given, belief, classes).values())
        if look == 0:
            _check_worth(said, given, known, classes)
        together = np.mean([sharpened(one, given, known) for one in said], axis=0)
        found = Explained.by(together, given, known)
        belief = weights * np.where(known, found.believed, 1.0)
    mistakes, place = Mistakes.behind(found, known), np.arange(len(given))
    p_label_error = np.where(known, 1 - mistakes.posterior[place, given], np.nan)
    others = mistakes.posterior.copy()
    others[place, given] = -1.0
    shown = mistakes.would_show.copy()
    shown[place, mistakes.posterior.argmax(axis=1)] = np.nan
    runner_up = np.where(np.isnan(shown), -np.inf, together).argmax(axis=1)
    return Doubt(
        p_label_error=p_label_error,
        suggested=others.argmax(axis=1),
        flagged=doubtful(p_label_error),
        believed=mistakes.posterior.max(axis=1),
        would_show=shown,
        confused=shown[place, runner_up],
        between=(mistakes.fewest, mistakes.most),
    )


def _check(inputs: Inputs, given: Ints, fold: Ints, folds: NDArray[Any], weights: Floats) -> None:
    values = inputs.features.data if sparse.issparse(inputs.features) else inputs.features
    if len(folds) < 2:
        raise CannotJudge("no two folds hold labeled rows")
    if len(np.unique(given)) < 2:
        raise CannotJudge("fewer than two classes have rows that can be held out")
    if any(weights[fold != one].max() <= SMALLEST for one in folds):
        raise CannotJudge("all labels outside a fold count nothing")
    if not np.isfinite(values).all():
        raise CannotJudge("some features are no numbers")
    if not sparse.issparse(inputs.features) and not np.ptp(inputs.features, axis=0).any():
        raise CannotJudge("all rows have the same features")


def _check_worth(said: list[Floats], given: Ints, known: NDArray[np.bool_], classes: int) -> None:
    shares = np.bincount(given[known], minlength=classes) / known.sum()
    guess = log_loss_of_rows(np.broadcast_to(shares, (int(known.sum()), classes)), given[known]).mean()
    losses = [
        log_loss_of_rows(softmax(one[known] / fit_temperature(one[known], given[known])), given[known]).mean()
        for one in said
    ]
    if min(losses) >= guess:
        raise CannotJudge("the models say no more of a row than how common the classes are")


def _share_of_first(p_label_error: Floats, rows: int, total: float) -> float:
    """Of probabilities that are brought to `total`, the share that the first rows have."""
    brought = expit(log_odds(p_label_error) + shift_to(p_label_error, total))
    return float(brought[:rows].sum() / brought.sum())


def log_odds(chances: Floats) -> Floats:
    """Of probabilities, NaN where there is none."""
    return np.asarray(np.log(np.maximum(chances, SMALLEST)) - np.log(np.maximum(1 - chances, SMALLEST)))


def shift_to(chances: Floats, total: float) -> float:
    """What is to be added to all log odds, so that the probabilities sum to `total`. By bisection."""
    odds, low, high = log_odds(chances), -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if expit(odds + middle).sum() < total else (low, middle)
    return (low + high) / 2


def doubtful(p_label_error: Floats) -> NDArray[np.bool_]:
    """(n_rows,): the most doubtful rows, as many as make the expected F1 of "is wrong" largest (Lipton et al. 2014), none
    below `LEAST`. p_label_error: (n_rows,), NaN of rows that cannot be judged.
    """
    chances = np.nan_to_num(p_label_error, nan=0.0)
    order = np.argsort(-chances, kind="stable")
    found = np.cumsum(chances[order])
    expected = 2 * found / (np.arange(1, len(chances) + 1) + found[-1])
    limit = max(chances[order[int(np.argmax(expected))]], LEAST)
    result: NDArray[np.bool_] = chances >= limit
    return result
