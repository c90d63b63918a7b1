"""Models of the other folds: predictions for rows, and for their augmented rows, that a model did not train on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from seedling.dataset.class_indices import class_indices
from seedling.dataset.generation import PayloadReader
from seedling.features.classical import FeatureMaker, Inputs
from seedling.features.sparsity import is_sparse
from seedling.label_quality.label_issues import flag_label_issues, label_error_probabilities
from seedling.models.saving import Learner, make_learner
from seedling.models.training import FitContext
from seedling.progress import Progress
from seedling.stats.randomness import derived_seed
from seedling.stats.statistics import SMALLEST, Floats, Ints, fit_temperature, softmax

QUICK_LEARNER = "logistic_regression"


@dataclass(frozen=True)
class LabeledRows:
    """Labeled training rows with their features.

    labels: (n,), class indices; fold: (n,), -1 for rows without a fold; classes: their number; features: fitted.
    """

    ids: list[str]
    payloads: list[bytes | str]
    labels: Ints
    fold: Ints
    groups: NDArray[np.str_]
    weights: Floats
    classes: int
    features: FeatureMaker
    inputs: Inputs

    def reassign_folds(self, seed: int) -> LabeledRows:
        """Return the same rows in other folds, each group in one fold; rows without a fold keep none."""
        order = np.array([derived_seed(seed, "dealt anew", group) for group in self.groups])
        n_folds, fold = len({*self.fold.tolist()} - {-1}), self.fold.copy()
        for label in range(self.classes):
            label_rows = np.flatnonzero((self.labels == label) & (self.fold >= 0))
            groups = sorted({(int(order[row]), self.groups[row]) for row in label_rows})
            for turn, (_, group) in enumerate(groups):
                fold[(self.groups == group) & (self.fold >= 0)] = turn % n_folds
        return replace(self, fold=fold)


def read_labeled_rows(
    rows: pd.DataFrame,
    classes: Sequence[str],
    collected: Path,
    maker: FeatureMaker,
    max_rows: int,
    seed: int,
    progress: Progress,
) -> LabeledRows:
    """Read the rows and fit the features. rows: indexed by id.

    If there are more than max_rows, the classes take turns, each in a random order of its row ids.
    """
    if len(rows) > max_rows:
        ordered = rows.assign(order=[derived_seed(seed, "screened", row_id) for row_id in rows.index])
        ordered = ordered.sort_values("order")
        ordered["turn"] = ordered.groupby("label").cumcount()
        rows = rows.loc[sorted(ordered.sort_values(["turn", "order"]).index[:max_rows])]
    ids = rows.index.tolist()
    read_collected = PayloadReader.of(collected)
    inputs = maker.of_rows(ids, read_collected, fit=True, progress=progress)
    payload_by_id = dict(read_collected(ids))
    return LabeledRows(
        ids=ids,
        payloads=[payload_by_id[row_id] for row_id in ids],
        labels=class_indices(rows["label"], classes),
        fold=np.asarray(rows["fold"].astype("float64").fillna(-1), dtype=np.int64),
        groups=rows["group"].to_numpy(dtype=str),
        weights=rows["weight"].to_numpy(dtype=np.float64),
        classes=len(classes),
        features=maker,
        inputs=inputs,
    )


@dataclass(frozen=True)
class AugmentedRows:
    """Augmented rows. parent_index: (n,), the index of the parent; weight: a factor on the parent's weight."""

    inputs: Inputs
    parent_index: NDArray[np.intp]
    weight: float


def cross_fit(
    parents: LabeledRows,
    evaluation_rows: NDArray[np.intp],
    augmented: AugmentedRows | None,
    context: FitContext,
    learner: str = QUICK_LEARNER,
) -> tuple[Floats, dict[int, Learner]]:
    """Fit one model per fold on the other folds' rows and their augmented rows, and predict the fold's rows.

    Returns the out-of-fold probabilities, (n_evaluation_rows, n_classes), calibrated by one temperature for all models,
    and the models by fold.
    """
    folds = sorted({int(fold) for fold in parents.fold[evaluation_rows]})
    logits, models = np.zeros((len(evaluation_rows), parents.classes)), {}
    for fold in folds:
        models[fold] = make_learner(learner, context.of_model(seed=derived_seed(context.seed, learner, fold)))
        models[fold].fit(*_training_data(parents, parents.fold != fold, augmented))
        in_fold = np.flatnonzero(parents.fold[evaluation_rows] == fold)
        logits[in_fold] = models[fold].logits(parents.inputs.take(evaluation_rows[in_fold]))
    return softmax(logits / fit_temperature(logits, parents.labels[evaluation_rows])), models


