"""pseudo_label: labels the pool by models that were not trained on the row, and keeps what the filter keeps.

    python -m tasks.pseudo_label --round 1

The teacher's opinion is spread over the neighbour graph of all training rows, lineage by lineage (see
tasks/train/cross_validation.py), and scaled by a temperature that is fitted on rows whose labels the lineage never saw.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from tasks.generation import GenerationWriter, Row, payloads, read, read_manifest
from tasks.learners.features import dense
from tasks.learners.graph import neighbour_graph, spread
from tasks.learners.model import single_threaded
from tasks.learners.saving import load_features
from tasks.params import Facts, PseudoLabelParams
from tasks.progress import Progress, silent
from tasks.pseudo_label.filters import class_wise_threshold
from tasks.statistics import SMALLEST, Estimate, Floats, Ints, fit_temperature, softmax, wilson

COLUMNS = [
    pa.field("lineage_labels", pa.list_(pa.int16())),
    pa.field("lineage_weights", pa.list_(pa.float32())),
    pa.field("half", pa.int8()),
]
TEACHER_WEIGHT = 0.1  # what the teacher's opinion of a row counts beside a label
GRAPH_ROWS = 20_000  # beyond, the neighbours' graph costs more than it brings and the teacher speaks alone


@dataclass(frozen=True)
class Taught:
    """What the teacher says. Lineage k is fold k's, the last one the final model's.

    labelled: (n_labelled, n_classes) out of fold; pool: (n_lineages, n_pool, n_classes); fold, truth, weights, human:
    (n_labelled,).
    """

    labelled_ids: list[str]
    pool_ids: list[str]
    half: Ints
    labelled: Floats
    pool: Floats
    fold: Ints
    folds: list[int]
    truth: Ints
    weights: Floats
    human: NDArray[np.bool_]


def pseudo_label(
    params: PseudoLabelParams,
    facts: Facts,
    *,
    round_number: int,
    rounds: int,
    collected: Path,
    validated: Path,
    teacher: Path,
    output: Path,
    progress: Progress = silent,
) -> None:
    """Writes `generations/pseudo_label/<round>`: the pool's rows with a label, or rejected as `below_threshold`.

    Columns lineage_labels and lineage_weights: what each fold's lineage says and how much that counts, by its own
    opinion alone; -1 and 0 where its filter refused. label, confidence and weight are the final lineage's: 0 for a row
    that only some fold keeps, which serves the comparison of the rounds.
    """
    stage, classes = f"pseudo_label@{round_number}", read_manifest(validated)["classes"]
    stopped = json.loads((teacher / "verdict.json").read_text(encoding="utf-8"))["stop"] or round_number > rounds
    with GenerationWriter(output, stage=stage, modality=facts.modality, pictures=False, extra=COLUMNS) as writer:
        if stopped:
            writer.close(rows_in=0, classes=classes, skipped=True)
            return
        taught = read_taught(teacher, validated, classes)
        progress("label the pool", 0, len(taught.pool_ids))
        with single_threaded():
            probabilities, audit = refine(taught, _features(taught, teacher, collected, facts, params), params)
        rows = read(validated).set_index("id").loc[taught.pool_ids].reset_index()
        for row, reason in _rows(rows, taught, probabilities, classes, params, round_number):
            if reason:
                writer.reject(row, reason)
            else:
                writer.keep(row)
        progress("label the pool", len(rows), len(rows))
        writer.close(rows_in=len(rows), classes=classes, audit=audit)


def read_taught(teacher: Path, validated: Path, classes: list[str]) -> Taught:
    """The teacher's predictions, in arrays."""
    labelled = pd.read_parquet(teacher / "out_of_fold.parquet")
    labelled = labelled[labelled["split"] == "train"]
    weight = read(validated, ["id", "weight"]).drop_duplicates("id").set_index("id")["weight"]
    pool = pd.read_parquet(teacher / "pool_predictions.parquet")
    folds = sorted({int(one) for one in labelled["fold"]})
    shape = (len(pool), len(folds) + 1, len(classes))
    number = {label: place for place, label in enumerate(classes)}
    return Taught(
        labelled_ids=labelled["id"].tolist(),
        pool_ids=pool["id"].tolist(),
        half=pool["half"].to_numpy(dtype=np.int64),
        labelled=np.stack(labelled["probabilities"].to_numpy()).astype(np.float64),
        pool=np.stack(pool["probabilities"].to_numpy()).astype(np.float64).reshape(shape).transpose(1, 0, 2),
        fold=labelled["fold"].to_numpy(dtype=np.int64),
        folds=folds,
        truth=np.array([number[label] for label in labelled["label"]], dtype=np.int64),
        weights=weight.loc[labelled["id"]].to_numpy(dtype=np.float64),
        human=(labelled["label_source"] == "human").to_numpy(),
    )


