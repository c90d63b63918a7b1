"""Learners that are made of training rows: support vectors and nearest neighbors. They are saved as plain arrays."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from scipy import sparse

from seedling.features.classical import Inputs
from seedling.models.heads import ABSENT, ROWS_AT_ONCE, hard_rows
from seedling.models.model_arrays import check_arrays, check_classes
from seedling.stats.statistics import SMALLEST, Floats

NEIGHBORS = 15
ARRAYS_OF_KEPT_ROWS = {  # the arrays of each learner: name → kind of number and dimensions
    "svm": {
        "classes": ("i", 1),
        "coefficients": ("f", 2),
        "intercepts": ("f", 1),
        "counts": ("i", 1),
        "gamma": ("f", 1),
    },
    "nearest_neighbors": {"labels": ("f", 2), "width": ("f", 1)},
}
DENSE_ROWS = {"rows": ("f", 2)}
SPARSE_ROWS = {"data": ("f", 1), "indices": ("i", 1), "indptr": ("i", 1), "shape": ("i", 1)}
KERNEL_ROWS = 6_000  # whose kernel, 288 megabytes, is made before training


class KeptRows(ABC):
    """What both have in common: the classes, and arrays by name, with the kept rows, dense or sparse, among them."""

    name: str

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.arrays: dict[str, Any] = {}

    def restore(self, arrays: dict[str, Any]) -> None:
        """Takes over arrays from a file. Raises ValueError where they are not those of such a learner."""
        own = {"classes": ("i", 1)} if len(arrays.get("classes", ())) == 1 else ARRAYS_OF_KEPT_ROWS[self.name]
        rows = {} if len(own) == 1 else DENSE_ROWS if "rows" in arrays else SPARSE_ROWS
        check_arrays(arrays, own | rows)
        self.arrays = arrays
        if rows is SPARSE_ROWS:
            if len(arrays["shape"]) != 2 or (arrays["shape"] < 0).any():
                raise ValueError("the kept rows have no shape")
            self.kept.check_format(full_check=True)  # compiled code follows these indices unchecked
        self._check()

    @abstractmethod
    def _check(self) -> None:
        """Raises ValueError where the arrays do not fit one another."""

    def keep(self, rows: Any) -> None:
        """Puts the rows among the arrays."""
        if sparse.issparse(rows):
            parts = {"data": rows.data, "indices": rows.indices, "indptr": rows.indptr, "shape": np.array(rows.shape)}
            self.arrays |= parts
        else:
            self.arrays["rows"] = np.ascontiguousarray(rows)

    @property
    def kept(self) -> Any:
        """The rows, as they were given to `keep`."""
        if "rows" in self.arrays:
            return self.arrays["rows"]
        parts = (self.arrays["data"], self.arrays["indices"], self.arrays["indptr"])
        return sparse.csr_matrix(parts, shape=tuple(self.arrays["shape"]))


class SupportVectorMachine(KeptRows):
    """A support vector machine (Cortes and Vapnik 1995), one against one: with Gaussian kernel on dense features, linear on sparse ones.

    Trained by scikit-learn's SVC. Its decision is taken here by matrix products, as libsvm walks through every pair of
    classes for every row; and its vectors are kept as arrays, which are read and written at once however many pairs there are.
    """

    name = "svm"

    def fit(self, inputs: Inputs, targets: Floats, weights: Floats) -> None:
        """targets: (n_rows, n_classes), rows sum to 1; weights: (n_rows,)."""
        rows, labels, row_weights = hard_rows(targets, weights)
        by_class = np.argsort(labels, kind="stable")  # as libsvm walks through them
        rows, labels, row_weights = rows[by_class], labels[by_class], row_weights[by_class]
        present = np.unique(labels)
        self.arrays = {"classes": present}
        if len(present) == 1:  # near-duplicates that hold two classes can leave a fold with one
            return
        shown, gamma = inputs.features[rows], gaussian_gamma(inputs.features)
        machine = make_machine(gamma, len(rows))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="sklearn")
            given = kernel_of(shown, shown, gamma) if machine.kernel == "precomputed" else shown
            machine.fit(given, labels, sample_weight=row_weights)
        self.take(machine, shown, gamma)

    def _check(self) -> None:
        check_classes(self.arrays["classes"], self.classes)
        many = len(self.arrays["classes"])
        if many == 1:
            return
        coefficients, counts, vectors = self.arrays["coefficients"], self.arrays["counts"], self.kept.shape[0]
        if (
            coefficients.shape != (many - 1, vectors)
            or len(self.arrays["intercepts"]) != many * (many - 1) // 2
            or len(counts) != many
            or (counts < 0).any()
            or int(counts.sum()) != vectors
            or len(self.arrays["gamma"]) != 1
        ):
            raise ValueError("coefficients, intercepts and support vectors do not fit the classes")

    def take(self, machine: Any, shown: Any, gamma: float) -> None:
        """Takes over an SVC that was fitted on the rows `shown`. gamma: of the Gaussian kernel, 0 for the linear one."""
        coefficients = machine.dual_coef_
        dense = coefficients.toarray() if sparse.issparse(coefficients) else coefficients
        self.arrays = {
            "classes": np.asarray(machine.classes_),
            "coefficients": np.ascontiguousarray(dense),
            "intercepts": np.asarray(machine.intercept_),
            "counts": np.asarray(machine.n_support_, dtype=np.int64),
            "gamma": np.array([gamma]),
        }
        self.keep(shown[machine.support_])

    def logits(self, inputs: Inputs) -> Floats:
        """(n_rows, n_classes): the pairs that a class wins, and their decisions brought between -1/3 and 1/3 to settle ties, as
        SVC's own decision_function says; a class that was not in training gets the smallest there is.
        """
        result = np.full((len(inputs), self.classes), ABSENT)
        present = self.arrays["classes"]
        if len(present) == 1:
            result[:, present] = 0.0
            return result
        vectors, gamma = self.kept, float(self.arrays["gamma"][0])
        for first in range(0, len(inputs), ROWS_AT_ONCE):
            kernel = kernel_of(inputs.features[first : first + ROWS_AT_ONCE], vectors, gamma)
            result[first : first + ROWS_AT_ONCE, present] = self._scores(kernel)
        return result

    def _scores(self, kernel: Floats) -> Floats:
        """(n_rows, n_classes present). kernel: (n_rows, n_vectors)."""
        coefficients, intercepts, counts = (self.arrays[name] for name in ("coefficients", "intercepts", "counts"))
        if len(counts) == 2:
            decision = (kernel @ coefficients[0]) + intercepts[0]
            return np.stack([-decision / 2, decision / 2], axis=1)
        # of_class[i][:, j]: the part of the support vectors of class i in the pair of i and another, its j-th coefficient
        of_class = [
            kernel[:, end - many : end] @ coefficients[:, end - many : end].T
            for end, many in zip(np.cumsum(counts), counts, strict=True)
        ]
        return votes_of_pairs(of_class, intercepts)


def gaussian_gamma(features: Any) -> float:
    """One over the features' number and variance, as scikit-learn's `scale`; 0, for the linear kernel, of sparse ones."""
    if sparse.issparse(features):
        return 0.0
    return 1 / (int(features.shape[1]) * (float(features.var(dtype=np.float64)) or 1.0))


def make_machine(gamma: float, rows: int) -> Any:
    """The untrained SVC; of up to `KERNEL_ROWS` dense rows it is given the kernel, made by matrix products."""
    from sklearn.svm import SVC

    kernel = "linear" if gamma == 0 else "precomputed" if rows <= KERNEL_ROWS else "rbf"
    return SVC(C=10.0, kernel=kernel, gamma=gamma or "scale", cache_size=500)


def kernel_of(rows: Any, vectors: Any, gamma: float) -> Floats:
    """(n_rows, n_vectors): Gaussian, or linear where gamma is 0.

    In single precision: dense features are centered, so that gamma times their squared length is
    about 1, and the error some millionths.
    """
    if gamma == 0:
        from sklearn.metrics.pairwise import linear_kernel

        return np.asarray(linear_kernel(rows.astype(np.float64), vectors.astype(np.float64), dense_output=True))
    one, other = np.asarray(rows, dtype=np.float32), np.asarray(vectors, dtype=np.float32)
    twice = np.float32(2 * gamma)
    exponent = one @ other.T
    exponent -= np.einsum("nd,nd->n", one, one)[:, None] / 2
    exponent -= np.einsum("nd,nd->n", other, other) / 2
    exponent *= twice
    kernel: Floats = np.exp(np.minimum(exponent, 0, out=exponent), out=exponent).astype(np.float64)
    return kernel


def votes_of_pairs(of_class: list[Floats], intercepts: Floats) -> Floats:
    """(n_rows, n_classes): each class against each other. of_class: (n_rows, n_classes - 1) a class; intercepts: one a pair."""
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


class NearestNeighbors(KeptRows):
    """Each row's label by its nearest training rows (Fix and Hodges 1951), weighted by closeness, weight and soft label.

    Features are brought to length 1; of `NEIGHBORS` neighbors each counts exp(−(distance / width)²), where the width is
    the median distance of training rows to their own last neighbor.
    """

    name = "nearest_neighbors"

    def _check(self) -> None:
        if self.arrays["labels"].shape != (self.kept.shape[0], self.classes) or len(self.arrays["width"]) != 1:
            raise ValueError("labels and kept rows do not fit the classes")

    def fit(self, inputs: Inputs, targets: Floats, weights: Floats) -> None:
        """targets: (n_rows, n_classes), rows sum to 1; weights: (n_rows,)."""
        from sklearn.neighbors import NearestNeighbors

        rows = _of_length_one(inputs.features)
        near = NearestNeighbors(n_neighbors=min(NEIGHBORS + 1, rows.shape[0])).fit(rows)
        reach = near.kneighbors(rows)[0][:, -1]
        self.arrays = {
            "labels": np.ascontiguousarray(targets * weights[:, None]),
            "width": np.array([max(float(np.median(reach)), 1e-6)]),
        }
        self.keep(rows)

    def logits(self, inputs: Inputs) -> Floats:
        """(n_rows, n_classes): logarithms of the neighbors' summed opinions."""
        from sklearn.neighbors import NearestNeighbors

        if len(inputs) == 0:
            return np.zeros((0, self.classes))
        known = self.kept
        labels: Floats = self.arrays["labels"]
        near = NearestNeighbors(n_neighbors=min(NEIGHBORS, known.shape[0])).fit(known)
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
