"""pseudo_label: labels the pool by models that were not trained on the row, and keeps what the filter keeps.

    python -m seedling.runner pseudo_label@1

The teacher's opinion is spread over the neighbor graph of all training rows, lineage by lineage (see
seedling/train/cross_validation.py), and scaled by a temperature that is fitted on rows whose labels the lineage never saw.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from seedling.config.params import PseudoLabelParams, WorkspaceConfig
from seedling.dataset.generation import GenerationWriter, Row, payloads, read, read_manifest, stream
from seedling.features.classical import FeatureMaker, dense
from seedling.models.model import single_threaded
from seedling.models.saving import load_features
from seedling.progress import Progress, silent
from seedling.pseudo_label.filters import FILTERS, Seen, Tried, compare_filters, unreliable_classes
from seedling.pseudo_label.queue import write_queue
from seedling.pseudo_label.teacher import Refined, Taught, read_taught, refine
from seedling.records.results import read_decision
from seedling.stats.randomness import generator
from seedling.stats.statistics import Floats, wilson

COLUMNS = [
    pa.field("pseudo_label_by_fold", pa.list_(pa.int16())),
    pa.field("pseudo_weight_by_fold", pa.list_(pa.float32())),
    pa.field("half", pa.int8()),
    pa.field("margin", pa.float32()),
    pa.field("fold_agreement", pa.float32()),
    pa.field("neighbor_agreement", pa.bool_()),
    pa.field("dropout_std", pa.float32()),
]
QUEUE = "queue.csv"
NOT_DRAWN = "beyond_pool_rows"
MAX_DIFFICULTY_WEIGHT = 3.0  # times what an average class's row counts
GRAPH_ROWS = 20_000  # beyond, the neighbors' graph costs more than it brings and the teacher speaks alone


def pseudo_label(
    params: PseudoLabelParams,
    facts: WorkspaceConfig,
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
    """Writes `generations/pseudo_label/<round>`: the pool's rows with a label, or rejected as `refused_by_filter`.

    Columns pseudo_label_by_fold and pseudo_weight_by_fold: what each fold's lineage says and how much that counts, by its own
    opinion alone; -1 and 0 where its filter refused. label, confidence and weight are the final lineage's: 0 for a row
    that only some fold keeps, which serves the comparison of the rounds. margin: between the two likeliest classes;
    fold_agreement: share of lineages that say the same; neighbor_agreement: whether the teacher alone says so too;
    dropout_std: how far Monte Carlo dropout moves the likeliest class's probability. Rows of the pool beyond
    `train.pool_rows` are rejected as `beyond_pool_rows`: no model was asked about them. queue.csv: the rows that a person's label would teach most.
    """
    stage, classes = f"pseudo_label@{round_number}", read_manifest(validated)["classes"]
    stopped = read_decision(teacher / "decision.json")["stop"] or round_number > rounds
    with GenerationWriter(output, stage=stage, modality=facts.modality, images=False, extra=COLUMNS) as writer:
        if stopped:
            writer.close(rows_in=0, classes=classes, skipped=True)
            return
        taught = read_taught(teacher, validated, classes)
        progress("label the pool", 0, len(taught.pool_ids))
        with single_threaded():
            refined = refine(
                taught,
                _features(taught, load_features(teacher, facts.modality, workspace), collected, params),
                params,
                facts.seed,
            )
        share = 0.5 + 0.5 * round_number / max(1, rounds)
        kept, name, table = choose_filter(refined, params, share, facts.seed)
        rows = read(validated, splits=["pool"], ids=taught.pool_ids).set_index("id").loc[taught.pool_ids].reset_index()
        write_queue(output / QUEUE, rows, refined, classes, params.queue)
        for row, reason in _rows(rows, taught, refined, kept, classes, params, round_number):
            if reason:
                writer.reject(row, reason)
            else:
                writer.keep(row)
        beyond = 0
        for row in _not_drawn(validated, set(taught.pool_ids)):
            writer.reject(row, NOT_DRAWN)
            beyond += 1
        progress("label the pool", len(rows), len(rows))
        writer.close(rows_in=len(rows) + beyond, classes=classes, audit=audit(refined, name, table, classes))


def _features(taught: Taught, maker: FeatureMaker, collected: Path, params: PseudoLabelParams) -> Any:
    """(n_labeled + n_pool, d), or None where there is no graph to build."""
    wanted = [*taught.labeled_ids, *taught.pool_ids]
    if params.propagation == 0 or len(wanted) > GRAPH_ROWS:
        return None
    return dense(maker.of_rows(wanted, partial(payloads, [collected]), fit=False).features)


def choose_filter(
    refined: Refined, params: PseudoLabelParams, share: float, seed: int
) -> tuple[NDArray[np.bool_], str, list[Tried]]:
    """(n_lineages, n_pool) what is kept, the filter's name, and the table of all filters on the held-out rows."""
    said = refined.held_out.argmax(axis=1)
    doubted = unreliable_classes(said, refined.truth, refined.held_out.shape[1])
    seen = Seen(refined.held_out, refined.held_agrees, share, doubted, refined.held_out_std)
    best, table = compare_filters(seen, refined.truth, params.threshold, generator(seed, "bake-off"))
    name = params.filter or best
    pools = [
        Seen(one, agrees, share, doubted, dropout_std)
        for one, agrees, dropout_std in zip(refined.probabilities, refined.agrees, refined.dropout_std, strict=True)
    ]
    return np.stack([FILTERS[name](one, params.threshold) for one in pools]), name, table


