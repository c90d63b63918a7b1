"""Limits of use: selective prediction, and rows that belong to none of the classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seedling.config.params import EvaluateParams
from seedling.evaluate.intervals import auroc
from seedling.records.evaluation import OperatingPointRecord, OutOfScopeRecord
from seedling.records.intervals import EstimateRecord
from seedling.stats.randomness import generator
from seedling.stats.statistics import Floats, share, wilson

MAX_ERROR_RATES = (0.01, 0.02, 0.05, 0.1)  # among the covered rows
MAX_CURVE_POINTS = 60
MAX_AUROC_DRAWS = 1_000  # each draw sorts all rows


def risk_coverage_curve(confidence: Floats, right: NDArray[np.bool_]) -> list[dict[str, float]]:
    """Coverage, error rate among the covered rows and threshold, as the threshold falls.

    confidence, right: (n_rows,). The first k rows by falling confidence have coverage k / n and error
    sum(wrong) / k.
    """
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(~right[order])
    last = np.flatnonzero(np.append(np.diff(confidence[order]) < 0, True)) if len(order) else np.zeros(0, dtype=int)
    points = last[np.unique(np.linspace(0, len(last) - 1, MAX_CURVE_POINTS).round().astype(int))] if len(last) else last
    return [
        {
            "coverage": round(float((point + 1) / len(order)), 6),
            "error": round(float(wrong[point] / (point + 1)), 6),
            "confidence": round(float(confidence[order[point]]), 6),
        }
        for point in points
    ]


def threshold_for(confidence: Floats, right: NDArray[np.bool_], max_error_rate: float) -> float | None:
    """The lowest confidence at which at most `max_error_rate` of the covered rows are wrong.

    0 if the error rate of all rows is low enough; None if no threshold is enough, or there are no rows.
    """
    order = np.argsort(-confidence, kind="stable")
    error_rates = np.cumsum(~right[order]) / np.arange(1, len(order) + 1)
    last = np.append(np.diff(confidence[order]) < 0, True)  # rows of equal confidence are covered together
    allowed = np.flatnonzero((error_rates <= max_error_rate) & last) if len(order) else np.zeros(0, dtype=int)
    if not len(allowed):
        return None
    return 0.0 if allowed[-1] == len(order) - 1 else float(confidence[order[allowed[-1]]])


def operating_points(
    selection: tuple[Floats, NDArray[np.bool_]],
    evaluation: tuple[Floats, NDArray[np.bool_], NDArray[np.str_]],
    params: EvaluateParams,
) -> list[OperatingPointRecord]:
    """The threshold for each error rate of MAX_ERROR_RATES, and its coverage and error rate with intervals.

    selection: confidence and whether right, (n_rows,), of the cross-validated rows that choose the thresholds;
    evaluation: the same with the groups, of the rows that coverage and error rate are measured on.
    """
    confidence, right, groups = evaluation
    points = []
    for max_error_rate in MAX_ERROR_RATES:
        threshold = threshold_for(*selection, max_error_rate)
        covered = confidence >= threshold if threshold is not None else np.zeros(len(confidence), dtype=bool)
        points.append(
            OperatingPointRecord(
                max_error_rate=max_error_rate,
                threshold=None if threshold is None else round(threshold, 6),
                coverage=EstimateRecord.of(share(covered, groups, params.confidence)) if len(covered) else None,
                errors=EstimateRecord.of(share(~right[covered], groups[covered], params.confidence))
                if covered.any()
                else None,
            )
        )
    return points


def out_of_scope(
    inside: Floats,
    outside: Floats,
    threshold: float,
    params: EvaluateParams,
    seed: int,
    background_class: int | None = None,
) -> OutOfScopeRecord | None:
    """How well confidence separates rows of the classes from rows that belong to none of them.

    Returns the AUROC and the share of the outside rows that reach the threshold; None without rows of both kinds.

    inside, outside: (n_rows, n_classes) probabilities; threshold: confidence below which the model abstains;
    background_class: index of the class for rows of no other class, which does not count as a prediction here.
    """
    if not (len(inside) and len(outside)):
        return None
    inside_scores, outside_scores = (_scores(probabilities, background_class) for probabilities in (inside, outside))
    estimate = auroc(
        inside_scores,
        outside_scores,
        draws=min(params.bootstrap_draws, MAX_AUROC_DRAWS),
        confidence=params.confidence,
        rng=generator(seed, "evaluate", "auroc"),
    )
    covered = int((outside_scores >= threshold).sum())
    return OutOfScopeRecord(
        rows=len(outside),
        auroc=EstimateRecord.of(estimate),
        coverage=EstimateRecord.of(wilson(covered, len(outside), params.confidence)),
    )


def _scores(probabilities: Floats, background_class: int | None) -> Floats:
    """(n_rows,): the highest probability of a class other than the background class.

    For rows that are predicted as background, it is capped at 0.5 / n_classes.
    """
    if background_class is None:
        others, is_background = probabilities, np.zeros(len(probabilities), dtype=bool)
    else:
        others = np.delete(probabilities, background_class, axis=1)
        is_background = probabilities.argmax(axis=1) == background_class
    highest: Floats = others.max(axis=1)
    return np.where(is_background, np.minimum(highest, 0.5 / probabilities.shape[1]), highest).astype(np.float64)
