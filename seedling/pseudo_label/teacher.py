"""The teacher's predictions of the pool, propagated over neighbors per fold model, and calibrated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from seedling.config.params import PseudoLabelParams
from seedling.dataset.class_indices import class_indices
from seedling.dataset.generation import read
from seedling.dataset.schema import HUMAN_SOURCES
from seedling.files.reading import read_frame, reading
from seedling.models.label_propagation import neighbor_graph, propagate_labels, scale_to_class_shares
from seedling.parallel.executor import in_threads
from seedling.parallel.pool import in_pieces
from seedling.stats.randomness import generator
from seedling.stats.statistics import SMALLEST, Floats, Ints, fit_temperature, log_loss_of_rows, softmax
from seedling.workspace import OUT_OF_FOLD, POOL_PREDICTIONS

NO_FOLD = -1  # of a labeled row that every model has seen
TEACHER_WEIGHTS = (0.1, 0.01, 0.001, 1e-5)  # weight of a teacher's prediction relative to a label; the first is default
UNTESTED_TEACHER_WEIGHT = TEACHER_WEIGHTS[-1]  # used if no labeled row is held out to test the predictions
MIN_P_BETTER = 0.9  # bootstrap probability with which another weight must beat the default
MIN_HELD_OUT_ROWS = 60  # with fewer, two or three rows would decide
BOOTSTRAP_SAMPLES = 500


@dataclass(frozen=True)
class TeacherPredictions:
    """The teacher's predictions. Fold model k never saw fold k; the last one is the final model.

    labeled: (n_labeled, n_classes), out of fold; pool: (n_fold_models, n_pool, n_classes); half: (n_pool,), 0 or 1;
    fold (-1: never held out), truth, weights, human, repaired: (n_labeled,); label_weights: (n_fold_models, n_labeled);
    labeled_std: (n_labeled,) and pool_std: (n_fold_models, n_pool), Monte Carlo dropout standard deviations.
    """

    labeled_ids: list[str]
    pool_ids: list[str]
    half: Ints
    labeled: Floats
    pool: Floats
    fold: Ints
    folds: list[int]
    truth: Ints
    weights: Floats
    human: NDArray[np.bool_]
    repaired: NDArray[np.bool_]
    label_weights: Floats
    labeled_std: Floats
    pool_std: Floats


def read_teacher_predictions(teacher: Path, validated: Path, classes: list[str]) -> TeacherPredictions:
    """Read the teacher's predictions into arrays. teacher: the folder `models/<round>`."""
    labeled = read_frame(teacher / OUT_OF_FOLD)
    labeled = labeled[labeled["split"] == "train"]
    weight = read(validated, ["id", "weight"], splits=["train"]).drop_duplicates("id").set_index("id")["weight"]
    with reading(teacher / POOL_PREDICTIONS):
        pool = pq.read_table(teacher / POOL_PREDICTIONS)
    fold = np.asarray(labeled["fold"].astype("float64").fillna(NO_FOLD), dtype=np.int64)
    pool_ids: list[Any] = pool["id"].to_pylist()
    folds = sorted(set(fold.tolist()) - {NO_FOLD})
    shape = (len(pool), len(folds) + 1, len(classes))
    return TeacherPredictions(
        labeled_ids=labeled["id"].tolist(),
        pool_ids=pool_ids,
        half=pool["half"].to_numpy().astype(np.int64),
        labeled=np.stack(labeled["probabilities"].tolist()).astype(np.float64),
        pool=_flat(pool["probabilities"]).astype(np.float64).reshape(shape).transpose(1, 0, 2),
        fold=fold,
        folds=folds,
        truth=class_indices(labeled["label"], classes),
        weights=weight.loc[labeled["id"]].to_numpy(dtype=np.float64),
        human=labeled["label_source"].isin(HUMAN_SOURCES).to_numpy(),
        repaired=(labeled["label_source"] == "repaired").to_numpy(),
        label_weights=np.stack(labeled["label_weight_by_fold"].tolist()).astype(np.float64).T,
        labeled_std=labeled["dropout_std"].to_numpy(dtype=np.float64),
        pool_std=_flat(pool["dropout_std"]).astype(np.float64).reshape(shape[:2]).T,
    )


def _flat(column: pa.ChunkedArray[Any]) -> NDArray[np.float32]:
    """The concatenated values of a column of lists."""
    return np.asarray(pc.list_flatten(column).to_numpy(), dtype=np.float32)


