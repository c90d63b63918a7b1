"""Metrics of predicted probabilities, each with an interval that accounts for near-duplicate groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seedling.config.params import EvaluateParams
from seedling.evaluate import intervals
from seedling.evaluate.calibration import calibration_error
from seedling.records.evaluation import ClassResultRecord, MajorityBaselineRecord
from seedling.records.intervals import EstimateRecord
from seedling.stats.randomness import generator
from seedling.stats.statistics import (
    SMALLEST,
    Estimate,
    Floats,
    Ints,
    briers,
    chances_if_wrong,
    confusion,
    log_losses,
    of_truth,
    share,
    wilson,
)

MIN_CLASSES_FOR_TOP_3 = 6
TOP_K = 3


class BootstrapArguments(TypedDict):
    """The arguments of the functions that draw bootstrap samples."""

    draws: int
    confidence: float
    rng: np.random.Generator


def with_intervals(
    probabilities: Floats,
    truth: Ints,
    groups: NDArray[np.str_],
    params: EvaluateParams,
    seed: int,
    ranks: Ints | None = None,
) -> dict[str, EstimateRecord | None]:
    """Each metric with its interval, or None if there are no rows.

    The metrics are accuracy, balanced_accuracy, macro_f1, log_loss, brier, calibration_error, with six classes or more
    top_3_accuracy, and with `ranks` steps_off.

    brier: sum over classes of (p - y)^2, averaged over rows, between 0 and 2 (Brier 1950); steps_off: mean absolute
    difference between the ranks of the predicted and the true class.

    probabilities: (n_rows, n_classes), rows sum to 1; truth: (n_rows,) class indices; groups: (n_rows,), resampled as
    a whole; ranks: (n_classes,), rank of each class if the classes are ordered.
    """
    n_classes, predicted = probabilities.shape[1], probabilities.argmax(axis=1)
    names = ["accuracy", "balanced_accuracy", "macro_f1", "log_loss", "brier", "calibration_error"]
    names += ["top_3_accuracy"] if n_classes >= MIN_CLASSES_FOR_TOP_3 else []
    names += ["steps_off"] if ranks is not None else []
    if len(truth) == 0:
        return dict.fromkeys(names)

    def bootstrap(name: str) -> BootstrapArguments:
        return {
            "draws": params.bootstrap_draws,
            "confidence": params.confidence,
            "rng": generator(seed, "evaluate", name),
        }

    estimates: dict[str, Estimate] = {
        "accuracy": accuracy(predicted, truth, groups, params),
        "top_3_accuracy": share(_in_top_k(probabilities, predicted, truth), groups, params.confidence),
        "calibration_error": calibration_error(
            probabilities, truth, groups, bins=params.calibration_bins, **bootstrap("calibration_error")
        ),
        **intervals.balanced_accuracy_and_macro_f1(predicted, truth, groups, **bootstrap("confusion")),
        **{
            name: intervals.mean(values, groups, wrong=wrong, maximum=maximum, **bootstrap(name))
            for name, (values, wrong, maximum) in _row_metrics(probabilities, predicted, truth, ranks).items()
        },
    }
    return {name: EstimateRecord.of(estimates[name]) for name in names}


def _row_metrics(
    probabilities: Floats, predicted: Ints, truth: Ints, ranks: Ints | None
) -> dict[str, tuple[Floats, float, float]]:
    """Metrics that are means over rows: the value per row, the value to expect of a wrong row, and the maximum."""
    n_classes = probabilities.shape[1]
    row_metrics: dict[str, tuple[Floats, float, float]] = {
        name: (of_truth(scores, truth), float((chances_if_wrong(probabilities) * scores).sum()), maximum)
        for name, scores, maximum in (
            ("log_loss", log_losses(probabilities), -np.log(SMALLEST)),
            ("brier", briers(probabilities), 2.0),
        )
    }
    if ranks is not None:
        steps = np.abs(ranks[predicted] - ranks[truth]).astype(np.float64)
        row_metrics["steps_off"] = (steps, (n_classes + 1) / 3, n_classes - 1.0)
    return row_metrics


def _in_top_k(probabilities: Floats, predicted: Ints, truth: Ints) -> NDArray[np.bool_]:
    """(n_rows,): whether the true class is among the TOP_K most probable ones; the single one with few classes."""
    if probabilities.shape[1] < MIN_CLASSES_FOR_TOP_3:
        return np.asarray(predicted == truth)
    top_k = np.argpartition(-probabilities, TOP_K - 1, axis=1)[:, :TOP_K]
    return np.asarray((top_k == truth[:, None]).any(axis=1))


def accuracy(predicted: Ints, truth: Ints, groups: NDArray[np.str_], params: EvaluateParams) -> Estimate:
    """The share of rows that are right, with its interval."""
    return share(predicted == truth, groups, params.confidence)


def per_class(
    predicted: Ints, truth: Ints, classes: Sequence[str], confidence: float = 0.95
) -> list[ClassResultRecord]:
    """Rows, precision and recall per class, with Wilson intervals; None if the denominator is 0."""
    table = confusion(predicted, truth, len(classes))
    results = []
    for index, name in enumerate(classes):
        hits, n_true, n_predicted = int(table[index, index]), int(table[index].sum()), int(table[:, index].sum())
        results.append(
            ClassResultRecord(
                name=name,
                rows=n_true,
                recall=EstimateRecord.of(wilson(hits, n_true, confidence)) if n_true else None,
                precision=EstimateRecord.of(wilson(hits, n_predicted, confidence)) if n_predicted else None,
            )
        )
    return results


def majority_baseline(labels: Mapping[str, int], truth: pd.Series) -> MajorityBaselineRecord | None:
    """The class with most training labels, and the accuracy of always predicting it. None without labels or rows.

    Of several classes with most labels, the one with most evaluation rows: labels are often drawn class by class.

    labels: number of training labels by class; truth: labels of the evaluation rows.
    """
    if not any(labels.values()) or truth.empty:
        return None
    rows = truth.value_counts()
    name = min(labels, key=lambda label: (-labels[label], -int(rows.get(label, 0)), label))
    return MajorityBaselineRecord(name=name, accuracy=float((truth == name).mean()))


def calibration_bins(probabilities: Floats, truth: Ints, bins: int) -> list[dict[str, float]]:
    """Mean confidence, accuracy and number of rows per bin of confidence; empty bins are left out."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    bin_of_row = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {
            "confidence": round(float(confidence[bin_of_row == bin_index].mean()), 6),
            "accuracy": round(float(right[bin_of_row == bin_index].mean()), 6),
            "rows": int((bin_of_row == bin_index).sum()),
        }
        for bin_index in range(bins)
        if (bin_of_row == bin_index).any()
    ]
