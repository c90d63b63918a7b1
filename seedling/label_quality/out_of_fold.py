"""What learners that err in different ways say of each row, taught by the rows of other folds alone.

Logistic regression and nearest neighbors, and, where there are rows enough, a linear discriminant: its few numbers, the classes' centers and one
common spread, bend least towards labels that are wrong in the same way many times over (benchmarks/label_errors.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from seedling.features.classical import Inputs
from seedling.features.distances import blocks, cosine_distances, normalize_rows
from seedling.models.heads import Head
from seedling.parallel.executor import in_threads
from seedling.stats.statistics import SMALLEST, Floats, Ints

NEIGHBORS = 20
PRIOR_OF_CLASSES = 0.3  # of one neighbor's say, so that no class is impossible
ROWS_A_DIMENSION = 2  # from so many on, a common spread of all dimensions can be told
SHRUNK = 0.5  # share of the spread that is taken to be alike in all directions


@dataclass(frozen=True, slots=True)
class Learners:
    """All that give an opinion on these rows."""

    inputs: Inputs
    fold: Ints
    near: Nearest
    discriminant: Discriminant | None

    @classmethod
    def of(cls, inputs: Inputs, fold: Ints) -> Learners:
        """fold: (n_rows,)."""
        return cls(inputs, fold, Nearest.of(inputs.features, fold), Discriminant.of(inputs.features, fold))

    def say(self, given: Ints, belief: Floats, classes: int) -> dict[str, Floats]:
        """By each learner's name (n_rows, n_classes), logits; given, belief: (n_rows,), the labels and what each counts."""
        found = {
            "regression": by_regression(self.inputs, given, self.fold, belief, classes),
            "neighbors": self.near.say(given, belief, classes),
        }
        if self.discriminant is not None:
            found["discriminant"] = self.discriminant.say(given, belief, classes)
        return found


def by_regression(inputs: Inputs, given: Ints, fold: Ints, belief: Floats, classes: int) -> Floats:
    """(n_rows, n_classes): logits of a logistic regression on the other folds."""
    result = np.zeros((len(given), classes))
    targets = np.eye(classes)

    def of_fold(one: int) -> Floats:
        taught = np.flatnonzero((fold != one) & (belief > SMALLEST))
        head = Head("logistic_regression", 0, classes)
        head.fit(inputs.take(taught), targets[given[taught]], belief[taught])
        return head.logits(inputs.take(np.flatnonzero(fold == one)))

    folds = np.unique(fold).tolist()
    for one, logits in zip(folds, in_threads(of_fold, folds), strict=True):
        result[fold == one] = logits
    return result


@dataclass(frozen=True, slots=True)
class Nearest:
    """Each row's nearest rows of other folds: their numbers (n_rows, k), and how much each says (n_rows, k), 0 where there is none."""

    rows: NDArray[np.intp]
    says: Floats

    @classmethod
    def of(cls, features: Any, fold: Ints) -> Nearest:
        """By the angle between features. fold: (n_rows,)."""
        unit = normalize_rows(features)
        many = len(fold)
        nearest = min(NEIGHBORS, int((many - np.unique(fold, return_counts=True)[1]).min()))

        def of_block(mine: slice) -> tuple[NDArray[np.intp], Any]:
            away = cosine_distances(unit[mine], unit)
            away[fold[mine, None] == fold[None]] = np.inf
            found = np.argpartition(away, nearest - 1, axis=1)[:, :nearest]
            return found, np.take_along_axis(away, found, axis=1)

        found = in_threads(of_block, blocks(many))
        rows, distances = (np.concatenate(parts) for parts in zip(*found, strict=True))
        distances = distances.astype(np.float64)
        return cls(rows, np.exp(-distances / max(float(distances.mean()), SMALLEST)))

    def say(self, given: Ints, belief: Floats, classes: int) -> Floats:
        """(n_rows, n_classes): logarithms of the neighbors' votes; belief: (n_rows,), what each one's label counts."""
        votes = np.zeros((len(given), classes))
        counts = self.says * belief[self.rows]
        for place in range(self.rows.shape[1]):
            np.add.at(votes, (np.arange(len(given)), given[self.rows[:, place]]), counts[:, place])
        shares = np.bincount(given, weights=belief, minlength=classes)
        return np.asarray(np.log(np.maximum(votes + PRIOR_OF_CLASSES * shares / shares.sum(), SMALLEST)))


@dataclass(frozen=True, slots=True)
class Discriminant:
    """Linear discriminant analysis (Fisher 1936) with a spread that is shrunk towards one alike in all directions (Friedman 1989).

    features: (n_rows, d), around their mean; fold: (n_rows,).
    """

    features: Floats
    fold: Ints

    @classmethod
    def of(cls, features: Any, fold: Ints) -> Discriminant | None:
        """None of counted words, and of fewer than `ROWS_A_DIMENSION` rows a dimension."""
        if sparse.issparse(features) or len(features) < ROWS_A_DIMENSION * features.shape[1]:
            return None
        values = np.asarray(features, dtype=np.float64)
        return cls(values - values.mean(axis=0), fold)

    def say(self, given: Ints, belief: Floats, classes: int) -> Floats:
        """(n_rows, n_classes): logits. given, belief: (n_rows,), the labels and what each counts."""
        folds = np.unique(self.fold).tolist()

        def moments(one: int) -> tuple[Floats, Floats, Floats]:
            mine = self.fold == one
            rows, label = self.features[mine], np.zeros((int(mine.sum()), classes))
            label[np.arange(len(rows)), given[mine]] = belief[mine]
            return (rows * belief[mine, None]).T @ rows, label.T @ rows, label.sum(axis=0)

        of_folds = in_threads(moments, folds)
        spread, centers, counts = (np.sum(parts, axis=0) for parts in zip(*of_folds, strict=True))

        def of_fold(place: int) -> Floats:
            less = of_folds[place]
            count = counts - less[2]
            center = (centers - less[1]) / np.maximum(count, SMALLEST)[:, None]
            within = (spread - less[0] - (center.T * count) @ center) / count.sum()
            within = (1 - SHRUNK) * within + (SHRUNK * np.trace(within) / len(within) + SMALLEST) * np.eye(len(within))
            weights = np.linalg.solve(within, center.T)
            usual = np.log(np.maximum(count, SMALLEST) / count.sum())
            rows = self.features[self.fold == folds[place]]
            return np.asarray(rows @ weights - (center.T * weights).sum(axis=0) / 2 + usual)

        result = np.zeros((len(given), classes))
        for one, logits in zip(folds, in_threads(of_fold, range(len(folds))), strict=True):
            result[self.fold == one] = logits
        return result