@dataclass(frozen=True)
class PseudoLabels:
    """The pool's labels.

    probabilities: (n_fold_models, n_pool, n_classes), calibrated; agrees: (n_fold_models, n_pool), whether the teacher
    and the neighbors predict the same class; dropout_std: (n_fold_models, n_pool); held_out, held_out_agrees,
    held_out_std: the same for held-out labeled rows, by fold models that never saw them; truth: (n_held_out,);
    teacher_weight: weight of the teacher's predictions relative to a label in the final model, None without a graph;
    density: (n_pool,), closeness of a row's neighbors, mean 1.
    """

    probabilities: Floats
    agrees: NDArray[np.bool_]
    held_out: Floats
    held_out_agrees: NDArray[np.bool_]
    dropout_std: Floats
    held_out_std: Floats
    truth: Ints
    temperature: float
    teacher_weight: float | None
    graph: Any
    density: Floats


@dataclass(frozen=True)
class FoldPropagation:
    """One fold model's labels and predictions, propagated over the labeled rows followed by the pool rows.

    hidden: (n_labeled,), rows whose labels the fold model never saw; teacher: (n, n_classes), the teacher's
    predictions; from_labels, from_teacher: (n, n_classes), what reaches a row from labels and from predictions, in
    single precision, None without a graph. Propagation is linear in its seeds, so that one pass for each serves all
    teacher weights.
    """

    hidden: NDArray[np.bool_]
    teacher: Floats
    from_labels: NDArray[np.float32] | None
    from_teacher: NDArray[np.float32] | None

    @classmethod
    def compute(cls, predictions: TeacherPredictions, fold_index: int, graph: Any, strength: float) -> FoldPropagation:
        """Propagate the labels and the predictions. fold_index: position of the fold model, the final model is last."""
        hidden = (
            predictions.fold == predictions.folds[fold_index]
            if fold_index < len(predictions.folds)
            else np.zeros(len(predictions.truth), dtype=bool)
        )
        teacher = np.concatenate([predictions.labeled, predictions.pool[fold_index]])
        if graph is None:
            return cls(hidden, teacher, None, None)
        visible = np.flatnonzero(~hidden)
        label_seeds, teacher_seeds = np.zeros_like(teacher), teacher.copy()
        label_weights = predictions.weights[visible] * predictions.label_weights[fold_index][visible]
        label_seeds[visible, predictions.truth[visible]] = label_weights
        teacher_seeds[visible] = 0.0  # predictions of visible rows come from models that saw the hidden rows
        seeds = np.concatenate([label_seeds, teacher_seeds], axis=1).astype(np.float32)
        propagated = propagate_labels(graph, seeds, strength=strength)
        n_classes = teacher.shape[1]
        return cls(hidden, teacher, propagated[:, :n_classes], propagated[:, n_classes:])

    def probabilities(self, teacher_weight: float) -> Floats:
        """(n, n_classes), rows sum to 1. teacher_weight: weight of a teacher's prediction relative to a label."""
        if self.from_labels is None or self.from_teacher is None:
            return self.teacher
        pool = self.teacher[len(self.hidden) :]
        combined = self.from_labels + teacher_weight * self.from_teacher.astype(np.float64)
        return scale_to_class_shares(pool.mean(axis=0), combined)


def refine(predictions: TeacherPredictions, features: Any, params: PseudoLabelParams, seed: int = 0) -> PseudoLabels:
    """Propagate the teacher's predictions over neighbors, and calibrate them on rows that each fold model never saw.

    features: (n_labeled + n_pool, d), or None to use the teacher's predictions without propagation.
    """
    graph = None if features is None else neighbor_graph(features, params.neighbors)
    n_labeled = len(predictions.truth)
    compute = partial(FoldPropagation.compute, predictions, graph=graph, strength=params.propagation)
    propagations: list[FoldPropagation] = list(in_pieces(compute, range(len(predictions.folds) + 1), here=in_threads))
    testable = (predictions.fold != NO_FOLD) & ~predictions.repaired
    tested = testable & predictions.human if (testable & predictions.human).any() else testable
    truth = predictions.truth[tested]
    weights = _teacher_weights(predictions, propagations, tested, has_graph=graph is not None, seed=seed)
    logits, held_out_agrees = _held_out_logits(predictions, propagations, weights)
    held_out = logits[tested]
    temperature = fit_temperature(held_out, truth)
    pool = [
        (propagation.probabilities(weight)[n_labeled:], propagation.teacher[n_labeled:])
        for propagation, weight in zip(propagations, weights, strict=True)
    ]
    n_pool = len(predictions.pool_ids)
    density = np.ones(n_pool) if graph is None else np.asarray(graph.sum(axis=1)).ravel()[n_labeled:]
    return PseudoLabels(
        probabilities=np.stack([softmax(safe_log(probabilities) / temperature) for probabilities, _ in pool]),
        agrees=np.stack([probabilities.argmax(axis=1) == teacher.argmax(axis=1) for probabilities, teacher in pool]),
        held_out=softmax(held_out / temperature),
        held_out_agrees=held_out_agrees[tested],
        dropout_std=predictions.pool_std,
        held_out_std=predictions.labeled_std[tested],
        truth=truth,
        temperature=temperature,
        teacher_weight=None if graph is None else weights[-1],
        graph=graph,
        density=density / max(float(density.mean()), SMALLEST) if len(density) else density,
    )


