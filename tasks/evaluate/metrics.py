"""Metrics of probabilities against the truth, each with a bootstrap interval over near-duplicate groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.params import EvaluateParams
from tasks.randomness import generator
from tasks.statistics import (
    Estimate,
    Floats,
    Ints,
    calibration_error,
    confusion,
    interval,
    log_loss_of_rows,
    macro_f1,
    wilson,
)


def with_intervals(
    probabilities: Floats, truth: Ints, groups: NDArray[np.str_], params: EvaluateParams, seed: int
) -> dict[str, dict[str, float] | None]:
    """accuracy, macro_f1, log_loss and calibration_error, each {"value", "low", "high"}; None where there is no row.

    probabilities: (n_rows, n_classes), rows sum to 1; truth: (n_rows,) class numbers; groups: (n_rows,), drawn whole.
    """
    classes, said = probabilities.shape[1], probabilities.argmax(axis=1)
    losses, right = log_loss_of_rows(probabilities, truth), said == truth
    metrics = {
        "accuracy": lambda rows: float(right[rows].mean()),
        "macro_f1": lambda rows: macro_f1(said[rows], truth[rows], classes),
        "log_loss": lambda rows: float(losses[rows].mean()),
        "calibration_error": lambda rows: calibration_error(probabilities[rows], truth[rows], params.calibration_bins),
    }
    if len(truth) == 0:
        return dict.fromkeys(metrics)
    found: dict[str, Estimate] = {
        name: interval(
            metric,
            groups,
            draws=params.bootstrap_draws,
            confidence=params.confidence,
            rng=generator(seed, "evaluate", name),
        )
        for name, metric in metrics.items()
    }
    return {name: estimate.rounded() for name, estimate in found.items()}


def per_class(said: Ints, truth: Ints, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Rows, precision and recall of each class, each share with Wilson's interval; None where there is nothing to divide."""
    table = confusion(said, truth, len(classes))
    found = []
    for place, name in enumerate(classes):
        hits, were, called = int(table[place, place]), int(table[place].sum()), int(table[:, place].sum())
        found.append(
            {
                "class": name,
                "rows": were,
                "recall": wilson(hits, were).rounded() if were else None,
                "precision": wilson(hits, called).rounded() if called else None,
            }
        )
    return found


def calibration_bins(probabilities: Floats, truth: Ints, bins: int) -> list[dict[str, float]]:
    """Mean confidence, accuracy and rows of each bin that holds rows."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {
            "confidence": round(float(confidence[place == one].mean()), 6),
            "accuracy": round(float(right[place == one].mean()), 6),
            "rows": int((place == one).sum()),
        }
        for one in range(bins)
        if (place == one).any()
    ]
