"""Label weights: how much each row's label counts in training, estimated by models that were not fitted on the row.

    weight_i = p_i(l_i) / max_k p_i(k),   p_i = softmax(out-of-fold logits / T), T fitted to the labels.

This is not the probability that the label is correct (see the package's docstring), although both use out-of-fold
probabilities. P(y_i = l_i | l_i) counts the label itself as evidence: with one wrong label in ten, a label that the
features make four times less likely than another class is still probably correct, and counts nearly in full. The weight
asks only how well the features support the label. A few wrong labels then cannot bend the model, and no prior is
needed. Weighted by the posterior instead, logistic regression is 2 points less accurate with 10 and 20 % wrong labels
(docs/architecture.md, "Label weights").
"""

from __future__ import annotations

import numpy as np

from seedling.dataset.training_rows import TrainingRows
from seedling.features.classical import Inputs
from seedling.models.saving import make_learner
from seedling.models.training import FitContext
from seedling.stats.statistics import Floats, fit_temperature, softmax

LABEL_WEIGHTED_LOSSES = ("label_weighted", "label_weighted_twice")


def estimate_label_weights(
    rows: TrainingRows, inputs: Inputs, context: FitContext, fold_index: int, weights_before: Floats
) -> Floats:
    """(n_labeled,), 0 to 1: p(label) / max_k p(k) for each labeled row, with out-of-fold probabilities p.

    The cross-validation excludes the rows of the fold model's own fold, so that they do not influence its weights.
    Their weight is 1.

    fold_index: position in `rows.folds` of the fold that the model never sees; weights_before: (n_labeled,), the label
    weights with which the cross-validated models are fitted.
    """
    folds, labeled = rows.folds, rows.labeled
    seen = [fold for position, fold in enumerate(folds) if position != fold_index]
    fold, targets, weights = rows.fold[labeled], rows.targets[labeled], rows.weights[labeled] * weights_before
    logits = np.zeros_like(targets)
    not_evaluable = np.zeros(len(labeled), dtype=bool)  # no other fold holds a row of the class
    if len(seen) < 2:
        return np.ones(len(labeled))
    for held_out in seen:
        training = np.flatnonzero(np.isin(fold, seen) & (fold != held_out))
        evaluation = np.flatnonzero(fold == held_out)
        learner = make_learner("logistic_regression", context)
        learner.fit(inputs.take(labeled[training]), targets[training], weights[training])
        logits[evaluation] = learner.logits(inputs.take(labeled[evaluation]))
        not_evaluable[evaluation] = targets[training].sum(axis=0)[targets[evaluation].argmax(axis=1)] == 0
    evaluated = np.isin(fold, seen) & ~not_evaluable
    labels = targets.argmax(axis=1)
    probabilities = softmax(logits / fit_temperature(logits[evaluated], labels[evaluated]))
    p_label = probabilities[np.arange(len(labels)), labels]
    result: Floats = np.where(evaluated, p_label / probabilities.max(axis=1), 1.0)
    # Rows that cannot be evaluated get the mean weight. Any other value would reveal to the fold model which classes
    # have a row in the fold that it must not see, and would make this loss look better than it is.
    if not_evaluable.any() and evaluated.any():
        result[not_evaluable] = result[evaluated].mean()
    return result
