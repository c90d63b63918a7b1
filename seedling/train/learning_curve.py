"""How fast errors fall with labels: what a round's gain is worth in them, and what more of them would buy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedling.parallel.executor import in_threads
from seedling.stats.statistics import Estimate, Floats, interval, wilson
from seedling.train.choice import Judged
from seedling.train.cross_validation import TrainingData

LEARNER = "logistic_regression"
FLATTEST, STEEPEST = 0.05, 1.0  # exponents of the error's fall that are believed
AT_MOST = 50.0  # times the labels that there are: beyond, "as if" says nothing
CONFIDENCE = 0.8  # of the interval: with few rows a curve of two points is rough, and the page says so


def right_with(bench: TrainingData, judged: Judged, folds_taught: int) -> NDArray[np.bool_]:
    """(n_labeled_judged,): whether each is right by a model that was taught so many of the other folds' labels."""
    rows, folds = bench.rows, bench.rows.folds
    fold, labels = rows.fold[rows.labeled], rows.targets[rows.labeled].argmax(axis=1)
    right = np.zeros(len(labels), dtype=bool)

    def judge(place: int) -> None:
        following = [folds[(place + step) % len(folds)] for step in range(1, folds_taught + 1)]
        taught, asked = np.flatnonzero(np.isin(fold, following)), np.flatnonzero(fold == folds[place])
        right[asked] = bench.said_by(LEARNER, taught, asked).argmax(axis=1) == labels[asked]

    in_threads(judge, range(len(folds)))
    return right[judged.place]


def learning_curve(bench: TrainingData, judged: Judged) -> dict[str, Any] | None:
    """Accuracy with ever more of the folds' labels, by logistic regression. None where there are too few folds, or validation rows alone.

    {"labels": how many there are, "rows": how many are judged, "points": [{"labels", "accuracy"}]}.
    """
    folds = len(bench.rows.folds)
    if folds < 3 or len(judged.place) == 0:
        return None
    labels, points = len(bench.rows.labeled), []
    for taught in range(1, folds):
        right = right_with(bench, judged, taught)
        accuracy = wilson(int(right.sum()), len(right)).rounded()
        points.append({"labels": round(labels * taught / folds, 1), "accuracy": accuracy})
    return {"labels": labels, "rows": len(judged.place), "points": points}


def worth_in_labels(
    few: Floats,
    many: Floats,
    old: Floats,
    new: Floats,
    groups: NDArray[np.str_],
    labels: int,
    ratio: float,
    rng: np.random.Generator,
    draws: int = 500,
) -> Estimate | None:
    """How many labels more would have contributed the step from `old` to `new`, with an interval; None where nothing can be said.

    few, many, old, new: (n_rows,), how right the same rows were with few labels and with `ratio` times as many, before the
    round and after it; labels: how many there are now. The error is taken to fall as labels^-b (Hestness et al. 2017), b
    from the first two; then labels × ((error before / error after)^(1/b) − 1).
    """

    def one(rows: NDArray[np.intp]) -> float:
        errors = [max(1 - float(each[rows].mean()), 0.5 / len(rows)) for each in (few, many, old, new)]
        exponent = float(np.clip(np.log(errors[0] / errors[1]) / np.log(ratio), FLATTEST, STEEPEST))
        return float(labels * np.clip((errors[2] / errors[3]) ** (1 / exponent) - 1, -1.0, AT_MOST))

    if few.mean() >= many.mean() or len(groups) == 0:
        return None
    return interval(one, groups, draws=draws, confidence=CONFIDENCE, rng=rng)
