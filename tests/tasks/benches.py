"""Rows in folds, a bench for them, and predictions as train has them, for tests of what it does with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from seedling.dataset.training_rows import TrainingRows
from seedling.features.classical import Inputs
from seedling.models.training import FitContext
from seedling.train.choice import Judged
from seedling.train.cross_validation import Predictions, TrainingData


def labeled(many: int, classes: int = 2, wrong: tuple[int, ...] = ()) -> tuple[TrainingRows, Inputs, np.ndarray]:
    """Rows around as many far corners as there are classes, in five folds; those in `wrong` carry the next class's label."""
    rng = np.random.default_rng(1)
    truth = np.arange(many) % classes
    given = truth.copy()
    given[list(wrong)] = (given[list(wrong)] + 1) % classes
    features = (12 * np.eye(classes)[truth] + rng.normal(size=(many, classes))).astype(np.float32)
    rows = TrainingRows(
        ids=np.arange(many).astype(str),
        ingredient=np.array(["collected"] * many),
        fold=np.arange(many) // classes % 5,
        targets=np.eye(classes)[given],
        weights=np.ones(many),
        parents=np.stack([np.arange(many), np.full(many, -1)], axis=1),
        group=np.arange(many).astype(str),
        half=np.zeros(many, dtype=np.int64),
        pseudo_label_by_fold=np.full((many, 6), -1),
        pseudo_weight_by_fold=np.zeros((many, 6)),
    )
    return rows, Inputs(features), truth


def bench_of(rows: TrainingRows, inputs: Inputs, scratch: Path | None = None) -> TrainingData:
    none = inputs.take(np.arange(0))
    return TrainingData(rows, inputs, none, FitContext(rows.targets.shape[1], steps=20), scratch=scratch)


def predictions(logits: np.ndarray) -> Predictions:
    return Predictions(logits, np.zeros((0, 2)), np.zeros((1, 0, 2)), np.zeros(len(logits)), np.zeros((1, 0)))


def judged(truth: np.ndarray) -> Judged:
    return Judged(truth, np.arange(len(truth)), np.arange(len(truth)).astype(str), np.ones(len(truth)))
