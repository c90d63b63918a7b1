"""Instance-based learners: support vector machine and nearest neighbors. They are saved as plain arrays."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from seedling.features.classical import Inputs
from seedling.features.sparsity import is_sparse
from seedling.models.heads import ABSENT, ROWS_PER_BLOCK, hard_rows
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
MAX_PRECOMPUTED_KERNEL_ROWS = 6_000  # the precomputed kernel takes at most 288 MB


class KeptRows(ABC):
    """Base class of learners that store training rows: the classes, and arrays by name, with dense or sparse rows."""

    name: str

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.arrays: dict[str, NDArray[Any]] = {}

    def restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Load arrays from a file. Raises ValueError if they are not the arrays of such a learner."""
        kinds = {"classes": ("i", 1)} if len(arrays.get("classes", ())) == 1 else ARRAYS_OF_KEPT_ROWS[self.name]
        row_kinds = {} if len(kinds) == 1 else DENSE_ROWS if "rows" in arrays else SPARSE_ROWS
        check_arrays(arrays, kinds | row_kinds)
        self.arrays = arrays
        if row_kinds is SPARSE_ROWS:
            if len(arrays["shape"]) != 2 or (arrays["shape"] < 0).any():
                raise ValueError("the array 'shape' is not the shape of a sparse matrix")
            self.kept.check_format(full_check=True)  # compiled code uses these indices without a check
        self._check()

    @abstractmethod
    def _check(self) -> None:
        """Raise ValueError if the arrays do not fit together."""

    def keep(self, rows: Any) -> None:
        """Store the rows in the arrays."""
        if is_sparse(rows):
            csr_parts = {
                "data": rows.data,
                "indices": rows.indices,
                "indptr": rows.indptr,
                "shape": np.array(rows.shape),
            }
            self.arrays |= csr_parts
        else:
            self.arrays["rows"] = np.ascontiguousarray(rows)

    @property
    def kept(self) -> Any:
        """The rows that were passed to `keep`."""
        if "rows" in self.arrays:
            return self.arrays["rows"]
        csr_parts = (self.arrays["data"], self.arrays["indices"], self.arrays["indptr"])
        return sparse.csr_matrix(csr_parts, shape=tuple(self.arrays["shape"]))


