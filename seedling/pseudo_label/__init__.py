"""pseudo_label: label the pool with models that were not trained on the row, and keep the labels that pass a filter.

    python -m seedling.runner pseudo_label@1

Per fold model (see seedling/train/cross_validation.py), the teacher's predictions are propagated over the neighbor
graph of all training rows and calibrated with a temperature that is fitted on rows whose labels the fold model never
saw.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from seedling.config.params import PseudoLabelParams, WorkspaceConfig
from seedling.dataset.fold_probabilities import write_fold_probabilities
from seedling.dataset.generation import GenerationWriter, PayloadReader, Row, read, read_manifest, stream
from seedling.features.classical import FeatureMaker, dense
from seedling.models.model import single_threaded
from seedling.models.saving import load_features
from seedling.progress import Progress, silent
from seedling.pseudo_label.filters import FILTERS, FilterInput, FilterResult, compare_filters, unreliable_classes
from seedling.pseudo_label.queue import write_queue
from seedling.pseudo_label.teacher import PseudoLabels, TeacherPredictions, read_teacher_predictions, refine
from seedling.records.decision import DecisionRecord
from seedling.records.intervals import EstimateRecord
from seedling.records.stage_notes import ClassPrecision, PseudoLabelAudit, PseudoLabelNotes
from seedling.stats.randomness import generator
from seedling.stats.statistics import Floats, wilson
from seedling.workspace import DECISION, QUEUE

COLUMNS: list[pa.Field[Any]] = [
    pa.field("pseudo_label_by_fold", pa.list_(pa.int16())),
    pa.field("pseudo_weight_by_fold", pa.list_(pa.float32())),
    pa.field("half", pa.int8()),
    pa.field("margin", pa.float32()),
    pa.field("fold_agreement", pa.float32()),
    pa.field("neighbor_agreement", pa.bool_()),
    pa.field("dropout_std", pa.float32()),
]
BEYOND_POOL_ROWS = "beyond_pool_rows"  # reason code
MAX_DIFFICULTY_WEIGHT = 3.0  # times the weight of a row of an average class
MAX_GRAPH_ROWS = 20_000  # beyond, the neighbor graph costs more than it gains and the teacher is used alone


def pseudo_label(  # noqa: PLR0913  (the inputs of a stage, each by its name)
    params: PseudoLabelParams,
    config: WorkspaceConfig,
    *,
    round_number: int,
    rounds: int,
    collected: Path,
    validated: Path,
    teacher: Path,
    workspace: Path,
    output: Path,
    progress: Progress = silent,
) -> None:
    """Write `generations/pseudo_label/<round>`: the pool's rows with a label, or rejected as `refused_by_filter`.

    Columns:

    - pseudo_label_by_fold, pseudo_weight_by_fold: each fold model's label and its weight, computed from that fold model
      alone; -1 and 0 if its filter refused the row.
    - label, confidence, weight: the final model's. The weight is 0 for a row that only some fold model keeps, which is
      needed for the comparison of rounds.
    - margin: difference between the two highest probabilities.
    - fold_agreement: share of fold models that predict the same class.
    - neighbor_agreement: whether the teacher alone predicts the same class.
    - dropout_std: Monte Carlo dropout standard deviation of the predicted class's probability.

    Pool rows beyond `train.pool_rows` have no predictions and are rejected as `beyond_pool_rows`. queue.csv lists the
    rows whose labels by a human would help most. fold_probabilities.parquet has each fold model's class
    probabilities of the pool.
    """
    stage, classes = f"pseudo_label@{round_number}", list(read_manifest(validated).classes)
    stopped = DecisionRecord.read(teacher / DECISION).stop or round_number > rounds
    with GenerationWriter(output, stage=stage, modality=config.modality, images=False, extra=COLUMNS) as writer:
        if stopped:
            writer.close(rows_in=0, classes=classes, notes=PseudoLabelNotes(skipped=True))
            return
        predictions = read_teacher_predictions(teacher, validated, classes)
        progress("label the pool", 0, len(predictions.pool_ids))
        with single_threaded():
            features = _features(predictions, load_features(teacher, config.modality, workspace), collected, params)
            labels = refine(predictions, features, params, config.seed)
        curriculum_share = 0.5 + 0.5 * round_number / max(1, rounds)
        kept, name, table = choose_filter(labels, params, curriculum_share, config.seed)
        pool_ids = predictions.pool_ids
        rows = read(validated, splits=["pool"], ids=pool_ids).set_index("id").loc[pool_ids].reset_index()
        write_queue(output / QUEUE, rows, labels, classes, params.queue)
        write_fold_probabilities(output, pool_ids, labels.probabilities)
        for row, reason in _rows(rows, predictions, labels, kept, classes, params, round_number):
            if reason:
                writer.reject(row, reason)
            else:
                writer.keep(row)
        n_beyond = 0
        for row in _rows_beyond_limit(validated, set(pool_ids)):
            writer.reject(row, BEYOND_POOL_ROWS)
            n_beyond += 1
        progress("label the pool", len(rows), len(rows))
        notes = PseudoLabelNotes(audit=audit(labels, name, table, classes))
        writer.close(rows_in=len(rows) + n_beyond, classes=classes, notes=notes)


def _features(predictions: TeacherPredictions, maker: FeatureMaker, collected: Path, params: PseudoLabelParams) -> Any:
    """(n_labeled + n_pool, d): features for the neighbor graph, or None if no graph is built."""
    ids = [*predictions.labeled_ids, *predictions.pool_ids]
    if params.propagation == 0 or len(ids) > MAX_GRAPH_ROWS:
        return None
    return dense(maker.of_rows(ids, PayloadReader.of(collected), fit=False).features)


def choose_filter(
    labels: PseudoLabels, params: PseudoLabelParams, curriculum_share: float, seed: int
) -> tuple[NDArray[np.bool_], str, list[FilterResult]]:
    """Return which labels are kept (n_fold_models, n_pool), the filter's name, and the comparison of all filters.

    curriculum_share: share of the pool that the filter `curriculum` keeps, 0 to 1.
    """
    predicted = labels.held_out.argmax(axis=1)
    unreliable = unreliable_classes(predicted, labels.truth, labels.held_out.shape[1])
    held_out = FilterInput(labels.held_out, labels.held_out_agrees, curriculum_share, unreliable, labels.held_out_std)
    best, table = compare_filters(held_out, labels.truth, params.threshold, generator(seed, "bake-off"))
    name = params.filter or best
    pools = [
        FilterInput(probabilities, agrees, curriculum_share, unreliable, dropout_std)
        for probabilities, agrees, dropout_std in zip(
            labels.probabilities, labels.agrees, labels.dropout_std, strict=True
        )
    ]
    return np.stack([FILTERS[name](pool, params.threshold) for pool in pools]), name, table


def audit(labels: PseudoLabels, name: str, table: list[FilterResult], classes: list[str]) -> PseudoLabelAudit:
    """The expected precision of the kept pseudo-labels, in total and per class, and the results of the other filters.

    It is measured on held-out labeled rows that are treated like the pool.
    """
    predicted = labels.held_out.argmax(axis=1)
    chosen = next(result for result in table if result.filter == name)
    by_class = {}
    for index, label in enumerate(classes):
        rows = predicted == index
        n_correct, n_rows = int((labels.truth[rows] == index).sum()), int(rows.sum())
        precision = EstimateRecord.of(wilson(n_correct, n_rows)) if n_rows else None
        by_class[label] = ClassPrecision(rows=n_rows, precision=precision)
    return PseudoLabelAudit(
        temperature=labels.temperature,
        teacher_weight=labels.teacher_weight,
        rows=len(labels.truth),
        filter=name,
        kept=chosen.kept,
        precision=None if chosen.precision is None else EstimateRecord.of(chosen.precision),
        classes=by_class,
        filters=tuple(result.record() for result in table),
    )


def difficulty_weights(probabilities: Floats, strength: float) -> Floats:
    """(n_rows,), mean 1: a factor that increases the weight of rows of difficult classes.

    A class is difficult if the mean confidence of its rows is low. The plain weight, which is the confidence, already
    penalizes such a class. The factor is

        min((mean confidence / mean confidence of the class)^(2 × strength), `MAX_DIFFICULTY_WEIGHT`),

    divided by its mean over the rows. It is the learning status of FreeMatch (Wang et al. 2023), used as a sampling
    weight as in CReST (Wei et al. 2021). strength 0: the factor is 1; 0.5: the mean weight is equal for all classes;
    1: rows of a difficult class weigh more than those of an easy class.
    """
    if strength == 0 or len(probabilities) == 0:
        return np.ones(len(probabilities))
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    n_classes = probabilities.shape[1]
    n_rows = np.bincount(predicted, minlength=n_classes)
    class_confidence = np.bincount(predicted, weights=confidence, minlength=n_classes) / np.maximum(n_rows, 1)
    present = n_rows > 0
    factor = np.ones(n_classes)
    factor[present] = np.minimum(
        (confidence.mean() / class_confidence[present]) ** (2 * strength), MAX_DIFFICULTY_WEIGHT
    )
    weights: Floats = factor[predicted] / factor[predicted].mean()
    return weights


def _rows(
    rows: pd.DataFrame,
    predictions: TeacherPredictions,
    labels: PseudoLabels,
    kept: NDArray[np.bool_],
    classes: list[str],
    params: PseudoLabelParams,
    round_number: int,
) -> Iterator[tuple[Row, str | None]]:
    """Each pool row with its label, and the reason if it is rejected. rows: the pool; kept: (n_fold_models, n_pool)."""
    probabilities = labels.probabilities
    confidence_weights = np.stack(
        [of_fold.max(axis=1) * difficulty_weights(of_fold, params.hard_classes) for of_fold in probabilities]
    )
    weights = np.where(kept, params.weight * confidence_weights, 0.0)
    label_by_fold = np.where(kept, probabilities.argmax(axis=2), -1)
    final = probabilities[-1]
    extra_columns: dict[str, NDArray[Any]] = {
        "pseudo_label_by_fold": label_by_fold.T,
        "pseudo_weight_by_fold": weights.T,
        "half": predictions.half,
        **_confidence_columns(labels),
    }
    pool_row: Any  # a named tuple of the columns
    for index, pool_row in enumerate(rows.itertuples(index=False)):
        row = Row(
            id=pool_row.id,
            split="pool",
            label=classes[int(final[index].argmax())],
            label_probs=final[index].tolist(),
            label_source=f"pseudo:{round_number}",
            weight=float(weights[-1, index]),
            confidence=float(final[index].max()),
            origin=pool_row.origin,
            license=pool_row.license,
            attribution=pool_row.attribution,
            group=pool_row.group,
            payload=getattr(pool_row, "text", None),
            extra={name: values[index].tolist() for name, values in extra_columns.items()},
        )
        yield row, None if kept[:, index].any() else "refused_by_filter"


def _confidence_columns(labels: PseudoLabels) -> dict[str, NDArray[Any]]:
    """(n_pool,) each: the columns on how confident the models are and how much they agree."""
    final = labels.probabilities[-1]
    ordered = np.sort(final, axis=1)
    return {
        "margin": ordered[:, -1] - ordered[:, -2],
        "fold_agreement": (labels.probabilities.argmax(axis=2) == final.argmax(axis=1)).mean(axis=0),
        "neighbor_agreement": labels.agrees[-1],
        "dropout_std": labels.dropout_std[-1],
    }


def _rows_beyond_limit(validated: Path, predicted_ids: set[str]) -> Iterator[Row]:
    """Pool rows beyond `train.pool_rows`, without a label. They are streamed, so that only a few are in memory."""
    for row in stream(validated):
        if row.split == "pool" and row.id not in predicted_ids:
            empty = {field.name: None for field in COLUMNS}
            yield replace(row, fold=None, label=None, label_probs=None, label_source=None, extra=empty)
