"""The learning curve: how accuracy grows with labels, and how many labels a round's gain is worth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seedling.parallel.executor import in_threads
from seedling.records.candidates import LearningCurvePointRecord, LearningCurveRecord
from seedling.records.intervals import EstimateRecord
from seedling.stats.power_law import power_law_exponent
from seedling.stats.statistics import Estimate, Floats, interval, wilson
from seedling.train.choice import EvaluationRows
from seedling.train.training_data import TrainingData

LEARNER = "logistic_regression"
MAX_WORTH_RATIO = 50.0  # times the current labels: beyond, the extrapolation is meaningless
CONFIDENCE = 0.8  # of the interval: with few rows, a curve of two points is rough; the report shows the level


def correct_with_folds(data: TrainingData, evaluation_rows: EvaluationRows, n_train_folds: int) -> NDArray[np.bool_]:
    """(n_labeled_evaluated,): whether a model that was trained on this many other folds predicts the row's label."""
    rows, folds = data.rows, data.rows.folds
    fold, labels = rows.fold[rows.labeled], rows.targets[rows.labeled].argmax(axis=1)
    correct = np.zeros(len(labels), dtype=bool)

    def evaluate_fold(fold_index: int) -> None:
        train_folds = [folds[(fold_index + step) % len(folds)] for step in range(1, n_train_folds + 1)]
        train_rows, test_rows = np.flatnonzero(np.isin(fold, train_folds)), np.flatnonzero(fold == folds[fold_index])
        predicted = data.fit_predict(LEARNER, train_rows, test_rows).argmax(axis=1)
        correct[test_rows] = predicted == labels[test_rows]

    in_threads(evaluate_fold, range(len(folds)))
    return correct[evaluation_rows.labeled_index]


def learning_curve(data: TrainingData, evaluation_rows: EvaluationRows) -> LearningCurveRecord | None:
    """Accuracy of logistic regression by number of folds; None with fewer than three folds or no labeled rows."""
    n_folds = len(data.rows.folds)
    if n_folds < 3 or len(evaluation_rows.labeled_index) == 0:
        return None
    n_labels, points = len(data.rows.labeled), []
    for n_train_folds in range(1, n_folds):
        correct = correct_with_folds(data, evaluation_rows, n_train_folds)
        accuracy = EstimateRecord.of(wilson(int(correct.sum()), len(correct)))
        labels = round(n_labels * n_train_folds / n_folds, 1)
        points.append(LearningCurvePointRecord(labels=labels, accuracy=accuracy))
    return LearningCurveRecord(labels=n_labels, rows=len(evaluation_rows.labeled_index), points=tuple(points))


def worth_in_labels(  # noqa: PLR0913  (the correctness of the same rows by four sets of models, each by its name)
    with_few: Floats,
    with_many: Floats,
    old: Floats,
    new: Floats,
    groups: NDArray[np.str_],
    labels: int,
    ratio: float,
    rng: np.random.Generator,
    draws: int = 500,
) -> Estimate | None:
    """Estimate how many more labels would have reduced the error as the round did, with an interval.

    The error is modeled as error ∝ labels^-b (`power_law_exponent`), with b from the errors with few and with many
    labels. The round is then worth labels × ((old error / new error)^(1/b) − 1). None if more labels did not help, so
    that b cannot be estimated.

    with_few, with_many, old, new: (n_rows,), correctness (0 to 1) of the same rows with few labels, with `ratio`
        times as many, before the round, and after it.
    labels: current number of labels.
    """

    def worth(rows: NDArray[np.intp]) -> float:
        errors = [max(1 - float(correct[rows].mean()), 0.5 / len(rows)) for correct in (with_few, with_many, old, new)]
        exponent = float(power_law_exponent([1.0, ratio], np.array(errors[:2])))
        return float(labels * np.clip((errors[2] / errors[3]) ** (1 / exponent) - 1, -1.0, MAX_WORTH_RATIO))

    if with_few.mean() >= with_many.mean() or len(groups) == 0:
        return None
    return interval(worth, groups, draws=draws, confidence=CONFIDENCE, rng=rng)