def _features(taught: Taught, teacher: Path, collected: Path, facts: Facts, params: PseudoLabelParams) -> Any:
    """(n_labelled + n_pool, d), or None where there is no graph to build."""
    wanted = [*taught.labelled_ids, *taught.pool_ids]
    if params.propagation == 0 or len(wanted) > GRAPH_ROWS:
        return None
    return dense(
        load_features(teacher, facts.modality).of_rows(wanted, partial(payloads, [collected]), fit=False).features
    )


def refine(taught: Taught, features: Any, params: PseudoLabelParams) -> tuple[Floats, dict[str, Any]]:
    """(n_lineages, n_pool, n_classes) calibrated probabilities, and the audit on labels that the lineages never saw."""
    graph = None if features is None else neighbour_graph(features, params.neighbours)
    many = len(taught.truth)
    logits, held_out = [], np.zeros_like(taught.labelled)
    for place, lineage in enumerate([*taught.folds, None]):
        hidden = np.zeros(many, dtype=bool) if lineage is None else taught.fold == lineage
        opinion = np.concatenate([taught.labelled, taught.pool[place]])
        if graph is not None:
            opinion = _spread(graph, opinion, hidden, taught, params)
        logits.append(np.log(np.maximum(opinion[many:], SMALLEST)))
        held_out[hidden] = np.log(np.maximum(opinion[:many][hidden], SMALLEST))
    trusted = taught.human if taught.human.any() else np.ones(many, dtype=bool)
    temperature = fit_temperature(held_out[trusted], taught.truth[trusted])
    probabilities = np.stack([softmax(one / temperature) for one in logits])
    seen = softmax(held_out[trusted] / temperature)
    return probabilities, audit(seen, taught.truth[trusted], params.threshold, temperature)


def _spread(
    graph: Any, opinion: Floats, hidden: NDArray[np.bool_], taught: Taught, params: PseudoLabelParams
) -> Floats:
    many = len(taught.truth)
    seeds = TEACHER_WEIGHT * opinion
    shown = np.flatnonzero(~hidden)
    seeds[shown] = 0.0
    seeds[shown, taught.truth[shown]] = taught.weights[shown]
    return spread(graph, seeds, strength=params.propagation, shares=opinion[many:].mean(axis=0))


def audit(seen: Floats, truth: Ints, threshold: float, temperature: float) -> dict[str, Any]:
    """How right the kept pseudo-labels may be expected to be: the filter on labelled rows held out as if in the pool."""
    kept = class_wise_threshold(seen, threshold)
    hits, rows = int((seen.argmax(axis=1) == truth)[kept].sum()), int(kept.sum())
    precision: Estimate | None = wilson(hits, rows) if rows else None
    return {
        "temperature": temperature,
        "rows": len(truth),
        "kept": rows,
        "precision": precision.rounded() if precision else None,
    }


def _rows(
    rows: pd.DataFrame,
    taught: Taught,
    probabilities: Floats,
    classes: list[str],
    params: PseudoLabelParams,
    round_number: int,
) -> Any:
    kept = np.stack([class_wise_threshold(one, params.threshold) for one in probabilities])
    weights = np.where(kept, params.weight * probabilities.max(axis=2), 0.0)  # less sure, less said
    said = np.where(kept, probabilities.argmax(axis=2), -1)
    final = probabilities[-1]
    for place, known in enumerate(rows.itertuples(index=False)):
        row = Row(
            id=known.id,
            split="pool",
            label=classes[int(final[place].argmax())],
            label_probs=final[place].tolist(),
            label_source=f"pseudo:{round_number}",
            weight=float(weights[-1, place]),
            confidence=float(final[place].max()),
            origin=known.origin,
            licence=known.licence,
            attribution=known.attribution,
            group=known.group,
            payload=getattr(known, "text", None),
            extra={
                "lineage_labels": said[:, place].tolist(),
                "lineage_weights": weights[:, place].tolist(),
                "half": int(taught.half[place]),
            },
        )
        yield row, None if kept[:, place].any() else "below_threshold"
