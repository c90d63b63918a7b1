"""The files of `models/<round>`: predictions, the candidates' probabilities, and training losses."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from seedling.dataset.generation import read_manifest
from seedling.dataset.training_rows import INGREDIENTS, TrainingRows
from seedling.files.reading import read_frame, reading
from seedling.files.writing import write_json
from seedling.records.round_manifest import RoundManifestRecord, RoundRowsRecord
from seedling.stats.statistics import Floats
from seedling.train.cross_validation import Predictions
from seedling.train.tally import Candidate, Tally
from seedling.workspace import (
    CANDIDATE_PROBABILITIES,
    LOSSES,
    OUT_OF_FOLD,
    POOL_PREDICTIONS,
    Workspace,
    fold_predictions_file,
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
        "probabilities": _list_column(by_row),
        "dropout_std": _list_column(np.ascontiguousarray(predictions.pool_std.T, dtype=np.float32)),
    }
    pq.write_table(pa.table(pool_columns), output / POOL_PREDICTIONS, compression="zstd")


def _list_column(values: NDArray[np.float32]) -> pa.Array[Any]:
    """A column of lists of equal length from (n_rows, length), without one Python object per row."""
    n_rows, length = values.shape
    offsets = np.arange(n_rows + 1, dtype=np.int32) * length
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values.ravel(), pa.float32()))


def write_candidates(output: Path, probabilities: Mapping[Candidate, NDArray[np.float32]]) -> None:
    """Write one row per candidate: its probabilities of the evaluation rows, for the comparison with the next round.

    probabilities: (n_seeds, n_evaluated, n_classes) per candidate.
    """
    columns = {
        "learner": pa.array([candidate.learner for candidate in probabilities], pa.string()),
        "recipe": pa.array([list(candidate.trained_on) for candidate in probabilities], pa.list_(pa.string())),
        "loss": pa.array([candidate.loss for candidate in probabilities], pa.string()),
        "seeds": pa.array([len(by_seed) for by_seed in probabilities.values()], pa.int32()),
        "probabilities": pa.array([by_seed.ravel() for by_seed in probabilities.values()], pa.list_(pa.float32())),
    }
    pq.write_table(pa.table(columns), output / CANDIDATE_PROBABILITIES, compression="zstd")


def read_candidates(folder: Path, classes: int) -> dict[Candidate, Floats]:
    """Read the file of `write_candidates`: (n_seeds, n_evaluated, n_classes) per candidate. classes: their number."""
    frame = read_frame(folder / CANDIDATE_PROBABILITIES)[["learner", "recipe", "loss", "seeds", "probabilities"]]
    return {
        Candidate(learner, tuple(recipe), loss): np.asarray(
            probabilities.astype(np.float64).reshape(seeds, -1, classes)
        )
        for learner, recipe, loss, seeds, probabilities in frame.itertuples(index=False, name=None)
    }


def write_carried(output: Path, candidate: Candidate, predictions: Predictions) -> None:
    """Write the predictions of a candidate that later rounds do not train again."""
    from safetensors.numpy import save_file

    arrays = {name: np.ascontiguousarray(array) for name, array in sorted(vars(predictions).items())}
    save_file(arrays, output / fold_predictions_file(candidate.name))


def read_carried(teacher: Path, candidate: Candidate) -> Predictions:
    """Read the predictions that `write_carried` wrote in the round before."""
    from safetensors.numpy import load_file

    path = teacher / fold_predictions_file(candidate.name)
    with reading(path):
        return Predictions(**load_file(path))


def copy_carried(teacher: Path, output: Path, candidate: Candidate) -> None:
    """Copy a candidate's models and predictions unchanged."""
    name = candidate.name
    for source in [*teacher.glob(f"{half_folder('*')}/{name}.*"), teacher / fold_predictions_file(name)]:
        target = output / source.relative_to(teacher)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


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
