"""Weak learners on features; each takes soft labels and weights, and gives logits whose scale a temperature sets."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from tasks.learners.features import Inputs
from tasks.statistics import SMALLEST, Floats, softmax

ABSENT = np.log(SMALLEST)  # the logit of a class that a learner never saw
HEADS = ("logistic_regression", "svm", "random_forest", "boosted_trees")
NEIGHBOURS = 15
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
        self.estimator = make_estimator(self.name, self.seed, inputs.features, len(rows))
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
        if self.name == "svm":
            return machine_scores(self.estimator, inputs.features)
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
        found = []
        for first in range(0, len(inputs), ROWS_AT_ONCE):
            rows = inputs.features[first : first + ROWS_AT_ONCE]
            dropped = (rows @ sparse.diags(mask) if sparse.issparse(rows) else rows * mask for mask in masks)
            found.append(deviation_of_likeliest(np.stack([softmax(self.logits(Inputs(one))) for one in dropped])))
        return np.concatenate(found)

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


def make_estimator(name: str, seed: int, features: Any, rows: int) -> Any:
    """The scikit-learn estimator of this name; `rows` sets how few of them a boosted tree's leaf may hold."""
    if name == "logistic_regression":
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(C=10.0, max_iter=200, tol=1e-3)
    if name == "svm":
        from sklearn.svm import SVC

        if sparse.issparse(features):
            return SVC(C=10.0, kernel="linear", cache_size=500)
        spread = float(features.var(dtype=np.float64)) or 1.0
        return SVC(C=10.0, kernel="rbf", gamma=1 / (features.shape[1] * spread), cache_size=500)
    if name == "boosted_trees":
        from sklearn.ensemble import HistGradientBoostingClassifier

        smallest = int(np.clip(rows // 100, 2, 20))
        return HistGradientBoostingClassifier(
            max_iter=60, max_leaf_nodes=15, min_samples_leaf=smallest, early_stopping=False, random_state=seed % 2**32
        )
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(100, random_state=seed % 2**32, n_jobs=1)


def machine_scores(machine: Any, features: Any) -> Floats:
    """(n_rows, n_classes): what SVC.decision_function gives, by matrix products.

    libsvm walks through every pair of classes for every row. Each pair's
    decision is a sum over the support vectors of its two classes; a class's score is the pairs that it wins, and their
    decisions brought between -1/3 and 1/3 to settle ties.
    """
    rows = features.shape[0]
    blocks = [np.zeros((0, len(machine.classes_)))]
    coefficients = machine.dual_coef_.toarray() if sparse.issparse(machine.dual_coef_) else machine.dual_coef_
    ends = np.cumsum(machine.n_support_)
    for first in range(0, rows, ROWS_AT_ONCE):
        kernel = _kernel(machine, features[first : first + ROWS_AT_ONCE])
        if len(ends) == 2:
            decision = (kernel @ coefficients[0]) + machine.intercept_[0]
            blocks.append(np.stack([-decision / 2, decision / 2], axis=1))
            continue
        # of_class[i][:, j]: the part of the support vectors of class i in the pair of i and another, its j-th coefficient
        of_class = [
            kernel[:, end - many : end] @ coefficients[:, end - many : end].T
            for end, many in zip(ends, machine.n_support_, strict=True)
        ]
        blocks.append(_votes(of_class, machine.intercept_))
    return np.concatenate(blocks)


def _kernel(machine: Any, features: Any) -> Floats:
    from sklearn.metrics.pairwise import linear_kernel, rbf_kernel

    vectors = machine.support_vectors_
    if machine.kernel == "linear":
        return np.asarray(linear_kernel(features, vectors, dense_output=True), dtype=np.float64)
    return np.asarray(rbf_kernel(features.astype(np.float64), vectors, gamma=machine.gamma), dtype=np.float64)


def _votes(of_class: list[Floats], intercepts: Floats) -> Floats:
    many, classes = len(of_class[0]), len(of_class)
    votes, sums = np.zeros((many, classes)), np.zeros((many, classes))
    pair = 0
    for one in range(classes):
        for other in range(one + 1, classes):
            decision = of_class[one][:, other - 1] + of_class[other][:, one] + intercepts[pair]
            votes[:, one] += decision >= 0
            votes[:, other] += decision < 0
            sums[:, one] += decision
            sums[:, other] -= decision
            pair += 1
    result: Floats = votes + sums / (3 * (np.abs(sums) + 1))
    return result


class NearestNeighbours:
    """Each row's label by its nearest training rows (Fix and Hodges 1951), weighted by closeness, weight and soft label.

    Features are brought to length 1; of `NEIGHBOURS` neighbours each counts exp(−(distance / width)²), where the width is
    the median distance of training rows to their own last neighbour.
    """

    name = "nearest_neighbours"

    def __init__(self, classes: int, arrays: dict[str, Any] | None = None) -> None:
        self.classes, self.arrays = classes, arrays or {}

    def fit(self, inputs: Inputs, targets: Floats, weights: Floats) -> None:
        """targets: (n_rows, n_classes), rows sum to 1; weights: (n_rows,)."""
        from sklearn.neighbors import NearestNeighbors

        rows = _of_length_one(inputs.features)
        near = NearestNeighbors(n_neighbors=min(NEIGHBOURS + 1, rows.shape[0])).fit(rows)
        reach = near.kneighbors(rows)[0][:, -1]
        self.arrays = {
            "labels": np.ascontiguousarray(targets * weights[:, None]),
            "width": np.array([max(float(np.median(reach)), 1e-6)]),
        }
        if sparse.issparse(rows):
            self.arrays |= {
                "data": rows.data,
                "indices": rows.indices,
                "indptr": rows.indptr,
                "shape": np.array(rows.shape),
            }
        else:
            self.arrays["rows"] = np.ascontiguousarray(rows)

    def logits(self, inputs: Inputs) -> Floats:
        """(n_rows, n_classes): logarithms of the neighbours' summed opinions."""
        from sklearn.neighbors import NearestNeighbors

        if len(inputs) == 0:
            return np.zeros((0, self.classes))
        known: Any = self.arrays.get("rows")
        if known is None:
            parts = (self.arrays["data"], self.arrays["indices"], self.arrays["indptr"])
            known = sparse.csr_matrix(parts, shape=tuple(self.arrays["shape"]))
        labels: Floats = self.arrays["labels"]
        near = NearestNeighbors(n_neighbors=min(NEIGHBOURS, known.shape[0])).fit(known)
        prior = labels.sum(axis=0) / labels.sum()
        found = []
        for first in range(0, len(inputs), ROWS_AT_ONCE):
            distance, place = near.kneighbors(_of_length_one(inputs.features[first : first + ROWS_AT_ONCE]))
            closeness = np.exp(-((distance / self.arrays["width"][0]) ** 2))
            opinion = np.einsum("nk,nkc->nc", closeness, labels[place])
            found.append(np.log(np.maximum(opinion + 0.1 * prior, SMALLEST)))  # far from everything: the prior
        return np.concatenate(found)


def _of_length_one(features: Any) -> Any:
    from sklearn.preprocessing import normalize

    return normalize(sparse.csr_matrix(features) if sparse.issparse(features) else features)
