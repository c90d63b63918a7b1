"""Unknown classes: leave out each class in turn and measure how well confidence separates its rows from known ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from seedling.config.params import WorkspaceConfig
from seedling.parallel.executor import in_threads
from seedling.records.candidates import HardestClassRecord, UnknownClassesRecord
from seedling.records.intervals import EstimateRecord
from seedling.stats.randomness import derived_seed
from seedling.stats.statistics import Estimate, softmax
from seedling.train.candidates import predicted_seconds
from seedling.train.choice import EvaluationRows
from seedling.train.tally import Candidate
from seedling.train.training_data import TrainingData

LEARNER = "logistic_regression"
MAX_CLASSES = 20
BUDGET_SECONDS = {"quick": 5.0, "normal": 20.0, "thorough": 300.0}  # of one core, predicted; it limits the classes
MIN_ROWS = 3  # of the class that is left out, and of the others
MIN_CLASSES = 3


def unknown_classes(
    data: TrainingData, evaluation_rows: EvaluationRows, classes: Sequence[str], config: WorkspaceConfig
) -> UnknownClassesRecord | None:
    """AUROC of the maximum softmax probability for telling a class without training rows from held-out known rows.

    Gives the mean over the classes that are left out with Student's t interval, and the class with the lowest AUROC.
    None for fewer than three classes. Out-of-scope rows would show the same; this estimates it from labeled rows. The
    score is that of Hendrycks and Gimpel (2017).
    """
    from sklearn.metrics import roc_auc_score

    rows, folds = data.rows, data.rows.folds
    labels, fold = rows.targets[rows.labeled].argmax(axis=1), rows.fold[rows.labeled]
    is_evaluated = np.zeros(len(labels), dtype=bool)
    is_evaluated[evaluation_rows.labeled_index] = True
    eligible = [label for label in range(len(classes)) if (is_evaluated & (labels == label)).sum() >= MIN_ROWS]
    seconds_per_model = predicted_seconds(Candidate(LEARNER, ("collected",)), data) / (len(folds) + 1)
    n_tried = min(MAX_CLASSES, int(BUDGET_SECONDS[config.effort] / max(seconds_per_model, 1e-9)), len(eligible))
    shuffled = sorted(eligible, key=lambda label: derived_seed(config.seed, "unknown", classes[label]))
    tried = sorted(shuffled[:n_tried])
    if len(folds) < 2 or len(tried) < MIN_CLASSES:
        return None

    def auroc(number: int) -> float | None:
        left_out, held_out_fold = tried[number], folds[number % len(folds)]
        is_known = labels != left_out
        train_rows = np.flatnonzero(is_known & (fold != held_out_fold))
        known_rows = np.flatnonzero(is_known & (fold == held_out_fold) & is_evaluated)
        if len(known_rows) < MIN_ROWS or len(np.unique(labels[train_rows])) < 2:
            return None
        unknown_rows = np.flatnonzero(~is_known & is_evaluated)
        test_rows = np.concatenate([known_rows, unknown_rows])
        confidence = softmax(data.fit_predict(LEARNER, train_rows, test_rows)).max(axis=1)
        return float(roc_auc_score(np.arange(len(test_rows)) < len(known_rows), confidence))

    aurocs = in_threads(auroc, list(range(len(tried))))
    results = [(value, classes[label]) for value, label in zip(aurocs, tried, strict=True) if value is not None]
    if len(results) < MIN_CLASSES:
        return None
    values = np.array([value for value, _ in results])
    margin = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
    mean = float(values.mean())
    lowest, hardest_class = min(results)
    return UnknownClassesRecord(
        classes=len(values),
        auroc=EstimateRecord.of(Estimate(mean, max(0.0, mean - margin), min(1.0, mean + margin))),
        hardest=HardestClassRecord(name=hardest_class, auroc=round(lowest, 6)),
    )
