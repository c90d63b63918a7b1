"""How far each row's own label is believed, by models that did not learn from the row."""

from __future__ import annotations

import numpy as np

from seedling.dataset.training_rows import TrainingRows
from seedling.features.classical import Inputs
from seedling.models.saving import make_learner
from seedling.models.training import FitContext
from seedling.stats.statistics import Floats, fit_temperature, softmax

TRUSTED = ("label_weighted", "label_weighted_twice")  # the losses in which it counts


def trust_in_labels(rows: TrainingRows, inputs: Inputs, setting: FitContext, place: int, before: Floats) -> Floats:
    """(n_labeled,), 0 to 1: each label's probability over the likeliest class's. Cross-validation within the lineage: nothing
    that it never sees has a say. before: (n_labeled,), the trust with which the models learn.
    """
    folds, labeled = rows.folds, rows.labeled
    seen = [fold for number, fold in enumerate(folds) if number != place]
    fold, targets, weights = rows.fold[labeled], rows.targets[labeled], rows.weights[labeled] * before
    logits = np.zeros_like(targets)
    unknown = np.zeros(len(labeled), dtype=bool)  # their class stands in no other fold: no model can judge them
    if len(seen) < 2:
        return np.ones(len(labeled))
    for one in seen:
        others = np.flatnonzero(np.isin(fold, seen) & (fold != one))
        asked = np.flatnonzero(fold == one)
        learner = make_learner("logistic_regression", setting)
        learner.fit(inputs.take(labeled[others]), targets[others], weights[others])
        logits[asked] = learner.logits(inputs.take(labeled[asked]))
        unknown[asked] = targets[others].sum(axis=0)[targets[asked].argmax(axis=1)] == 0
    mine = np.isin(fold, seen) & ~unknown
    truth = targets.argmax(axis=1)
    probabilities = softmax(logits / fit_temperature(logits[mine], truth[mine]))
    given = probabilities[np.arange(len(truth)), truth]
    result: Floats = np.where(mine, given / probabilities.max(axis=1), 1.0)
    # As much as the others in the mean: any other value would tell the lineage which classes have a row in the fold that it
    # must not see, and make this loss look better than it is.
    if unknown.any() and mine.any():
        result[unknown] = result[mine].mean()
    return result
