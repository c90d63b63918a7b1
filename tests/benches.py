"""Rows in folds, training data and predictions, as train has them, for tests of what it does with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from seedling.dataset.training_rows import TrainingRows
from seedling.features.classical import Inputs
from seedling.models.training import FitContext
from seedling.train.choice import EvaluationRows
from seedling.train.cross_validation import Predictions
from seedling.train.training_data import TrainingData


def labeled(n_rows: int, classes: int = 2, wrong: tuple[int, ...] = ()) -> tuple[TrainingRows, Inputs, np.ndarray]:
    """Rows around one distant corner per class, in five folds; the rows in `wrong` have the next class's label."""
    rng = np.random.default_rng(1)
    truth = np.arange(n_rows) % classes
    labels = truth.copy()
    labels[list(wrong)] = (labels[list(wrong)] + 1) % classes
    features = (12 * np.eye(classes)[truth] + rng.normal(size=(n_rows, classes))).astype(np.float32)
    rows = TrainingRows(
        ids=np.arange(n_rows).astype(str),
        ingredient=np.array(["collected"] * n_rows),
        fold=np.arange(n_rows) // classes % 5,
        targets=np.eye(classes)[labels],
        weights=np.ones(n_rows),
        parents=np.stack([np.arange(n_rows), np.full(n_rows, -1)], axis=1),
        group=np.arange(n_rows).astype(str),
        half=np.zeros(n_rows, dtype=np.int64),
        pseudo_label_by_fold=np.full((n_rows, 6), -1),
        pseudo_weight_by_fold=np.zeros((n_rows, 6)),
    )
    return rows, Inputs(features), truth


def training_data(rows: TrainingRows, inputs: Inputs, scratch: Path | None = None) -> TrainingData:
    """These rows, without validation rows."""
    no_rows = inputs.take(np.arange(0))
    return TrainingData(rows, inputs, no_rows, FitContext(rows.targets.shape[1], steps=20), scratch=scratch)


def predictions(logits: np.ndarray) -> Predictions:
    """Predictions of labeled rows alone."""
    return Predictions(logits, np.zeros((0, 2)), np.zeros((1, 0, 2)), np.zeros(len(logits)), np.zeros((1, 0)))


def evaluation_rows(truth: np.ndarray) -> EvaluationRows:
    """Labeled rows, each in a group of its own."""
    return EvaluationRows(truth, np.arange(len(truth)), np.arange(len(truth)).astype(str), np.ones(len(truth)))
