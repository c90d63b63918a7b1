"""Filters decide which pseudo-labels are kept; each filter is a pure function of a row's predictions.

All filters are compared on labeled rows that are held out and treated like the pool. A filter other than `all` is used
only if it is significantly better (bootstrap): wrong labels with a low weight cost less than missing correct ones.

The filters do not use the noise model of seedling/label_quality: it infers how often people's labels are wrong, where
no true class is observed. How often the teacher's labels are wrong is observed on the held-out rows, as a binomial
share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from seedling.records.intervals import EstimateRecord
from seedling.records.stage_notes import MIN_P_BETTER_FILTER, FilterTrial
from seedling.stats.statistics import Estimate, Floats, Ints, wilson

Mask = NDArray[np.bool_]
BOOTSTRAP_SAMPLES = 500


@dataclass(frozen=True)
class FilterInput:
    """The values that a filter can use.

    probabilities: (n_rows, n_classes), rows sum to 1; agrees: (n_rows,), whether teacher and neighbors predict the same
    class; curriculum_share: share of the pool that this round may keep, 0 to 1; unreliable: (n_classes,), classes whose
    held-out pseudo-labels are mostly wrong; dropout_std: (n_rows,), Monte Carlo dropout standard deviation.
    """

    probabilities: Floats
    agrees: Mask
    curriculum_share: float
    unreliable: Mask
    dropout_std: Floats

    @cached_property
    def predicted(self) -> Ints:
        """(n_rows,): class indices."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @cached_property
    def confidence(self) -> Floats:
        """(n_rows,), 0 to 1."""
        return np.asarray(self.probabilities.max(axis=1))


def keep_all(rows: FilterInput, threshold: float) -> Mask:
    """Keep every row, weighted by its confidence."""
    return np.ones(len(rows.probabilities), dtype=bool)


def fixed_confidence(rows: FilterInput, threshold: float) -> Mask:
    """Keep rows with at least this confidence (Lee 2013; Sohn et al. 2020)."""
    return rows.confidence >= threshold


def class_wise(rows: FilterInput, threshold: float) -> Mask:
    """Keep rows that are confident enough for their class (after FreeMatch, Wang et al. 2023).

    limit(class) = threshold × mean confidence × mean confidence of the class / highest mean confidence of a class.
    Difficult classes keep some rows, and so does a model with low confidence in all rows, as after few labels.
    """
    if len(rows.probabilities) == 0:
        return np.zeros(0, dtype=bool)
    predicted, confidence = rows.predicted, rows.confidence
    n_classes = rows.probabilities.shape[1]
    n_rows = np.bincount(predicted, minlength=n_classes)
    class_confidence = np.bincount(predicted, weights=confidence, minlength=n_classes) / np.maximum(n_rows, 1)
    limits = threshold * confidence.mean() * class_confidence / class_confidence.max()
    return np.asarray(confidence >= limits[predicted])


