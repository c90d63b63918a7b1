"""Weak learners on features; each takes soft labels and weights, and gives logits whose scale a temperature sets."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from tasks.learners.features import Inputs
from tasks.statistics import SMALLEST, Floats

ABSENT = np.log(SMALLEST)  # the logit of a class that a learner never saw


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
        self.estimator = make_estimator(self.name, self.seed, sparse.issparse(inputs.features))
        if len(np.unique(labels)) == 1:  # near-duplicates that hold two classes can leave a fold with one
            from sklearn.dummy import DummyClassifier

            self.estimator = DummyClassifier()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="sklearn")
            warnings.filterwarnings("ignore", message=".*lbfgs failed to converge.*")
            self.estimator.fit(inputs.features[rows], labels, sample_weight=row_weights)

    def logits(self, inputs: Inputs) -> Floats:
        """(n_rows, n_classes); a class that was not in training gets the smallest there is."""
        found = self._scores(inputs)
        result = np.full((len(inputs), self.classes), ABSENT)
        result[:, self.estimator.classes_] = found
        return result

    def _scores(self, inputs: Inputs) -> Floats:
        if len(self.estimator.classes_) == 1:
            return np.zeros((len(inputs), 1))
        if self.name == "random_forest":
            result: Floats = np.log(np.maximum(self.estimator.predict_proba(inputs.features), 1e-3))
            return result
        scores = np.asarray(self.estimator.decision_function(inputs.features), dtype=np.float64)
        return np.stack([-scores / 2, scores / 2], axis=1) if scores.ndim == 1 else scores


def make_estimator(name: str, seed: int, is_sparse: bool) -> Any:
    """The scikit-learn estimator of this name."""
    if name == "logistic_regression":
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(C=10.0, max_iter=200, tol=1e-3)
    if name == "svm":
        from sklearn.svm import SVC

        return SVC(C=10.0, kernel="linear" if is_sparse else "rbf", gamma="scale", cache_size=500)
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(100, random_state=seed % 2**32, n_jobs=1)
