"""The files of `models/<round>`: predictions, the files of members, and training losses."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from seedling.dataset.fold_probabilities import list_column
from seedling.dataset.generation import read_manifest
from seedling.dataset.training_rows import INGREDIENTS, TrainingRows
from seedling.files.writing import write_json
from seedling.records.round_manifest import RoundManifestRecord, RoundRowsRecord
from seedling.stats.statistics import Floats
from seedling.train.cross_validation import Predictions
from seedling.train.tally import Tally
from seedling.workspace import (
    LOSSES,
    OUT_OF_FOLD,
    POOL_PREDICTIONS,
    VALIDATION_PREDICTIONS,
    Workspace,
)


def write_predictions(
    output: Path, rows: TrainingRows, frame: pd.DataFrame, predictions: Predictions, label_weights: Floats
) -> None:
    """Write the out-of-fold predictions of labeled and validation rows, and every fold model's pool predictions.

    Labeled rows without a fold, which every model saw, get the probabilities of their own labels.

    frame: the labeled rows followed by the validation rows.
    label_weights: (n_fold_models, n_labeled), see `TrainingData.label_weights`.
    """
    row_columns = frame[["id", "split", "fold", "label", "label_source", "group"]]
    labeled = predictions.labeled.copy()
    never_held_out = rows.fold[rows.labeled] < 0
    labeled[never_held_out] = rows.targets[rows.labeled][never_held_out]
    validation = predictions.validation[: len(frame) - len(labeled)]  # out-of-scope rows follow them
    probabilities = np.concatenate([labeled, validation]).astype(np.float32)
    validation_weights = np.ones((len(validation), len(label_weights)))
    weights_by_fold = np.concatenate([label_weights.T, validation_weights]).astype(np.float32)
    table = pa.Table.from_pandas(row_columns, preserve_index=False)
    table = table.append_column("probabilities", pa.array(list(probabilities), pa.list_(pa.float32())))
    dropout_std = np.concatenate([predictions.labeled_std, np.zeros(len(validation))])
    table = table.append_column("dropout_std", pa.array(dropout_std.astype(np.float32)))
    table = table.append_column("label_weight_by_fold", pa.array(list(weights_by_fold), pa.list_(pa.float32())))
    pq.write_table(table.replace_schema_metadata(), output / OUT_OF_FOLD, compression="zstd")
    n_fold_models, n_pool, n_classes = predictions.pool.shape
    by_row = predictions.pool.transpose(1, 0, 2).reshape(n_pool, n_fold_models * n_classes).astype(np.float32)
    pool_columns: dict[str, pa.Array[Any]] = {
        "id": pa.array(rows.ids[rows.pool].tolist(), pa.string()),
        "half": pa.array(rows.half[rows.pool], pa.int8()),
        "probabilities": list_column(by_row),
        "dropout_std": list_column(np.ascontiguousarray(predictions.pool_std.T, dtype=np.float32)),
    }
    pq.write_table(pa.table(pool_columns), output / POOL_PREDICTIONS, compression="zstd")


def write_validation_predictions(output: Path, predictions: Predictions) -> None:
    """Write the model's probabilities of the validation rows, followed by those of the out-of-scope rows."""
    from safetensors.numpy import save_file

    save_file({"probabilities": predictions.validation.astype(np.float32)}, output / VALIDATION_PREDICTIONS)


def write_losses(output: Path, tally: Tally) -> None:
    """Write losses.csv: model, step and loss of models trained by gradient descent; no file if there are none."""
    if not tally.losses:
        return
    with (output / LOSSES).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["model", "step", "loss"])
        for model, losses in sorted(tally.losses.items()):
            table.writerows([model, step, f"{loss:.5f}"] for step, loss in losses)


def write_seconds(workspace: Path, stage: str, tally: Tally) -> None:
    """Write `.seedling/seconds/<stage>.json`, outside the generation, since the seconds differ between runs."""
    seconds = {candidate.name: round(value, 2) for candidate, value in tally.seconds.items()}
    write_json(Workspace(workspace).training_seconds(stage), seconds)


def manifest(round_number: int, rows: TrainingRows) -> RoundManifestRecord:
    """The manifest: number of rows by kind, and a digest of the rows that the round was trained on."""
    row_counts = RoundRowsRecord(
        **{kind: int((rows.ingredient == kind).sum()) for kind in (*INGREDIENTS, "pool")},
        pseudo_labeled=int((rows.pseudo_label_by_fold[:, -1] >= 0).sum()),
        never_held_out=int((rows.fold[rows.labeled] < 0).sum()),
    )
    return RoundManifestRecord(stage=f"train@{round_number}", rows=row_counts, trained_on=rows.digest())


def classes_of(validated: Path) -> list[str]:
    """The classes, sorted."""
    return list(read_manifest(validated).classes)