def top_per_class(rows: FilterInput, threshold: float) -> Mask:
    """Keep the more confident half of each class's rows."""
    kept = np.zeros(len(rows.probabilities), dtype=bool)
    for label in np.unique(rows.predicted):
        positions = np.flatnonzero(rows.predicted == label)
        order = positions[np.argsort(-rows.confidence[positions], kind="stable")]
        kept[order[: -(-len(positions) // 2)]] = True
    return kept


def agreement(rows: FilterInput, threshold: float) -> Mask:
    """Keep rows for which teacher and neighbors predict the same class."""
    return rows.agrees


def dropout_certainty(rows: FilterInput, threshold: float) -> Mask:
    """Keep rows with a dropout standard deviation of at most 1 − threshold (after Rizve et al. 2021)."""
    return np.asarray(rows.dropout_std <= 1 - threshold)


def without_unreliable_classes(rows: FilterInput, threshold: float) -> Mask:
    """Drop rows of classes whose held-out pseudo-labels are mostly wrong."""
    return np.asarray(~rows.unreliable[rows.predicted])


def curriculum(rows: FilterInput, threshold: float) -> Mask:
    """Keep the most confident rows, more of them in each round (Cascante-Bonilla et al. 2021)."""
    if len(rows.probabilities) == 0:
        return np.zeros(0, dtype=bool)
    return np.asarray(rows.confidence >= np.quantile(rows.confidence, 1 - rows.curriculum_share))


FILTERS: dict[str, Callable[[FilterInput, float], Mask]] = {
    "all": keep_all,
    "confidence": fixed_confidence,
    "class_wise": class_wise,
    "top_per_class": top_per_class,
    "agreement": agreement,
    "dropout_certainty": dropout_certainty,
    "without_unreliable_classes": without_unreliable_classes,
    "curriculum": curriculum,
}


@dataclass(frozen=True)
class FilterResult:
    """A filter's result on held-out rows: number of kept rows, their precision, and the gain (see `expected_gain`)."""

    filter: str
    kept: int
    precision: Estimate | None
    gain: float
    probability_better: float  # than `all`

    def record(self) -> FilterTrial:
        """The entry in the manifest."""
        return FilterTrial(
            filter=self.filter,
            kept=self.kept,
            precision=None if self.precision is None else EstimateRecord.of(self.precision),
            gain=round(self.gain, 6),
            probability_better=round(self.probability_better, 6),
        )


def expected_gain(kept: Mask, correct: Mask, confidence: Floats, classes: int) -> float:
    """Correct labels above chance per pool row, weighted as in training.

    gain = Σ weight × (1 if correct, −1/(classes − 1) if wrong) / rows. It is 0 for random labels, and 1 if all labels
    are correct with confidence 1. classes: number of classes.
    """
    value = np.where(correct, 1.0, -1.0 / max(1, classes - 1))
    return float((kept * confidence * value).mean()) if len(kept) else 0.0


def compare_filters(
    held_out: FilterInput, truth: Ints, threshold: float, rng: np.random.Generator
) -> tuple[str, list[FilterResult]]:
    """Return the filter to use and the results of all filters. truth: (n_rows,), labels of the held-out rows."""
    correct, confidence = held_out.predicted == truth, held_out.confidence
    n_rows, n_classes = len(truth), held_out.probabilities.shape[1]
    samples = (
        rng.integers(n_rows, size=(BOOTSTRAP_SAMPLES, n_rows))
        if n_rows
        else np.zeros((BOOTSTRAP_SAMPLES, 0), dtype=np.intp)
    )
    value = confidence * np.where(correct, 1.0, -1.0 / max(1, n_classes - 1))
    table: list[FilterResult] = []
    for name, filter_rows in FILTERS.items():
        kept = filter_rows(held_out, threshold)
        n_correct, n_kept = int(correct[kept].sum()), int(kept.sum())
        advantage = (kept * value - value)[samples].mean(axis=1) if n_rows else np.zeros(BOOTSTRAP_SAMPLES)
        table.append(
            FilterResult(
                filter=name,
                kept=n_kept,
                precision=wilson(n_correct, n_kept) if n_kept else None,
                gain=expected_gain(kept, correct, confidence, n_classes),
                probability_better=float((advantage > 0).mean()),
            )
        )
    better = [result for result in table if result.probability_better >= MIN_P_BETTER_FILTER]
    return (max(better, key=lambda result: result.gain).filter if better else "all"), table


def unreliable_classes(predicted: Ints, truth: Ints, classes: int) -> Mask:
    """(n_classes,): classes whose precision on held-out rows is significantly below 0.5 (Wilson interval)."""
    unreliable = np.zeros(classes, dtype=bool)
    for label in np.unique(predicted):
        rows = predicted == label
        unreliable[label] = wilson(int((truth[rows] == label).sum()), int(rows.sum())).high < 0.5
    return unreliable
