"""Out-of-fold class logits from several learners: each row is predicted by models fitted on the other folds.

The learners are logistic regression, nearest neighbors and, if there are enough rows, linear discriminant analysis. The
discriminant has few parameters (class centers and one shared covariance), so repeated wrong labels of the same kind
distort it least (benchmarks/label_errors.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedling.features.classical import Inputs
from seedling.features.distances import blocks, cosine_distances
from seedling.features.normalization import normalize_rows
from seedling.features.sparsity import is_sparse
from seedling.models.heads import Head
from seedling.parallel.executor import in_threads
from seedling.stats.statistics import SMALLEST, Floats, Ints

NEIGHBORS = 20
CLASS_PRIOR_VOTES = 0.3  # neighbor votes shared out by class frequency, so that no class has probability 0
MIN_ROWS_PER_DIMENSION = 2  # below, a shared covariance cannot be estimated
SHRINKAGE = 0.5  # weight of the isotropic covariance in the shrunk one


@dataclass(frozen=True, slots=True)
class Learners:
    """All learners that predict these rows out of fold."""

    inputs: Inputs
    fold: Ints
    neighbors: NearestNeighbors
    discriminant: Discriminant | None

    @classmethod
    def of(cls, inputs: Inputs, fold: Ints) -> Learners:
        """fold: (n_rows,)."""
        neighbors = NearestNeighbors.of(inputs.features, fold)
        return cls(inputs, fold, neighbors, Discriminant.of(inputs.features, fold))

    def fit_predict(self, labels: Ints, weights: Floats, classes: int) -> dict[str, Floats]:
        """Logits by learner name, (n_rows, n_classes) each. labels, weights: (n_rows,), what each label counts."""
        logits = {
            "regression": regression_logits(self.inputs, labels, self.fold, weights, classes),
            "neighbors": self.neighbors.fit_predict(labels, weights, classes),
        }
        if self.discriminant is not None:
            logits["discriminant"] = self.discriminant.fit_predict(labels, weights, classes)
        return logits


def regression_logits(inputs: Inputs, labels: Ints, fold: Ints, weights: Floats, classes: int) -> Floats:
    """(n_rows, n_classes): logits of a logistic regression fitted on the other folds."""
    result = np.zeros((len(labels), classes))
    targets = np.eye(classes)

    def fit_predict_fold(fold_index: int) -> Floats:
        training = np.flatnonzero((fold != fold_index) & (weights > SMALLEST))
        head = Head("logistic_regression", 0, classes)
        head.fit(inputs.take(training), targets[labels[training]], weights[training])
        return head.logits(inputs.take(np.flatnonzero(fold == fold_index)))

    folds = np.unique(fold).tolist()
    for fold_index, logits in zip(folds, in_threads(fit_predict_fold, folds), strict=True):
        result[fold == fold_index] = logits
    return result


@dataclass(frozen=True, slots=True)
class NearestNeighbors:
    """Each row's nearest rows in other folds.

    rows: (n_rows, k), row numbers of the neighbors; vote_weights: (n_rows, k), exp(-distance / mean distance), 0 where
    a row has no neighbor.
    """

    rows: NDArray[np.intp]
    vote_weights: Floats

    @classmethod
    def of(cls, features: Any, fold: Ints) -> NearestNeighbors:
        """Find the neighbors by the angle between features. fold: (n_rows,)."""
        unit = normalize_rows(features)
        row_count = len(fold)
        neighbor_count = min(NEIGHBORS, int((row_count - np.unique(fold, return_counts=True)[1]).min()))

        def block_neighbors(block: slice) -> tuple[NDArray[np.intp], Any]:
            distances = cosine_distances(unit[block], unit)
            distances[fold[block, None] == fold[None]] = np.inf
            nearest = np.argpartition(distances, neighbor_count - 1, axis=1)[:, :neighbor_count]
            return nearest, np.take_along_axis(distances, nearest, axis=1)

        block_results = in_threads(block_neighbors, blocks(row_count))
        rows, distances = (np.concatenate(parts) for parts in zip(*block_results, strict=True))
        distances = distances.astype(np.float64)
        return cls(rows, np.exp(-distances / max(float(distances.mean()), SMALLEST)))

    def fit_predict(self, labels: Ints, weights: Floats, classes: int) -> Floats:
        """(n_rows, n_classes): logarithms of the neighbors' votes.

        weights: (n_rows,), what each neighbor's label counts.
        """
        votes = np.zeros((len(labels), classes))
        counts = self.vote_weights * weights[self.rows]
        for rank in range(self.rows.shape[1]):
            np.add.at(votes, (np.arange(len(labels)), labels[self.rows[:, rank]]), counts[:, rank])
        shares = np.bincount(labels, weights=weights, minlength=classes)
        return np.asarray(np.log(np.maximum(votes + CLASS_PRIOR_VOTES * shares / shares.sum(), SMALLEST)))


@dataclass(frozen=True, slots=True)
class Discriminant:
    """Linear discriminant analysis (Fisher 1936) with a covariance shrunk towards an isotropic one (Friedman 1989).

    With S the pooled covariance of d dimensions and c_k, n_k the weighted center and count of class k, the logits are
    x' A⁻¹ c_k - c_k' A⁻¹ c_k / 2 + log(n_k / n), where A = (1 - SHRINKAGE) S + SHRINKAGE trace(S) / d I.

    features: (n_rows, d), centered; fold: (n_rows,).
    """

    features: Floats
    fold: Ints

    @classmethod
    def of(cls, features: Any, fold: Ints) -> Discriminant | None:
        """None for sparse word counts, and for fewer than `MIN_ROWS_PER_DIMENSION` rows per dimension."""
        if is_sparse(features) or len(features) < MIN_ROWS_PER_DIMENSION * features.shape[1]:
            return None
        values = np.asarray(features, dtype=np.float64)
        return cls(values - values.mean(axis=0), fold)

    def fit_predict(self, labels: Ints, weights: Floats, classes: int) -> Floats:
        """(n_rows, n_classes): logits. labels, weights: (n_rows,), what each label counts.

        Second moments, class sums and class counts are summed once; each fold subtracts its own from the totals.
        """
        folds = np.unique(self.fold).tolist()

        def fold_moments(fold_index: int) -> tuple[Floats, Floats, Floats]:
            in_fold = self.fold == fold_index
            rows, targets = self.features[in_fold], np.zeros((int(in_fold.sum()), classes))
            targets[np.arange(len(rows)), labels[in_fold]] = weights[in_fold]
            return (rows * weights[in_fold, None]).T @ rows, targets.T @ rows, targets.sum(axis=0)

        moments = in_threads(fold_moments, folds)
        second_moments, class_sums, class_counts = (np.sum(parts, axis=0) for parts in zip(*moments, strict=True))

        def fold_logits(position: int) -> Floats:
            own_second_moments, own_sums, own_counts = moments[position]
            counts = class_counts - own_counts
            centers = (class_sums - own_sums) / np.maximum(counts, SMALLEST)[:, None]
            covariance = (second_moments - own_second_moments - (centers.T * counts) @ centers) / counts.sum()
            dimensions = len(covariance)
            isotropic = (SHRINKAGE * np.trace(covariance) / dimensions + SMALLEST) * np.eye(dimensions)
            coefficients = np.linalg.solve((1 - SHRINKAGE) * covariance + isotropic, centers.T)
            log_priors = np.log(np.maximum(counts, SMALLEST) / counts.sum())
            rows = self.features[self.fold == folds[position]]
            return np.asarray(rows @ coefficients - (centers.T * coefficients).sum(axis=0) / 2 + log_priors)

        result = np.zeros((len(labels), classes))
        for fold_index, logits in zip(folds, in_threads(fold_logits, range(len(folds))), strict=True):
            result[self.fold == fold_index] = logits
        return result
