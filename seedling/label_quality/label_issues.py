"""Find label issues: the probability that each row's label is wrong, from models that were not fitted on the row.

1. Several learners predict each row out of fold (seedling/label_quality/out_of_fold.py).
2. A noise matrix is fitted to the mean of their log probabilities and the labels. It gives the probability that each
   label is correct, which weights the rows when the learners are fitted again. Steps 1 and 2 run `ROUNDS` times.
3. The final log probabilities and labels are evaluated by an average over noise models
   (seedling/label_quality/noise_model.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from seedling.features.classical import Inputs
from seedling.features.sparsity import is_sparse
from seedling.label_quality.noise_model import AveragedNoiseModel, NoiseMatrixFit, calibrated_log_probabilities
from seedling.label_quality.out_of_fold import Learners
from seedling.stats.statistics import SMALLEST, Estimate, Floats, Ints, fit_temperature, log_loss_of_rows, softmax

ROUNDS = 3
MAX_CONFUSABLE_SHARE = 2 / 3  # of the wrong labels: those that name the class that the row resembles most
MIN_P_LABEL_ERROR = 0.3  # below, no label is flagged as an issue


@dataclass(frozen=True, slots=True)
class LabelIssues:
    """The estimates for each row.

    p_label_error: (n_rows,), the probability that the label is wrong, NaN if it cannot be estimated; suggested_label:
    (n_rows,), the most likely other class; flagged: (n_rows,), whether the label is an issue; p_likeliest: (n_rows,),
    the probability of the most likely class; p_error_if_labeled: (n_rows, n_classes), the p_label_error that the row
    would have under each other label, NaN at its most likely class; p_error_if_confused: (n_rows,), the same under the
    most similar other class; between: 95 % interval of the number of wrong labels.
    """

    p_label_error: Floats
    suggested_label: Ints
    flagged: NDArray[np.bool_]
    p_likeliest: Floats
    p_error_if_labeled: Floats
    p_error_if_confused: Floats
    between: tuple[float, float]

    @property
    def expected(self) -> float:
        """The expected number of wrong labels: the sum of p_label_error."""
        return float(np.nansum(self.p_label_error))

    def share_found(self, rows: int) -> Estimate:
        """The share of all wrong labels among the `rows` labels that are most likely wrong.

        The value is sum(p of the first rows) / sum(all p). A wrong label that names the most similar class is harder to
        find than one that names any class, and the mix of the two kinds is unknown. The interval therefore covers the
        share found if two thirds of the wrong labels are of the first kind, the share found if all are of the second
        kind, and the value at both ends of `between`; two standard errors are added on each side.
        """
        ranked = np.sort(np.nan_to_num(self.p_label_error, nan=0.0))[::-1]
        total = float(ranked.sum())
        if total <= 0 or rows <= 0:
            return Estimate(0.0, 0.0, 1.0 if rows > 0 else 0.0)
        if rows >= len(ranked):
            return Estimate(1.0, 1.0, 1.0)
        value = float(ranked[:rows].sum()) / total
        at_ends = [_share_of_first(ranked, rows, count) for count in self.between if count > 0]
        confusable, any_class = self._shares_above(ranked[rows - 1])
        low = min(value, value + MAX_CONFUSABLE_SHARE * (confusable - value), *at_ends)
        high = max(value, any_class, *at_ends)
        below, above = (2 * float(np.sqrt(max(p * (1 - p), 0.25 / total) / total)) for p in (low, high))
        return Estimate(value, max(0.0, low - below), min(1.0, high + above))

    def _shares_above(self, limit: float) -> tuple[float, float]:
        """The share of wrong labels above the limit, if all name the most similar class, and if they name any class."""
        evaluated = ~np.isnan(self.p_label_error)
        weights, p_error = self.p_likeliest[evaluated], self.p_error_if_labeled[evaluated]
        confusable = (weights * (self.p_error_if_confused[evaluated] >= limit)).sum() / weights.sum()
        above = np.nanmean(p_error >= limit, axis=1, where=~np.isnan(p_error))
        return float(confusable), float((weights * above).sum() / weights.sum())


class CannotEvaluateLabels(Exception):
    """The labels cannot be evaluated. The message is a clause that states the reason."""


def find_label_issues(inputs: Inputs, labels: Ints, fold: Ints, weights: Floats, classes: int) -> LabelIssues:
    """Estimate for each row the probability that its label is wrong, from models of the other folds.

    Args:
        inputs: the features of the rows.
        labels: (n_rows,), class numbers.
        fold: (n_rows,).
        weights: (n_rows,), the weight of each label before its quality is known.
        classes: the number of classes.

    Raises:
        CannotEvaluateLabels: there are too few folds or classes, the features are not finite or are all the same, or no
            learner predicts better than the class frequencies.
    """
    folds = np.unique(fold)
    _check_inputs(inputs, labels, fold, folds, weights)
    learners = Learners.of(inputs, fold)
    evaluable = has_class_in_another_fold(labels, fold)
    if not evaluable.any():
        raise CannotEvaluateLabels("every class has all its rows in one fold")
    label_weights = weights.copy()
    for round_index in range(ROUNDS):
        logits = list(learners.fit_predict(labels, label_weights, classes).values())
        if round_index == 0:
            _check_informative(logits, labels, evaluable, classes)
        mean = np.mean([calibrated_log_probabilities(values, labels, evaluable) for values in logits], axis=0)
        matrix_fit = NoiseMatrixFit.fit(mean, labels, evaluable)
        label_weights = weights * np.where(evaluable, matrix_fit.p_label_correct, 1.0)
    return _label_issues(AveragedNoiseModel.fit(matrix_fit, evaluable), mean, labels, evaluable)


def label_error_probabilities(logits: Floats, labels: Ints, fold: Ints) -> Floats:
    """(n_rows,): p_label_error by the out-of-fold logits of one learner, NaN for rows that cannot be evaluated.

    The noise model and its prior are those of `find_label_issues`. It leaves out the other learners and the refits with
    label weights, for stages that have the logits of one learner anyway.

    logits: (n_rows, n_classes); labels, fold: (n_rows,).
    """
    evaluable = has_class_in_another_fold(labels, fold)
    result = np.full(len(labels), np.nan)
    if evaluable.any():
        calibrated = calibrated_log_probabilities(logits, labels, evaluable)
        model = AveragedNoiseModel.fit(NoiseMatrixFit.fit(calibrated, labels, evaluable), evaluable)
        result[evaluable] = 1 - model.posterior[evaluable, labels[evaluable]]
    return result


def _label_issues(
    model: AveragedNoiseModel, log_probabilities: Floats, labels: Ints, evaluable: NDArray[np.bool_]
) -> LabelIssues:
    row_numbers = np.arange(len(labels))
    p_label_error = np.where(evaluable, 1 - model.posterior[row_numbers, labels], np.nan)
    other_classes = model.posterior.copy()
    other_classes[row_numbers, labels] = -1.0
    p_error = model.p_error_if_labeled.copy()
    p_error[row_numbers, model.posterior.argmax(axis=1)] = np.nan
    most_similar = np.where(np.isnan(p_error), -np.inf, log_probabilities).argmax(axis=1)
    return LabelIssues(
        p_label_error=p_label_error,
        suggested_label=other_classes.argmax(axis=1),
        flagged=flag_label_issues(p_label_error),
        p_likeliest=model.posterior.max(axis=1),
        p_error_if_labeled=p_error,
        p_error_if_confused=p_error[row_numbers, most_similar],
        between=(model.fewest, model.most),
    )


def has_class_in_another_fold(labels: Ints, fold: Ints) -> NDArray[np.bool_]:
    """(n_rows,): whether another fold holds a row of the same class. Other rows cannot be evaluated.

    labels, fold: (n_rows,).
    """
    evaluable = np.zeros(len(labels), dtype=bool)
    for fold_index in np.unique(fold):
        in_fold = fold == fold_index
        evaluable[in_fold] = np.isin(labels[in_fold], labels[~in_fold])
    return evaluable


def _check_inputs(inputs: Inputs, labels: Ints, fold: Ints, folds: NDArray[Any], weights: Floats) -> None:
    values = inputs.features.data if is_sparse(inputs.features) else inputs.features
    if len(folds) < 2:
        raise CannotEvaluateLabels("fewer than two folds hold labeled rows")
    if len(np.unique(labels)) < 2:
        raise CannotEvaluateLabels("fewer than two classes have rows that can be held out")
    if any(weights[fold != fold_index].max() <= SMALLEST for fold_index in folds):
        raise CannotEvaluateLabels("all labels outside one of the folds have weight 0")
    if not np.isfinite(values).all():
        raise CannotEvaluateLabels("some features are not finite numbers")
    if not is_sparse(inputs.features) and not np.ptp(inputs.features, axis=0).any():
        raise CannotEvaluateLabels("all rows have the same features")


def _check_informative(logits: list[Floats], labels: Ints, evaluable: NDArray[np.bool_], classes: int) -> None:
    """Raise CannotEvaluateLabels if no learner has a smaller log loss than the class frequencies."""
    rows = int(evaluable.sum())
    frequencies = np.bincount(labels[evaluable], minlength=classes) / evaluable.sum()
    baseline = log_loss_of_rows(np.broadcast_to(frequencies, (rows, classes)), labels[evaluable]).mean()
    losses = []
    for values in logits:
        temperature = fit_temperature(values[evaluable], labels[evaluable])
        losses.append(log_loss_of_rows(softmax(values[evaluable] / temperature), labels[evaluable]).mean())
    if min(losses) >= baseline:
        raise CannotEvaluateLabels("the models predict labels no better than the class frequencies do")


def _share_of_first(p_label_error: Floats, rows: int, total: float) -> float:
    """The first rows' share of the probabilities, after their log odds are shifted so that they sum to `total`."""
    shifted = expit(log_odds(p_label_error) + shift_to(p_label_error, total))
    return float(shifted[:rows].sum() / shifted.sum())


