"""Metrics of probabilities against the truth, each with its interval over near-duplicate groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedling.config.params import EvaluateParams
from seedling.evaluate import intervals
from seedling.evaluate.calibration import calibration_error
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

ENOUGH_CLASSES = 6  # for "among the three likeliest" to say something
TOP = 3


def with_intervals(
    probabilities: Floats,
    truth: Ints,
    groups: NDArray[np.str_],
    params: EvaluateParams,
    seed: int,
    ranks: Ints | None = None,
) -> dict[str, dict[str, float] | None]:
    """accuracy, balanced_accuracy, macro_f1, log_loss, brier, calibration_error, from six classes on top_3_accuracy, and with `ranks`
    steps_off; each {"value", "low", "high"}, None where there is no row.

    probabilities: (n_rows, n_classes), rows sum to 1; truth: (n_rows,) class numbers; groups: (n_rows,), which count whole. brier: the
    squared distance of a row's probabilities from what it is (Brier 1950), 0 to 2; ranks: (n_classes,), each class's place where they
    have an order; steps_off: how many places away the prediction is.
    """
    classes, said = probabilities.shape[1], probabilities.argmax(axis=1)
    names = ["accuracy", "balanced_accuracy", "macro_f1", "log_loss", "brier", "calibration_error"]
    names += (["top_3_accuracy"] if classes >= ENOUGH_CLASSES else []) + (["steps_off"] if ranks is not None else [])
    if len(truth) == 0:
        return dict.fromkeys(names)

    def drawn(name: str) -> dict[str, Any]:
        return {
            "draws": params.bootstrap_draws,
            "confidence": params.confidence,
            "rng": generator(seed, "evaluate", name),
        }

    of_rows: dict[str, tuple[Floats, float, float]] = {  # of each row, of one that is wrong, and the most that there is
        name: (of_truth(scores, truth), float((chances_if_wrong(probabilities) * scores).sum()), most)
        for name, scores, most in (
            ("log_loss", log_losses(probabilities), -np.log(SMALLEST)),
            ("brier", briers(probabilities), 2.0),
        )
    }
    if ranks is not None:
        steps = np.abs(ranks[said] - ranks[truth]).astype(np.float64)
        of_rows["steps_off"] = (steps, (classes + 1) / 3, classes - 1.0)
    among = np.argpartition(-probabilities, TOP - 1, axis=1)[:, :TOP] if classes >= ENOUGH_CLASSES else said[:, None]
    found: dict[str, Estimate] = {
        "accuracy": accuracy(said, truth, groups, params),
        "top_3_accuracy": share((among == truth[:, None]).any(axis=1), groups, params.confidence),
        "calibration_error": calibration_error(
            probabilities, truth, groups, bins=params.calibration_bins, **drawn("calibration_error")
        ),
        **intervals.of_confusion(said, truth, groups, **drawn("confusion")),
        **{
            name: intervals.mean(values, groups, wrong=wrong, most=most, **drawn(name))
            for name, (values, wrong, most) in of_rows.items()
        },
    }
    return {name: found[name].rounded() for name in names}


def accuracy(said: Ints, truth: Ints, groups: NDArray[np.str_], params: EvaluateParams) -> Estimate:
    """The share of rows that are right."""
    return share(said == truth, groups, params.confidence)


def per_class(said: Ints, truth: Ints, classes: Sequence[str], confidence: float = 0.95) -> list[dict[str, Any]]:
    """Rows, precision and recall of each class, each share with Wilson's interval; None where there is nothing to divide."""
    table = confusion(said, truth, len(classes))
    found = []
    for place, name in enumerate(classes):
        hits, were, called = int(table[place, place]), int(table[place].sum()), int(table[:, place].sum())
        found.append(
            {
                "class": name,
                "rows": were,
                "recall": wilson(hits, were, confidence).rounded() if were else None,
                "precision": wilson(hits, called, confidence).rounded() if called else None,
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
