"""Split-to-split variation: repeat cross-validation with other folds, with learners that train in seconds."""

from __future__ import annotations

import warnings
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from seedling.config.params import WorkspaceConfig
from seedling.parallel.executor import in_threads
from seedling.records.candidates import FoldAccuraciesRecord, LearnerAccuracyRecord, RepeatedRecord
from seedling.records.intervals import EstimateRecord
from seedling.stats.randomness import derived_seed
from seedling.stats.statistics import Estimate, Floats, wilson
from seedling.train.candidates import predicted_seconds
from seedling.train.choice import EvaluationRows
from seedling.train.tally import Candidate
from seedling.train.training_data import TrainingData

LEARNERS = ("logistic_regression", "svm")
MAX_REPEATS = {"quick": 2, "normal": 5, "thorough": 10}
BUDGET_SECONDS = {"quick": 5.0, "normal": 20.0, "thorough": 600.0}  # of one core, predicted; it limits the repeats
MIN_REPEATS = 2  # fewer show no variation


def repeated_cross_validation(
    data: TrainingData, evaluation_rows: EvaluationRows, config: WorkspaceConfig
) -> RepeatedRecord | None:
    """Accuracy on the evaluation rows in each fold of several random splits, with near-duplicates in the same fold.

    Returns None if it would take too long or if the rows are too few for other folds.
    The intervals account for overlapping training sets (Nadeau and Bengio 2003).
    """
    rows = data.rows
    n_folds = len(rows.folds)
    seconds = sum(predicted_seconds(Candidate(learner, ("collected",)), data) for learner in LEARNERS)
    repeats = min(MAX_REPEATS[config.effort], int(BUDGET_SECONDS[config.effort] / max(seconds, 1e-9)))
    if n_folds < 2 or repeats < MIN_REPEATS or len(evaluation_rows.labeled_index) == 0:
        return None
    labels = rows.targets[rows.labeled].argmax(axis=1)
    splits = []
    for repeat in range(repeats):
        split = _split(labels, rows.group[rows.labeled], n_folds, derived_seed(config.seed, "dealt", repeat))
        if split is None:
            return None
        splits.append(split)
    accuracy = _accuracy_of_splits(data, evaluation_rows, labels, splits)
    return None if accuracy is None else _summary(accuracy, len(evaluation_rows.labeled_index))


def _accuracy_of_splits(
    data: TrainingData,
    evaluation_rows: EvaluationRows,
    labels: NDArray[np.intp],
    splits: list[NDArray[np.intp]],
) -> Floats | None:
    """(n_learners, n_repeats, n_folds): accuracy on the evaluation rows; None if a fold has none.

    labels: (n_labeled,); splits: (n_labeled,) each, the row's fold.
    """
    n_folds = len(data.rows.folds)
    is_evaluated = np.zeros(len(labels), dtype=bool)
    is_evaluated[evaluation_rows.labeled_index] = True
    accuracy = np.zeros((len(LEARNERS), len(splits), n_folds))
    n_test_rows = np.zeros((len(splits), n_folds))

    def evaluate_fold(task: tuple[int, int, int]) -> None:
        learner, repeat, fold = task
        held_out = splits[repeat] == fold
        test_rows = np.flatnonzero(held_out & is_evaluated)
        if len(test_rows):
            predicted = data.fit_predict(LEARNERS[learner], np.flatnonzero(~held_out), test_rows).argmax(axis=1)
            accuracy[task] = (predicted == labels[test_rows]).mean()
        n_test_rows[repeat, fold] = len(test_rows)

    in_threads(evaluate_fold, list(product(range(len(LEARNERS)), range(len(splits)), range(n_folds))))
    return None if (n_test_rows == 0).any() else accuracy


def _summary(accuracy: Floats, n_rows: int) -> RepeatedRecord:
    """See `repeated_cross_validation`. accuracy: (n_learners, n_repeats, n_folds)."""
    _, repeats, n_folds = accuracy.shape
    better = int(accuracy.mean(axis=(1, 2)).argmax())
    difference_by_repeat = accuracy[1].mean(axis=1) - accuracy[0].mean(axis=1)
    agree = float((np.sign(difference_by_repeat) == np.sign(difference_by_repeat.mean())).mean())
    lowest, lower, median, upper, highest = (
        round(float(value), 6) for value in np.quantile(accuracy[better], [0, 0.25, 0.5, 0.75, 1])
    )
    intervals = [corrected_interval(of_learner.ravel(), n_folds, (0.0, 1.0)) for of_learner in accuracy]
    difference = corrected_interval((accuracy[1] - accuracy[0]).ravel(), n_folds, (-1.0, 1.0))
    return RepeatedRecord(
        repeats=repeats,
        folds=n_folds,
        rows=n_rows,
        splits=FoldAccuraciesRecord(learner=LEARNERS[better], accuracy=(lowest, lower, median, upper, highest)),
        learners=tuple(
            LearnerAccuracyRecord(learner=name, accuracy=EstimateRecord.of(_at_least_wilson(estimate, n_rows)))
            for name, estimate in zip(LEARNERS, intervals, strict=True)
        ),
        difference=EstimateRecord.of(difference),
        agreement=round(agree, 6),
    )


def _split(labels: NDArray[np.intp], groups: NDArray[np.str_], folds: int, seed: int) -> NDArray[np.intp] | None:
    """(n_rows,): each row's fold, stratified by class as far as the groups allow.

    None with fewer groups than folds, or if no class has as many rows as there are folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if len(np.unique(groups)) < folds or np.bincount(labels).max() < folds:
        return None
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed % 2**32)
    fold_of_row = np.zeros(len(labels), dtype=np.intp)
    with warnings.catch_warnings():
        # Folds without a row of a rare class are accepted: the class is learned from the other folds.
        warnings.filterwarnings("ignore", message="The least populated class")
        for fold, (_, held_out) in enumerate(splitter.split(np.zeros((len(labels), 1)), labels, groups)):
            fold_of_row[held_out] = fold
    return fold_of_row


def _at_least_wilson(estimate: Estimate, rows: int) -> Estimate:
    """The interval, widened to the Wilson interval of as many rows: equal splits prove no more than their rows do."""
    of_rows = wilson(round(estimate.value * rows), rows)
    low, high = min(estimate.low, of_rows.low), max(estimate.high, of_rows.high)
    return Estimate(estimate.value, low, high)


def corrected_interval(scores: Floats, folds: int, bounds: tuple[float, float], confidence: float = 0.95) -> Estimate:
    """The mean over all splits with the interval of the corrected resampled t-test (Nadeau and Bengio 2003).

    mean ± t · sqrt(variance × (1 / n_splits + n_test / n_train)), where n_test / n_train = 1 / (folds − 1).

    scores: (n_splits,), one per fold of each repeat.
    bounds: lowest and highest possible value; the interval is clipped to them.
    """
    n_splits, mean = len(scores), float(scores.mean())
    variance = float(scores.var(ddof=1)) * (1 / n_splits + 1 / (folds - 1))
    margin = float(stats.t.ppf((1 + confidence) / 2, n_splits - 1)) * variance**0.5
    return Estimate(mean, max(bounds[0], mean - margin), min(bounds[1], mean + margin))