def log_odds(probabilities: Floats) -> Floats:
    """log(p / (1 - p)), finite for 0 and 1."""
    return np.asarray(np.log(np.maximum(probabilities, SMALLEST)) - np.log(np.maximum(1 - probabilities, SMALLEST)))


def shift_to(probabilities: Floats, total: float) -> float:
    """The d for which sum(expit(log_odds(p) + d)) = total, found by bisection."""
    odds, low, high = log_odds(probabilities), -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if expit(odds + middle).sum() < total else (low, middle)
    return (low + high) / 2


def flag_label_issues(p_label_error: Floats) -> NDArray[np.bool_]:
    """(n_rows,): the rows most likely wrong, as many as maximize the expected F1 (Lipton et al. 2014).

    With the probabilities in descending order, flagging the first k gives the expected F1 = 2 sum_{i <= k} p_i /
    (k + sum_i p_i). No row with a probability below `MIN_P_LABEL_ERROR` is flagged.

    p_label_error: (n_rows,), NaN for rows that cannot be evaluated.
    """
    probabilities = np.nan_to_num(p_label_error, nan=0.0)
    order = np.argsort(-probabilities, kind="stable")
    cumulative = np.cumsum(probabilities[order])
    expected_f1 = 2 * cumulative / (np.arange(1, len(probabilities) + 1) + cumulative[-1])
    limit = max(probabilities[order[int(np.argmax(expected_f1))]], MIN_P_LABEL_ERROR)
    result: NDArray[np.bool_] = probabilities >= limit
    return result
