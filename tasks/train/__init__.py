"""train: learners compared by cross-validation, out-of-fold predictions, and a verdict against the round before.

python -m tasks.train --round 0
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.errors import InputError
from tasks.generation import MANIFEST, digest, payloads, read, read_manifest, write_json
from tasks.learners.features import FeatureMaker, PictureFeatures, TextFeatures
from tasks.learners.model import single_threaded
from tasks.learners.saving import save_features, save_learner
from tasks.params import Facts, TrainParams
from tasks.progress import Progress, silent
from tasks.statistics import Floats
from tasks.train.choice import Judged, calibrated, candidate_table, choose
from tasks.train.cross_validation import Candidate, Predictions, Workbench, cross_validate, fit_final, pool_logits
from tasks.train.rows import INGREDIENTS, TrainingRows, training_rows
from tasks.train.verdict import Verdict, judge

HEADS = ("logistic_regression", "svm", "random_forest")
DENSE_HEADS = ("logistic_regression", "svm")  # trees say little of hundreds of directions that all mean a bit
STEPS = {"quick": 150, "normal": 300, "thorough": 3000}  # of the network
SVM_ROWS = 10_000  # its time grows with the square of the rows
OUT_OF_FOLD, POOL, CANDIDATES = "out_of_fold.parquet", "pool_predictions.parquet", "candidates.parquet"


@dataclass(frozen=True)
class Sources:
    """The folders that train reads; the last two are None in round 0."""

    collected: Path
    validated: Path
    augmented: Path
    synthesized: Path
    pseudo_labels: Path | None = None
    teacher: Path | None = None


def train(
    params: TrainParams,
    facts: Facts,
    *,
    round_number: int,
    rounds: int,
    sources: Sources,
    workspace: Path,
    output: Path,
    progress: Progress = silent,
) -> None:
    """Writes `models/<round>`: the chosen model, the table of candidates, out-of-fold and pool predictions, the verdict.

    Where the loop has stopped before, or no pseudo-label was kept, only a verdict that says so is written.
    """
    previous = _previous_verdict(sources)
    if previous and (skipped := _skip(previous, round_number, rounds, sources)):
        write_json(output / "verdict.json", skipped.as_json())
        write_json(output / MANIFEST, {"stage": f"train@{round_number}", "skipped": skipped.reason})
        return
    progress("compute features", 0, None)
    classes = read_manifest(sources.validated)["classes"]
    bench, frame, maker = _workbench(params, facts, classes, round_number, sources, workspace, progress)
    judged = _judged(frame, classes)
    candidates = _candidates(params, facts, bench.rows, sources.teacher)
    bench.said.expect(len(candidates) * len(bench.rows.folds) * bench.halves, progress)
    with single_threaded():
        trained = {one: cross_validate(bench, one) for one in candidates}
        choice = choose(trained, judged)
        for member in choice.members:
            models = fit_final(bench, member)
            trained[member].pool[-1] = pool_logits(bench, models)
            for half, model in enumerate(models):
                save_learner(model, output / f"half-{half}" / model.name)
    save_features(maker, output)
    predictions = choice.combine(trained)
    _write_predictions(output, bench.rows, frame, predictions)
    write_json(output / "candidates.json", candidate_table(trained, choice, judged, params.bootstrap_draws, facts.seed))
    said = {one: calibrated(trained[one], judged).astype(np.float32) for one in candidates}
    _write_candidates(output, said)
    verdict = _verdict(round_number, rounds, sources, said, predictions, judged, previous, bench.rows, params, facts)
    write_json(output / "verdict.json", verdict.as_json())
    write_json(output / "model.json", choice.as_json(classes, facts, round_number, bench.halves))
    write_json(output / MANIFEST, _manifest(round_number, bench.rows, sources))


def _previous_verdict(sources: Sources) -> dict[str, Any] | None:
    if sources.teacher is None:
        return None
    found: dict[str, Any] = json.loads((sources.teacher / "verdict.json").read_text(encoding="utf-8"))
    return found


def _skip(previous: Mapping[str, Any], round_number: int, rounds: int, sources: Sources) -> Verdict | None:
    kept = 0 if sources.pseudo_labels is None else read_manifest(sources.pseudo_labels)["rows"]["kept"]
    if previous["stop"]:
        reason = (
            previous["reason"]
            if previous["decision"] == "skipped"
            else f"the loop stopped after round {previous['round']}"
        )
    elif round_number > rounds:
        reason = f"params and effort ask for {rounds} rounds"
    elif kept == 0:
        reason = "no pseudo-label was kept"
    else:
        return None
    return Verdict(round_number, "skipped", True, reason, previous["accepted_round"], previous["rows"])


def _workbench(
    params: TrainParams,
    facts: Facts,
    classes: list[str],
    round_number: int,
    sources: Sources,
    workspace: Path,
    progress: Progress,
) -> tuple[Workbench, pd.DataFrame, FeatureMaker]:
    """The rows and their features; the labelled and validation rows as a frame; the fitted features."""
    rows = training_rows(
        classes,
        validated=sources.validated,
        augmented=sources.augmented,
        synthesized=sources.synthesized,
        pseudo_labels=sources.pseudo_labels,
        seed=facts.seed,
    )
    maker = _feature_maker(params, facts, workspace)
    folders = [sources.collected, sources.augmented, sources.synthesized]
    inputs = maker.of_rows(rows.ids.tolist(), partial(payloads, folders), fit=True, progress=progress)
    known = read(sources.validated).set_index("id")
    held_out = known[known["split"] == "validation"].index.tolist()
    validation = maker.of_rows(held_out, partial(payloads, [sources.collected]), fit=False)
    frame = known.loc[[*rows.ids[rows.labelled], *held_out]].reset_index()
    bench = Workbench(
        rows=rows,
        inputs=inputs,
        validation=validation,
        classes=len(classes),
        seed=facts.seed,
        steps=params.steps or STEPS[facts.effort],
        halves=1 if round_number == 0 else 2,
    )
    return bench, frame, maker


def _feature_maker(params: TrainParams, facts: Facts, workspace: Path) -> FeatureMaker:
    if params.encoder is not None:
        from tasks.learners.encoded_features import EncodedFeatures

        return EncodedFeatures(params.encoder, facts.modality, workspace, facts.max_megapixels)
    return PictureFeatures(params.image_side, facts.max_megapixels) if facts.modality == "image" else TextFeatures()


def _judged(frame: pd.DataFrame, classes: list[str]) -> Judged:
    by_hand = (frame["label_source"] == "human").to_numpy()
    chosen = by_hand if by_hand.any() else np.ones(len(frame), dtype=bool)
    labelled = (frame["split"] == "train").to_numpy()
    used = frame[chosen | ~labelled]
    number = {label: place for place, label in enumerate(classes)}
    return Judged(
        truth=np.array([number[label] for label in used["label"]], dtype=np.int64),
        place=np.flatnonzero(chosen[labelled]),
        groups=used["group"].to_numpy(dtype=str),
    )


def _candidates(params: TrainParams, facts: Facts, rows: TrainingRows, teacher: Path | None) -> list[Candidate]:
    """Round 0: each head on collected rows alone, with children, and with all; the network on all.

    Later: each learner on the recipe that was best in round 0, the network only where it was chosen.
    """
    if teacher is not None:
        return _candidates_of(teacher)
    from_scratch = facts.modality == "image" and params.encoder is None and facts.effort != "quick"
    heads = HEADS if params.encoder is None or facts.effort == "thorough" else DENSE_HEADS
    default = [*heads, *(["network"] if from_scratch else [])]
    learners = params.candidates or default
    if params.encoder is not None and "network" in learners:
        raise InputError(
            "params.yaml: train.candidates: 'network' learns from small pictures alone: "
            "leave it out, or set train.encoder to null."
        )
    if len(rows.labelled) > SVM_ROWS and params.candidates is None:
        learners = [one for one in learners if one != "svm"]
    recipes = [INGREDIENTS[: many + 1] for many in range(len(INGREDIENTS))]
    present = {kind for kind in INGREDIENTS if (rows.ingredient == kind).any()}
    recipes = [recipe for recipe in recipes if recipe[-1] in present]
    return [
        Candidate(learner, recipe)
        for learner in learners
        for recipe in (recipes if learner != "network" else recipes[-1:])
    ]


def _candidates_of(teacher: Path) -> list[Candidate]:
    table = json.loads((teacher / "candidates.json").read_text(encoding="utf-8"))
    best: dict[str, dict[str, Any]] = {}
    for entry in table:
        rival = best.get(entry["learner"])
        if entry["learner"] != "ensemble" and (rival is None or entry["log_loss"] < rival["log_loss"]):
            best[entry["learner"]] = entry
    kept = [entry for entry in best.values() if entry["learner"] != "network" or entry["chosen"]]
    return [Candidate(entry["learner"], tuple(entry["recipe"])) for entry in kept]


def _write_predictions(output: Path, rows: TrainingRows, frame: pd.DataFrame, predictions: Predictions) -> None:
    known = frame[["id", "split", "fold", "label", "label_source", "group"]]
    probabilities = np.concatenate([predictions.labelled, predictions.validation]).astype(np.float32)
    table = pa.Table.from_pandas(known, preserve_index=False).append_column(
        "probabilities", pa.array(list(probabilities))
    )
    pq.write_table(table.replace_schema_metadata(), output / OUT_OF_FOLD, compression="zstd")
    lineages, pool, classes = predictions.pool.shape
    flat = predictions.pool.transpose(1, 0, 2).reshape(pool, lineages * classes).astype(np.float32)
    on_pool = {
        "id": pa.array(rows.ids[rows.pool].tolist(), pa.string()),
        "half": pa.array(rows.half[rows.pool], pa.int8()),
        "probabilities": pa.array(list(flat), pa.list_(pa.float32())),
    }
    pq.write_table(pa.table(on_pool), output / POOL, compression="zstd")


def _write_candidates(output: Path, said: Mapping[Candidate, NDArray[np.float32]]) -> None:
    """One row a candidate: what it said of the judged rows, so that the next round is compared like with like."""
    table = {
        "learner": pa.array([one.learner for one in said], pa.string()),
        "recipe": pa.array([list(one.recipe) for one in said], pa.list_(pa.string())),
        "probabilities": pa.array([each.ravel() for each in said.values()], pa.list_(pa.float32())),
    }
    pq.write_table(pa.table(table), output / CANDIDATES, compression="zstd")


def _read_candidates(folder: Path, classes: int) -> dict[Candidate, Floats]:
    frame = pd.read_parquet(folder / CANDIDATES)
    return {
        Candidate(one.learner, tuple(one.recipe)): one.probabilities.astype(np.float64).reshape(-1, classes)
        for one in frame.itertuples()
    }


def _verdict(
    round_number: int,
    rounds: int,
    sources: Sources,
    said: Mapping[Candidate, NDArray[np.float32]],
    predictions: Predictions,
    judged: Judged,
    previous: Mapping[str, Any] | None,
    rows: TrainingRows,
    params: TrainParams,
    facts: Facts,
) -> Verdict:
    if sources.teacher is None or previous is None:
        pool = "" if len(rows.pool) else "; the pool is empty, so there is nothing to pseudo-label"
        stop = rounds == 0 or len(rows.pool) == 0
        return Verdict(0, "accepted", stop, f"the start: supervised, cross-validated{pool}", 0, len(judged.truth))
    classes = predictions.pool.shape[2]
    before = _read_candidates(sources.teacher, classes)
    both = [one for one in said if one in before]
    taught = np.stack(pd.read_parquet(sources.teacher / POOL)["probabilities"].to_numpy())
    changed = taught[:, -classes:].argmax(axis=1) != predictions.pool[-1].argmax(axis=1)
    return judge(
        round_number,
        previous["accepted_round"],
        [before[one] for one in both],
        [said[one].astype(np.float64) for one in both],
        judged.truth,
        judged.groups,
        changed_share=float(changed.mean()),
        last=round_number >= rounds,
        params=params,
        seed=facts.seed,
    )


def _manifest(round_number: int, rows: TrainingRows, sources: Sources) -> dict[str, Any]:
    used = {kind: int((rows.ingredient == kind).sum()) for kind in (*INGREDIENTS, "pool")}
    used["pseudo_labelled"] = int((rows.lineage_labels[:, -1] >= 0).sum())
    folders = [sources.collected, sources.validated, sources.augmented, sources.synthesized, sources.pseudo_labels]
    return {
        "stage": f"train@{round_number}",
        "rows": used,
        "trained_on": {folder.name: digest(folder) for folder in folders if folder is not None},
    }