def _held_out_logits(
    predictions: TeacherPredictions, propagations: Sequence[FoldPropagation], weights: Sequence[float]
) -> tuple[Floats, NDArray[np.bool_]]:
    """Logits of the labeled rows by fold models that never saw them, and whether the teacher alone agrees.

    Returns (n_labeled, n_classes) and (n_labeled,), zeros for rows that were never held out. weights: the teacher's,
    one per fold model.
    """
    n_labeled = len(predictions.truth)
    logits, agrees = np.zeros_like(predictions.labeled), np.zeros(n_labeled, dtype=bool)
    for propagation, weight in zip(propagations, weights, strict=True):
        hidden = propagation.hidden
        probabilities = propagation.probabilities(weight)[:n_labeled][hidden]
        logits[hidden] = safe_log(probabilities)
        agrees[hidden] = probabilities.argmax(axis=1) == propagation.teacher[:n_labeled][hidden].argmax(axis=1)
    return logits, agrees


def _teacher_weights(
    predictions: TeacherPredictions,
    propagations: Sequence[FoldPropagation],
    tested: NDArray[np.bool_],
    *,
    has_graph: bool,
    seed: int,
) -> list[float]:
    """The teacher's weight per fold model, chosen on held-out rows of the other folds. tested: (n_labeled,)."""
    if not tested.any():
        return [UNTESTED_TEACHER_WEIGHT] * len(propagations)
    if not has_graph:
        return [TEACHER_WEIGHTS[0]] * len(propagations)
    truth = predictions.truth[tested]
    logits_by_weight = [
        _held_out_logits(predictions, propagations, [weight] * len(propagations))[0][tested]
        for weight in TEACHER_WEIGHTS
    ]
    chosen = []
    for fold_index, propagation in enumerate(propagations):
        rows = ~propagation.hidden[tested]  # a fold model's weight must not depend on the fold that it never sees
        rng = generator(seed, "teacher weight", fold_index)
        chosen.append(choose_teacher_weight([logits[rows] for logits in logits_by_weight], truth[rows], rng))
    return chosen


def choose_teacher_weight(held_out: Sequence[Floats], truth: Ints, rng: np.random.Generator) -> float:
    """Choose the weight of the teacher's predictions relative to a label.

    It is the default unless the weight with the smallest log loss on held-out rows is significantly better (bootstrap,
    `MIN_P_BETTER`). A teacher that was trained on two rows per class can be confident and wrong; then the labels alone
    are more accurate.

    held_out: (n_rows, n_classes), logits with each of `TEACHER_WEIGHTS`.
    truth: (n_rows,).
    """
    n_rows = len(truth)
    if n_rows < MIN_HELD_OUT_ROWS:
        return TEACHER_WEIGHTS[0]
    losses = [log_loss_of_rows(softmax(logits / fit_temperature(logits, truth)), truth) for logits in held_out]
    best = int(np.argmin([loss.mean() for loss in losses]))
    is_better = (losses[0] - losses[best])[rng.integers(n_rows, size=(BOOTSTRAP_SAMPLES, n_rows))].mean(axis=1) > 0
    return TEACHER_WEIGHTS[best if is_better.mean() >= MIN_P_BETTER else 0]


def safe_log(probabilities: Floats) -> Floats:
    """The logarithm, with probabilities clipped to at least `SMALLEST`."""
    logs: Floats = np.log(np.maximum(probabilities, SMALLEST))
    return logs
