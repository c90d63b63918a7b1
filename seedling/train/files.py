"""The files of `models/<round>`: predictions, what each candidate said, what the loops lost on the way."""

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

from seedling.dataset.generation import digest, read_manifest, write_json
from seedling.dataset.training_rows import INGREDIENTS, TrainingRows
from seedling.files.reading import read_frame, reading
from seedling.stats.statistics import Floats
from seedling.train.cross_validation import Predictions
from seedling.train.tally import Candidate, Tally

OUT_OF_FOLD, POOL, CANDIDATES = "out_of_fold.parquet", "pool_predictions.parquet", "candidates.parquet"
LOSSES = "losses.csv"


def write_predictions(
    output: Path, rows: TrainingRows, frame: pd.DataFrame, predictions: Predictions, trust: Floats
) -> None:
    """Out-of-fold predictions of labeled and validation rows, and every lineage's predictions of the pool.

    frame: of the labeled rows and behind them the validation rows; trust: (n_lineages, n_labeled), see TrainingData.trust.
    Labeled rows of no fold, which every model saw, are written with their labels' own probabilities.
    """
    known = frame[["id", "split", "fold", "label", "label_source", "group"]]
    labeled = predictions.labeled.copy()
    never_held_out = rows.fold[rows.labeled] < 0
    labeled[never_held_out] = rows.targets[rows.labeled][never_held_out]
    validation = predictions.validation[: len(frame) - len(labeled)]  # behind them stand out-of-scope rows
    probabilities = np.concatenate([labeled, validation]).astype(np.float32)
    trusts = np.concatenate([trust.T, np.ones((len(validation), len(trust)))]).astype(np.float32)
    table = pa.Table.from_pandas(known, preserve_index=False)
    table = table.append_column("probabilities", pa.array(list(probabilities), pa.list_(pa.float32())))
    dropout_std = np.concatenate([predictions.labeled_std, np.zeros(len(validation))])
    table = table.append_column("dropout_std", pa.array(dropout_std.astype(np.float32)))
    table = table.append_column("label_weight_by_fold", pa.array(list(trusts), pa.list_(pa.float32())))
    pq.write_table(table.replace_schema_metadata(), output / OUT_OF_FOLD, compression="zstd")
    lineages, pool, classes = predictions.pool.shape
    flat = predictions.pool.transpose(1, 0, 2).reshape(pool, lineages * classes).astype(np.float32)
    on_pool = {
        "id": pa.array(rows.ids[rows.pool].tolist(), pa.string()),
        "half": pa.array(rows.half[rows.pool], pa.int8()),
        "probabilities": _lists(flat),
        "dropout_std": _lists(np.ascontiguousarray(predictions.pool_std.T, dtype=np.float32)),
    }
    pq.write_table(pa.table(on_pool), output / POOL, compression="zstd")


def _lists(flat: NDArray[np.float32]) -> pa.Array:
    """A column of equally long lists, without a Python object a row."""
    many, wide = flat.shape
    return pa.ListArray.from_arrays(np.arange(many + 1, dtype=np.int32) * wide, pa.array(flat.ravel(), pa.float32()))


def write_candidates(output: Path, said: Mapping[Candidate, NDArray[np.float32]]) -> None:
    """One row a candidate: what it said of the judged rows, so that the next round is compared like with like.

    said: (n_seeds, n_judged, n_classes) a candidate.
    """
    table = {
        "learner": pa.array([one.learner for one in said], pa.string()),
        "recipe": pa.array([list(one.recipe) for one in said], pa.list_(pa.string())),
        "loss": pa.array([one.loss for one in said], pa.string()),
        "seeds": pa.array([len(each) for each in said.values()], pa.int32()),
        "probabilities": pa.array([each.ravel() for each in said.values()], pa.list_(pa.float32())),
    }
    pq.write_table(pa.table(table), output / CANDIDATES, compression="zstd")


def read_candidates(folder: Path, classes: int) -> dict[Candidate, Floats]:
    """What `write_candidates` wrote: (n_seeds, n_judged, n_classes) a candidate."""
    frame = read_frame(folder / CANDIDATES)
    return {
        Candidate(one.learner, tuple(one.recipe), one.loss): np.asarray(
            one.probabilities.astype(np.float64).reshape(one.seeds, -1, classes)
        )
        for one in frame.itertuples()
    }


def write_carried(output: Path, candidate: Candidate, predictions: Predictions) -> None:
    """What later rounds need of a learner that they do not train again: its predictions."""
    from safetensors.numpy import save_file

    arrays = {name: np.ascontiguousarray(one) for name, one in sorted(vars(predictions).items())}
    save_file(arrays, output / f"{candidate.name}.predictions.safetensors")


def read_carried(teacher: Path, candidate: Candidate) -> Predictions:
    """What `write_carried` wrote in the round before."""
    from safetensors.numpy import load_file

    path = teacher / f"{candidate.name}.predictions.safetensors"
    with reading(path):
        return Predictions(**load_file(path))


def copy_carried(teacher: Path, output: Path, candidate: Candidate) -> None:
    """The learner's files as they are: the models and the predictions."""
    name = candidate.name
    for made in [*teacher.glob(f"half-*/{name}.*"), teacher / f"{name}.predictions.safetensors"]:
        into = output / made.relative_to(teacher)
        into.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made, into)


def write_losses(output: Path, said: Tally) -> None:
    """losses.csv: model, step and loss of what learns by gradients; nothing where nothing did."""
    if not said.losses:
        return
    with (output / LOSSES).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["model", "step", "loss"])
        for model, losses in sorted(said.losses.items()):
            table.writerows([model, step, f"{loss:.5f}"] for step, loss in losses)


def write_seconds(workspace: Path, stage: str, said: Tally) -> None:
    """Beside the generation, as no two runs take equally long: `.seedling/seconds/<stage>.json`."""
    seconds = {one.name: round(value, 2) for one, value in said.seconds.items()}
    write_json(workspace / ".seedling" / "seconds" / f"{stage}.json", seconds)


def manifest(round_number: int, rows: TrainingRows, folders: Mapping[str, Path | None]) -> dict[str, Any]:
    """What was trained on what."""
    used = {kind: int((rows.ingredient == kind).sum()) for kind in (*INGREDIENTS, "pool")}
    used["pseudo_labeled"] = int((rows.pseudo_label_by_fold[:, -1] >= 0).sum())
    used["never_held_out"] = int((rows.fold[rows.labeled] < 0).sum())
    digests = {folder.name: digest(folder) for folder in folders.values() if folder is not None}
    return {"stage": f"train@{round_number}", "rows": used, "trained_on": digests}


def classes_of(validated: Path) -> list[str]:
    """The classes, sorted."""
    classes: list[str] = read_manifest(validated)["classes"]
    return classes
