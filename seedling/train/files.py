"""The files of `models/<round>`: predictions, the files of members, and training losses."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from seedling.dataset.fold_probabilities import list_column
from seedling.dataset.generation import read_manifest
from seedling.dataset.training_rows import INGREDIENTS, TrainingRows
from seedling.files.reading import read_frame, reading
from seedling.files.writing import write_json
from seedling.records.model import MemberRecord, ModelRecord
from seedling.records.round_manifest import RoundManifestRecord, RoundRowsRecord
from seedling.stats.statistics import SMALLEST, Floats
from seedling.train.cross_validation import Predictions
from seedling.train.tally import Tally
from seedling.workspace import (
    LOSSES,
    MODEL,
    OUT_OF_FOLD,
    POOL_PREDICTIONS,
    VALIDATION_PREDICTIONS,
    Workspace,
    half_folder,
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


def read_model_predictions(teacher: Path) -> tuple[Predictions, float]:
    """Read the predictions of the previous round's model as logits, and the temperature that calibrates them.

    The logits are the logarithm of the mean of its members' probabilities: the model's probabilities are the softmax
    of logits / temperature.
    """
    from safetensors.numpy import load_file

    temperature = ModelRecord.read(teacher / MODEL).temperature
    out_of_fold, pool = read_frame(teacher / OUT_OF_FOLD), read_frame(teacher / POOL_PREDICTIONS)
    with reading(teacher / VALIDATION_PREDICTIONS):
        validation = load_file(teacher / VALIDATION_PREDICTIONS)["probabilities"]
    labeled = out_of_fold[out_of_fold["split"] == "train"]

    def logits(probabilities: NDArray[Any]) -> Floats:
        as_floats = np.maximum(np.asarray(probabilities, dtype=np.float64), SMALLEST)
        return np.asarray(temperature * np.log(as_floats))

    n_classes = len(labeled["probabilities"].iloc[0])
    std_by_fold = np.stack(pool["dropout_std"].tolist()).T if len(pool) else np.zeros((1, 0))
    by_fold = np.stack(pool["probabilities"].tolist()) if len(pool) else np.zeros((0, n_classes))
    predictions = Predictions(
        labeled=logits(np.stack(labeled["probabilities"].tolist())),
        validation=logits(validation),
        pool=logits(by_fold.reshape(len(pool), -1, n_classes).transpose(1, 0, 2)),
        labeled_std=labeled["dropout_std"].to_numpy(dtype=np.float64),
        pool_std=np.asarray(std_by_fold, dtype=np.float64),
    )
    return predictions, temperature


def members_with_votes(teacher: Path) -> tuple[MemberRecord, ...]:
    """The members of the previous round's model; those of round 0 have one vote together."""
    record = ModelRecord.read(teacher / MODEL)
    total = sum(member.votes for member in record.members) if record.round == 0 else 1.0
    return tuple(member.model_copy(update={"votes": member.votes / total}) for member in record.members)


def copy_members(teacher: Path, output: Path, members: Sequence[MemberRecord]) -> None:
    """Copy the files of the previous model's members."""
    for member in members:
        for source in teacher.glob(f"{half_folder('*')}/{member.file}.*"):
            target = output / source.relative_to(teacher)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def read_label_weights(teacher: Path) -> Floats:
    """(n_fold_models, n_labeled): the label weights of the round before; see `TrainingData.label_weights`."""
    frame = read_frame(teacher / OUT_OF_FOLD)
    by_row = np.stack(frame.loc[frame["split"] == "train", "label_weight_by_fold"].tolist())
    return np.ascontiguousarray(by_row.T, dtype=np.float64)


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