def _training_data(
    parents: LabeledRows, in_training: NDArray[np.bool_], augmented: AugmentedRows | None
) -> tuple[Inputs, Floats, Floats]:
    """Return inputs, one-hot labels and weights of the parents in training and of their augmented rows."""
    rows = np.flatnonzero(in_training)
    inputs, labels, weights = parents.inputs.take(rows), parents.labels[rows], parents.weights[rows]
    if augmented is not None:
        augmented_rows = np.flatnonzero(in_training[augmented.parent_index])
        parent_rows = augmented.parent_index[augmented_rows]
        inputs = _stack(inputs, augmented.inputs.take(augmented_rows))
        labels = np.concatenate([labels, parents.labels[parent_rows]])
        weights = np.concatenate([weights, augmented.weight * parents.weights[parent_rows]])
    return inputs, np.eye(parents.classes)[labels], weights


def _stack(first: Inputs, second: Inputs) -> Inputs:
    both = [first.features, second.features]
    features = sparse.vstack(both).tocsr() if is_sparse(both[0]) else np.concatenate(both)
    if first.images is None or second.images is None:
        return Inputs(features)
    return Inputs(features, np.concatenate([first.images, second.images]))


def probabilities_of(model: Learner, inputs: Inputs) -> Floats:
    """Return the model's probabilities, (n, n_classes), without temperature scaling."""
    return softmax(model.logits(inputs))


def hardness(parents: LabeledRows) -> dict[str, float]:
    """Return the hardness per row id: the rank of the label's out-of-fold probability within the class, 0 to 1.

    0 is the easiest row, 1 the hardest; rows without a fold, and the only row of a class, have 0.5.
    Likely label errors have at most 0.5, since augmenting an error teaches the error. The same holds for rows whose
    label cannot be evaluated, because no other fold holds a row of the class.
    """
    evaluation_rows = np.flatnonzero(parents.fold >= 0)
    probabilities, _ = cross_fit(parents, evaluation_rows, None, FitContext(parents.classes))
    labels, hardness_by_id = parents.labels[evaluation_rows], dict.fromkeys(parents.ids, 0.5)
    label_probability = probabilities[np.arange(len(evaluation_rows)), labels]
    log_probabilities = np.log(np.maximum(probabilities, SMALLEST))
    p_label_error = label_error_probabilities(log_probabilities, labels, parents.fold[evaluation_rows])
    is_capped = flag_label_issues(p_label_error) | np.isnan(p_label_error)
    for class_index in np.unique(labels):
        class_rows = np.flatnonzero(labels == class_index)
        order = np.argsort(np.argsort(-label_probability[class_rows], kind="stable"), kind="stable")
        ranks = order / max(1, len(class_rows) - 1)
        for row, rank in zip(class_rows, ranks, strict=True):
            row_id = parents.ids[evaluation_rows[row]]
            if len(class_rows) > 1:
                hardness_by_id[row_id] = min(0.5, float(rank)) if is_capped[row] else float(rank)
    return hardness_by_id


class LabelGuard:
    """Find augmented rows whose label seems to have changed.

    An augmented row's label changed if the model of the other folds predicted the parent's label for the parent, and
    predicts another class for the augmented row.
    """

    def __init__(self, parents: LabeledRows) -> None:
        evaluation_rows = np.flatnonzero(parents.fold >= 0)
        probabilities, self._models = cross_fit(parents, evaluation_rows, None, FitContext(parents.classes))
        self._correct = {
            parents.ids[row]: (int(parents.fold[row]), int(parents.labels[row]))
            for row, row_probabilities in zip(evaluation_rows, probabilities, strict=True)
            if int(row_probabilities.argmax()) == parents.labels[row]
        }
        self._features = parents.features

    def label_changes(self, augmented: Sequence[tuple[str, bytes | str]]) -> Iterator[bool]:
        """Yield for each (parent id, payload) whether the label changed; False if the parent was misclassified."""
        inputs = self._features.transform([payload for _, payload in augmented])
        for row, (parent_id, _) in enumerate(augmented):
            fold, label = self._correct.get(parent_id, (-1, -1))
            if fold < 0:
                yield False
                continue
            yield int(self._models[fold].logits(inputs.take(np.array([row], dtype=np.intp))).argmax()) != label