def audit(refined: Refined, name: str, table: list[Tried], classes: list[str]) -> dict[str, Any]:
    """How right the kept pseudo-labels may be expected to be, in all and by class: the filter on labeled rows held out
    as if in the pool; beside it what the other filters would have kept.
    """
    said = refined.held_out.argmax(axis=1)
    chosen = next(one for one in table if one.filter == name)
    by_class = {}
    for place, label in enumerate(classes):
        mine = said == place
        found = wilson(int((refined.truth[mine] == place).sum()), int(mine.sum())).rounded() if mine.any() else None
        by_class[label] = {"rows": int(mine.sum()), "precision": found}
    return {
        "temperature": refined.temperature,
        "teacher_weight": refined.teacher_weight,
        "rows": len(refined.truth),
        "filter": name,
        "kept": chosen.kept,
        "precision": None if chosen.precision is None else chosen.precision.rounded(),
        "classes": by_class,
        "bake_off": [one.as_json() for one in table],
    }


def difficulty_weights(probabilities: Floats, strength: float) -> Floats:
    """(n_rows,), 1 in the mean: what a row counts more where its class is a hard one.

    A class is hard where its rows' mean confidence is low, which the plain weight, the confidence, punishes once more
    (the learning status of FreeMatch, Wang et al. 2023, turned into sampling weights as in CReST, Wei et al. 2021):
    (mean confidence / class's mean confidence)^(2 × strength), at most `MOST_HEED`. 0: every row counts 1; 0.5: the classes' rows
    count alike on average; 1: a hard class's count more than an easy one's.
    """
    if strength == 0 or len(probabilities) == 0:
        return np.ones(len(probabilities))
    said, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    classes = probabilities.shape[1]
    rows = np.bincount(said, minlength=classes)
    mean = np.bincount(said, weights=confidence, minlength=classes) / np.maximum(rows, 1)
    factor = np.ones(classes)
    factor[rows > 0] = np.minimum((confidence.mean() / mean[rows > 0]) ** (2 * strength), MAX_DIFFICULTY_WEIGHT)
    found: Floats = factor[said] / factor[said].mean()
    return found


def _rows(
    rows: pd.DataFrame,
    taught: Taught,
    refined: Refined,
    kept: NDArray[np.bool_],
    classes: list[str],
    params: PseudoLabelParams,
    round_number: int,
) -> Any:
    probabilities = refined.probabilities
    heeded = np.stack([one.max(axis=1) * difficulty_weights(one, params.hard_classes) for one in probabilities])
    weights = np.where(kept, params.weight * heeded, 0.0)  # less sure, less said
    said = np.where(kept, probabilities.argmax(axis=2), -1)
    final = probabilities[-1]
    ordered = np.sort(final, axis=1)
    margin = ordered[:, -1] - ordered[:, -2]
    agreement = (probabilities.argmax(axis=2) == final.argmax(axis=1)).mean(axis=0)
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
            license=known.license,
            attribution=known.attribution,
            group=known.group,
            payload=getattr(known, "text", None),
            extra={
                "pseudo_label_by_fold": said[:, place].tolist(),
                "pseudo_weight_by_fold": weights[:, place].tolist(),
                "half": int(taught.half[place]),
                "margin": float(margin[place]),
                "fold_agreement": float(agreement[place]),
                "neighbor_agreement": bool(refined.agrees[-1, place]),
                "dropout_std": float(refined.dropout_std[-1, place]),
            },
        )
        yield row, None if kept[:, place].any() else "refused_by_filter"


def _not_drawn(validated: Path, drawn: set[str]) -> Iterator[Row]:
    """Pool rows that no model was asked about, without a label; a few in memory at a time."""
    for known in stream(validated):
        if known.split == "pool" and known.id not in drawn:
            unknown = {field.name: None for field in COLUMNS}
            yield replace(known, fold=None, label=None, label_probs=None, label_source=None, extra=unknown)
