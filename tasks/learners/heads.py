"""Weak learners on features; each takes soft labels and weights, and gives logits whose scale a temperature sets."""

from __future__ import annotations

import warnings
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from tasks.learners.features import Inputs
from tasks.statistics import SMALLEST, Floats, softmax

ABSENT = np.log(SMALLEST)  # the logit of a class that a learner never saw
HEADS = ("logistic_regression", "random_forest", "boosted_trees")
DROPOUT_DRAWS = 10
LEFT_OUT = 0.1  # share of the features
ROWS_AT_ONCE = 2_048  # whose kernel values are in memory together


def hard_rows(targets: Floats, weights: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """A soft label as several hard ones: row numbers, classes and weights, one entry a class with a share.

    targets: (n_rows, n_classes), rows sum to 1; weights: (n_rows,). The weights of a row's entries sum to its weight.
    """
    rows, classes = np.nonzero(targets > 0)
    return rows, classes, (targets[rows, classes] * weights[rows]).astype(np.float64)


class Head:
    """A scikit-learn estimator on the features. Saved by skops, which runs no code when it loads."""

    def __init__(self, name: str, seed: int, classes: int, estimator: Any = None) -> None:
        self.name, self.seed, self.classes, self.estimator = name, seed, classes, estimator

    def fit(self, inputs: Inputs, targets: Floats, weights: Floats) -> None:
        """targets: (n_rows, n_classes), rows sum to 1; weights: (n_rows,)."""
        rows, labels, row_weights = hard_rows(targets, weights)
        self.estimator = make_estimator(self.name, self.seed, len(rows))
        if len(np.unique(labels)) == 1:  # near-duplicates that hold two classes can leave a fold with one
            from sklearn.dummy import DummyClassifier

            self.estimator = DummyClassifier()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="sklearn")
            warnings.filterwarnings("ignore", message=".*lbfgs failed to converge.*")
            self.estimator.fit(self._shown(inputs)[rows], labels, sample_weight=row_weights)

    def logits(self, inputs: Inputs) -> Floats:
        """(n_rows, n_classes); a class that was not in training gets the smallest there is."""
        found = self._scores(inputs)
        result = np.full((len(inputs), self.classes), ABSENT)
        result[:, self.estimator.classes_] = found
        return result

    def _scores(self, inputs: Inputs) -> Floats:
        if len(self.estimator.classes_) == 1:
            return np.zeros((len(inputs), 1))
        if self.name in {"random_forest", "boosted_trees"}:
            result: Floats = np.log(np.maximum(self.estimator.predict_proba(self._shown(inputs)), 1e-3))
            return result
        scores = np.asarray(self.estimator.decision_function(inputs.features), dtype=np.float64)
        return np.stack([-scores / 2, scores / 2], axis=1) if scores.ndim == 1 else scores

    def spread(self, inputs: Inputs, seed: int) -> Floats:
        """(n_rows,): the deviation of the likeliest class's probability when a tenth of the features is left out at random,
        a linear learner's Monte Carlo dropout (Gal and Ghahramani 2016); zeros for learners that are not linear.
        """
        if self.name != "logistic_regression" or len(inputs) == 0:
            return np.zeros(len(inputs))
        rng = np.random.default_rng(seed)
        wide = inputs.features.shape[1]
        masks = ((rng.random((DROPOUT_DRAWS, wide)) > LEFT_OUT) / (1 - LEFT_OUT)).astype(np.float32)
        without = [self._weighing(mask) for mask in masks]
        found = []
        for first in range(0, len(inputs), ROWS_AT_ONCE):
            rows = Inputs(inputs.features[first : first + ROWS_AT_ONCE])
            found.append(deviation_of_likeliest(np.stack([softmax(one.logits(rows)) for one in without])))
        return np.concatenate(found)

    def _weighing(self, factors: NDArray[np.float32]) -> Head:
        """The linear learner that this is where each feature counts so much: the factor goes to the coefficients, not the rows."""
        estimator = copy(self.estimator)
        if hasattr(estimator, "coef_"):
            estimator.coef_ = estimator.coef_ * factors
        return Head(self.name, self.seed, self.classes, estimator)

    def _shown(self, inputs: Inputs) -> Any:
        """Boosted trees want dense features; the others take them as they are."""
        if self.name == "boosted_trees" and sparse.issparse(inputs.features):
            return inputs.features.toarray()
        return inputs.features


def deviation_of_likeliest(shares: Floats) -> Floats:
    """(n_rows,): of the class that is likeliest in the mean, the standard deviation over the draws.

    shares: (n_draws, n_rows, n_classes), probabilities.
    """
    likeliest = shares.mean(axis=0).argmax(axis=1)
    result: Floats = shares[:, np.arange(shares.shape[1]), likeliest].std(axis=0)
    return result


def make_estimator(name: str, seed: int, rows: int) -> Any:
    """The scikit-learn estimator of this name; `rows` sets how few of them a boosted tree's leaf may hold."""
    if name == "logistic_regression":
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(C=10.0, max_iter=200, tol=1e-3)
    if name == "boosted_trees":
        from sklearn.ensemble import HistGradientBoostingClassifier

        smallest = int(np.clip(rows // 100, 2, 20))
        return HistGradientBoostingClassifier(
            max_iter=60, max_leaf_nodes=15, min_samples_leaf=smallest, early_stopping=False, random_state=seed % 2**32
        )
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(100, random_state=seed % 2**32, n_jobs=1)