class SupportVectorMachine(KeptRows):
    """A one-vs-one support vector machine (Cortes and Vapnik 1995).

    The kernel is Gaussian for dense features and linear for sparse ones. scikit-learn's SVC trains it. The decision is
    computed here by matrix products, because libsvm iterates over every pair of classes per row. The support vectors
    are stored as arrays, which are read and written in one operation for any number of pairs.
    """

    name = "svm"

    def __init__(self, classes: int, max_precomputed_kernel_rows: int = MAX_PRECOMPUTED_KERNEL_ROWS) -> None:
        super().__init__(classes)
        self._max_precomputed_kernel_rows = max_precomputed_kernel_rows

    def fit(self, inputs: Inputs, targets: Floats, weights: Floats) -> None:
        """Fit on rows with soft labels. targets: (n_rows, n_classes), rows sum to 1; weights: (n_rows,)."""
        rows, labels, row_weights = hard_rows(targets, weights)
        by_class = np.argsort(labels, kind="stable")  # the order in which libsvm processes them
        rows, labels, row_weights = rows[by_class], labels[by_class], row_weights[by_class]
        present = np.unique(labels)
        self.arrays = {"classes": present}
        if len(present) == 1:  # near-duplicates stay in one fold, which can leave one class to train on
            return
        fit_features, gamma = inputs.features[rows], scale_gamma(inputs.features)
        machine = make_svc(gamma, precompute=len(rows) <= self._max_precomputed_kernel_rows)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="sklearn")
            fit_input = (
                kernel_matrix(fit_features, fit_features, gamma) if machine.kernel == "precomputed" else fit_features
            )
            machine.fit(fit_input, labels, sample_weight=row_weights)
        self.take(machine, fit_features, gamma)

    def _check(self) -> None:
        check_classes(self.arrays["classes"], self.classes)
        n_classes = len(self.arrays["classes"])
        if n_classes == 1:
            return
        coefficients, counts, vectors = self.arrays["coefficients"], self.arrays["counts"], self.kept.shape[0]
        if (
            coefficients.shape != (n_classes - 1, vectors)
            or len(self.arrays["intercepts"]) != n_classes * (n_classes - 1) // 2
            or len(counts) != n_classes
            or (counts < 0).any()
            or int(counts.sum()) != vectors
            or len(self.arrays["gamma"]) != 1
        ):
            raise ValueError("coefficients, intercepts and support vectors do not fit the classes")

    def take(self, machine: Any, fit_features: Any, gamma: float) -> None:
        """Copy the parameters of an SVC that was fitted on the rows `fit_features`.

        gamma: of the Gaussian kernel; 0 for the linear kernel.
        """
        coefficients = machine.dual_coef_
        dense = coefficients.toarray() if is_sparse(coefficients) else coefficients
        self.arrays = {
            "classes": np.asarray(machine.classes_),
            "coefficients": np.ascontiguousarray(dense),
            "intercepts": np.asarray(machine.intercept_),
            "counts": np.asarray(machine.n_support_, dtype=np.int64),
            "gamma": np.array([gamma]),
        }
        self.keep(fit_features[machine.support_])

    def logits(self, inputs: Inputs) -> Floats:
        """(n_rows, n_classes): as SVC's `decision_function`; a class that was not in the training rows gets `ABSENT`.

        The score is the number of pairs that a class wins, plus its summed decisions scaled to (-1/3, 1/3) to break
        ties.
        """
        result = np.full((len(inputs), self.classes), ABSENT)
        present = self.arrays["classes"]
        if len(present) == 1:
            result[:, present] = 0.0
            return result
        vectors, gamma = self.kept, float(self.arrays["gamma"][0])
        for first in range(0, len(inputs), ROWS_PER_BLOCK):
            kernel = kernel_matrix(inputs.features[first : first + ROWS_PER_BLOCK], vectors, gamma)
            result[first : first + ROWS_PER_BLOCK, present] = self._scores(kernel)
        return result

    def _scores(self, kernel: Floats) -> Floats:
        """(n_rows, number of present classes). kernel: (n_rows, n_vectors)."""
        coefficients, intercepts, counts = (self.arrays[name] for name in ("coefficients", "intercepts", "counts"))
        if len(counts) == 2:
            decision = (kernel @ coefficients[0]) + intercepts[0]
            return np.stack([-decision / 2, decision / 2], axis=1)
        # class_parts[i][:, j]: the sum over the support vectors of class i, weighted by their j-th coefficients
        class_parts = [
            kernel[:, stop - n_vectors : stop] @ coefficients[:, stop - n_vectors : stop].T
            for stop, n_vectors in zip(np.cumsum(counts), counts, strict=True)
        ]
        return pairwise_votes(class_parts, intercepts)


def scale_gamma(features: Any) -> float:
    """1 / (n_features · variance), as scikit-learn's `scale`; 0, for the linear kernel, if the features are sparse."""
    if is_sparse(features):
        return 0.0
    return 1 / (int(features.shape[1]) * (float(features.var(dtype=np.float64)) or 1.0))


def make_svc(gamma: float, *, precompute: bool) -> Any:
    """Return the unfitted SVC. precompute: it expects a precomputed kernel if the rows are dense."""
    from sklearn.svm import SVC

    kernel = "linear" if gamma == 0 else "precomputed" if precompute else "rbf"
    return SVC(C=10.0, kernel=kernel, gamma=gamma or "scale", cache_size=500)


