"""Weak learners on features. Each fits soft labels and weights and returns logits, which a temperature calibrates."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedling.features.classical import Inputs
from seedling.features.sparsity import is_sparse
from seedling.models.model_arrays import check_arrays, check_classes
from seedling.models.trees import (
    boosting_arrays,
    boosting_probabilities,
    check_trees,
    forest_arrays,
    forest_probabilities,
    leaf_shares,
)
from seedling.stats.statistics import SMALLEST, Floats, softmax

ABSENT = np.log(SMALLEST)  # the logit of a class that is not in the training rows
NODES = dict.fromkeys(("classes", "tree_start", "feature", "left", "right"), ("i", 1)) | {"threshold": ("f", 1)}
LINEAR = ("logistic_regression", "encoder_regression")  # the second one on the encoder's features alone
ARRAYS_OF_HEADS = {  # the arrays of each learner: name → kind of number and dimensions
    **{name: {"classes": ("i", 1), "weights": ("f", 2), "intercepts": ("f", 1)} for name in LINEAR},
    "random_forest": NODES | {"share_node": ("i", 1), "share_class": ("i", 1), "share": ("f", 1)},
    "boosted_trees": NODES | {"value": ("f", 1), "baseline": ("f", 1)},
}
DROPOUT_DRAWS = 10
DROPPED_FEATURE_SHARE = 0.1  # of the features, in each dropout draw
ROWS_PER_BLOCK = 2_048  # whose kernel values or probabilities are in memory together


def hard_rows(targets: Floats, weights: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Convert soft labels to hard ones: row numbers, classes and weights, one entry per positive class probability.

    targets: (n_rows, n_classes), rows sum to 1; weights: (n_rows,). The weights of a row's entries sum to the row's
    weight.
    """
    rows, classes = np.nonzero(targets > 0)
    return rows, classes, (targets[rows, classes] * weights[rows]).astype(np.float64)