def kernel_matrix(rows: Any, vectors: Any, gamma: float) -> Floats:
    """(n_rows, n_vectors): the Gaussian kernel exp(−γ‖x − v‖²), or the linear kernel x·v if gamma is 0.

    Computed in single precision: dense features are centered, so γ‖x‖² is about 1 and the error is of the order of
    1e-6.
    """
    if gamma == 0:
        from sklearn.metrics.pairwise import linear_kernel

        return np.asarray(linear_kernel(rows.astype(np.float64), vectors.astype(np.float64), dense_output=True))
    left, right = np.asarray(rows, dtype=np.float32), np.asarray(vectors, dtype=np.float32)
    double_gamma = np.float32(2 * gamma)
    exponent = left @ right.T
    exponent -= np.einsum("nd,nd->n", left, left)[:, None] / 2
    exponent -= np.einsum("nd,nd->n", right, right) / 2
    exponent *= double_gamma
    kernel: Floats = np.exp(np.minimum(exponent, 0, out=exponent), out=exponent).astype(np.float64)
    return kernel


def pairwise_votes(class_parts: list[Floats], intercepts: Floats) -> Floats:
    """(n_rows, n_classes): one-vs-one votes, plus the summed decisions s as s / (3 (|s| + 1)) to break ties.

    class_parts: (n_rows, n_classes - 1) per class; intercepts: one per pair.
    """
    n_rows, n_classes = len(class_parts[0]), len(class_parts)
    votes, sums = np.zeros((n_rows, n_classes)), np.zeros((n_rows, n_classes))
    pair = 0
    for first in range(n_classes):
        for second in range(first + 1, n_classes):
            decision = class_parts[first][:, second - 1] + class_parts[second][:, first] + intercepts[pair]
            votes[:, first] += decision >= 0
            votes[:, second] += decision < 0
            sums[:, first] += decision
            sums[:, second] -= decision
            pair += 1
    result: Floats = votes + sums / (3 * (np.abs(sums) + 1))
    return result


class NearestNeighbors(KeptRows):
    """k nearest neighbors (Fix and Hodges 1951), weighted by closeness, row weight and soft label.

    Features are normalized to length 1. Each of `NEIGHBORS` neighbors has the weight exp(−(distance / width)²), where
    the width is the median distance of the training rows to their last neighbor.
    """

    name = "nearest_neighbors"

    def _check(self) -> None:
        if self.arrays["labels"].shape != (self.kept.shape[0], self.classes) or len(self.arrays["width"]) != 1:
            raise ValueError("labels and kept rows do not fit the classes")

    def fit(self, inputs: Inputs, targets: Floats, weights: Floats) -> None:
        """Fit on rows with soft labels. targets: (n_rows, n_classes), rows sum to 1; weights: (n_rows,)."""
        from sklearn.neighbors import NearestNeighbors

        rows = _unit_rows(inputs.features)
        index = NearestNeighbors(n_neighbors=min(NEIGHBORS + 1, rows.shape[0])).fit(rows)
        last_distances = index.kneighbors(rows)[0][:, -1]
        self.arrays = {
            "labels": np.ascontiguousarray(targets * weights[:, None]),
            "width": np.array([max(float(np.median(last_distances)), 1e-6)]),
        }
        self.keep(rows)

    def logits(self, inputs: Inputs) -> Floats:
        """(n_rows, n_classes): logarithms of the neighbors' weighted label sums, plus a tenth of the class prior."""
        from sklearn.neighbors import NearestNeighbors

        if len(inputs) == 0:
            return np.zeros((0, self.classes))
        train_rows = self.kept
        labels: Floats = self.arrays["labels"]
        index = NearestNeighbors(n_neighbors=min(NEIGHBORS, train_rows.shape[0])).fit(train_rows)
        prior = labels.sum(axis=0) / labels.sum()
        blocks = []
        for first in range(0, len(inputs), ROWS_PER_BLOCK):
            distances, neighbors = index.kneighbors(_unit_rows(inputs.features[first : first + ROWS_PER_BLOCK]))
            closeness = np.exp(-((distances / self.arrays["width"][0]) ** 2))
            label_sums = np.einsum("nk,nkc->nc", closeness, labels[neighbors])
            scores = label_sums + 0.1 * prior  # the prior dominates far from all training rows
            blocks.append(np.log(np.maximum(scores, SMALLEST)))
        return np.concatenate(blocks)


def _unit_rows(features: Any) -> Any:
    from sklearn.preprocessing import normalize

    return normalize(sparse.csr_matrix(features) if is_sparse(features) else features)