class Head:
    """The fitted parameters of a scikit-learn estimator, kept as plain arrays of numbers.

    `arrays` contains `classes` and, for a linear learner, `weights` (n_features, n_classes or 1) and `intercepts`; for
    trees, the arrays of seedling/models/trees.py. After training on a single class it contains only `classes`.
    """

    def __init__(
        self,
        name: str,
        seed: int,
        classes: int,
        arrays: dict[str, NDArray[Any]] | None = None,
        encoder_block: tuple[int, float] | None = None,
    ) -> None:
        """encoder_block: the only features that `fit` uses, see `EncodedFeatures.encoder_block`; None: all."""
        self.name, self.seed, self.classes, self.encoder_block = name, seed, classes, encoder_block
        self.arrays = {} if arrays is None else arrays
        self._shares: Floats | None = None

    def fit(self, inputs: Inputs, targets: Floats, weights: Floats) -> None:
        """Fit on rows with soft labels. targets: (n_rows, n_classes), rows sum to 1; weights: (n_rows,)."""
        rows, labels, row_weights = hard_rows(targets, weights)
        self._shares = None
        present = np.unique(labels)
        if len(present) == 1:  # near-duplicates stay in one fold, which can leave one class to train on
            self.arrays = {"classes": present.astype(np.int64)}
            return
        estimator = make_estimator(self.name, self.seed, len(rows))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="sklearn")
            warnings.filterwarnings("ignore", message=".*lbfgs failed to converge.*")
            estimator.fit(self._estimator_input(inputs)[rows], labels, sample_weight=row_weights)
        self.arrays = arrays_of(self.name, estimator)
        if self.encoder_block is not None:  # the other features get the weight 0, so that all linear learners are alike
            n_columns, factor = self.encoder_block
            weights = np.zeros((inputs.features.shape[1], self.arrays["weights"].shape[1]))
            weights[:n_columns] = factor * self.arrays["weights"]
            self.arrays["weights"] = weights

    def restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Load arrays from a file. Raises ValueError if they are not the arrays of such a learner."""
        kinds = {"classes": ("i", 1)} if len(arrays.get("classes", ())) == 1 else ARRAYS_OF_HEADS[self.name]
        check_arrays(arrays, kinds)
        check_classes(arrays["classes"], self.classes)
        if "weights" in arrays:
            outputs = 1 if len(arrays["classes"]) == 2 else len(arrays["classes"])
            if arrays["weights"].shape[1] != outputs or len(arrays["intercepts"]) != outputs:
                raise ValueError("weights and intercepts do not fit the classes")
        if "tree_start" in arrays:
            check_trees(arrays)
        if "baseline" in arrays and len(arrays["baseline"]) != max(
            1, len(arrays["classes"]) * (len(arrays["classes"]) > 2)
        ):
            raise ValueError("baseline does not fit the classes")
        self.arrays, self._shares = arrays, None

    def logits(self, inputs: Inputs) -> Floats:
        """(n_rows, n_classes); a class that was not in the training rows gets `ABSENT`."""
        result = np.full((len(inputs), self.classes), ABSENT)
        result[:, self.arrays["classes"]] = self._scores(inputs)
        return result

    def _scores(self, inputs: Inputs) -> Floats:
        if len(self.arrays["classes"]) == 1:
            return np.zeros((len(inputs), 1))
        if self.name == "random_forest":
            if self._shares is None:
                self._shares = leaf_shares(self.arrays)
            return _log_probabilities(forest_probabilities(self.arrays, inputs.features, self._shares))
        if self.name == "boosted_trees":
            return _log_probabilities(boosting_probabilities(self.arrays, inputs.features))
        scores = np.asarray(inputs.features @ self.arrays["weights"] + self.arrays["intercepts"], dtype=np.float64)
        return np.concatenate([-scores / 2, scores / 2], axis=1) if scores.shape[1] == 1 else scores

    def dropout_std(self, inputs: Inputs, seed: int) -> Floats:
        """(n_rows,): Monte Carlo dropout (Gal and Ghahramani 2016) of a linear learner; zeros for other learners.

        Returns the standard deviation of the likeliest class's probability over draws that drop a tenth of the
        features.
        """
        if self.name not in LINEAR or len(inputs) == 0:
            return np.zeros(len(inputs))
        rng = np.random.default_rng(seed)
        n_features = inputs.features.shape[1]
        masks = (
            (rng.random((DROPOUT_DRAWS, n_features)) > DROPPED_FEATURE_SHARE) / (1 - DROPPED_FEATURE_SHARE)
        ).astype(np.float32)
        masked_heads = [self._with_feature_factors(mask) for mask in masks]
        blocks = []
        for first in range(0, len(inputs), ROWS_PER_BLOCK):
            rows = Inputs(inputs.features[first : first + ROWS_PER_BLOCK])
            blocks.append(std_of_likeliest(np.stack([softmax(head.logits(rows)) for head in masked_heads])))
        return np.concatenate(blocks)

    def _with_feature_factors(self, factors: NDArray[np.float32]) -> Head:
        """Return a linear learner with each feature multiplied by a factor; the weights are scaled, not the rows."""
        arrays = dict(self.arrays)
        if "weights" in arrays:
            arrays["weights"] = arrays["weights"] * factors[:, None]
        return Head(self.name, self.seed, self.classes, arrays)

    def _estimator_input(self, inputs: Inputs) -> Any:
        """Return the features that `fit` uses; dense for boosted trees, which do not accept sparse ones."""
        if self.encoder_block is not None:
            n_columns, factor = self.encoder_block
            return inputs.features[:, :n_columns] * np.float32(factor)
        if self.name == "boosted_trees" and is_sparse(inputs.features):
            return inputs.features.toarray()
        return inputs.features


def _log_probabilities(probabilities: Floats) -> Floats:
    result: Floats = np.log(np.maximum(probabilities, 1e-3))
    return result


def arrays_of(name: str, estimator: Any) -> dict[str, NDArray[Any]]:
    """Return a fitted estimator's parameters as arrays."""
    if name == "random_forest":
        return forest_arrays(estimator)
    if name == "boosted_trees":
        return boosting_arrays(estimator)
    return {
        "classes": np.asarray(estimator.classes_, dtype=np.int64),
        "weights": np.ascontiguousarray(estimator.coef_.T),
        "intercepts": np.ascontiguousarray(estimator.intercept_),
    }


def std_of_likeliest(probabilities: Floats) -> Floats:
    """(n_rows,): the standard deviation over draws of the probability of the class with the highest mean.

    probabilities: (n_draws, n_rows, n_classes).
    """
    likeliest = probabilities.mean(axis=0).argmax(axis=1)
    result: Floats = probabilities[:, np.arange(probabilities.shape[1]), likeliest].std(axis=0)
    return result


def make_estimator(name: str, seed: int, n_rows: int) -> Any:
    """Return the unfitted scikit-learn estimator; `n_rows` sets the minimum leaf size of boosted trees."""
    if name in LINEAR:
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(C=10.0, max_iter=200, tol=1e-3)
    if name == "boosted_trees":
        from sklearn.ensemble import HistGradientBoostingClassifier

        min_samples_leaf = int(np.clip(n_rows // 100, 2, 20))
        return HistGradientBoostingClassifier(
            max_iter=60,
            max_leaf_nodes=15,
            min_samples_leaf=min_samples_leaf,
            early_stopping=False,
            random_state=seed % 2**32,
        )
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(100, random_state=seed % 2**32, n_jobs=1)
