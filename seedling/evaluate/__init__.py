"""evaluate: the locked test split is read here and nowhere else; metrics with intervals, plots, predictions.

python -m seedling.runner evaluate
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from seedling.config.params import NOTHING, EvaluateParams, WorkspaceConfig
from seedling.dataset.generation import columns_of, digest, payloads, read, read_manifest, source_of, write_json
from seedling.errors import InputError
from seedling.evaluate.metrics import accuracy, per_class, with_intervals
from seedling.evaluate.next_steps import Curve, LabelsFrom, errors_by_class, extrapolated, next_steps
from seedling.evaluate.plots import write_losses, write_plots
from seedling.evaluate.scope import operating_points, out_of_scope
from seedling.evaluate.scored import Scored
from seedling.evaluate.slices import USUAL, slices
from seedling.files.reading import read_frame, read_json
from seedling.label_quality.test_label_errors import label_errors
from seedling.progress import Progress, silent
from seedling.records.results import EVALUATION, METRICS, headline_metrics, read_decision, read_evaluation
from seedling.records.test_evaluations import log_test_evaluation
from seedling.stats.statistics import Ints, effective_rows, rows_for_interval, wilson

if TYPE_CHECKING:
    from seedling.models.model import TrainedModel

NOT_TO_CUT_BY = ("id", "parent_ids", "label_probs", "quality")  # no two rows alike, or lists


def evaluate(
    params: EvaluateParams,
    facts: WorkspaceConfig,
    *,
    collected: Path,
    validated: Path,
    generations: Path,
    models: Path,
    workspace: Path,
    output: Path,
    progress: Progress = silent,
) -> None:
    """Writes evaluation.json, metrics.json, predictions.parquet and plots/ of the accepted model; each test-set evaluation is logged.

    Without a test split the numbers are the cross-validation's alone, and say so: "test" is null.
    """
    from seedling.models.model import load_model, single_threaded  # and torch, which readers of the pages do not need

    round_decisions = read_decisions(models)
    accepted = round_decisions[-1]["accepted_round"]
    classes = read_manifest(validated)["classes"]
    ranks = _ranks(classes, params)
    cross_validated = out_of_fold(models / str(accepted), validated, classes)
    chosen = _model_json(models / str(accepted))
    known = chosen["selective_prediction"]
    with single_threaded():
        model = load_model(models / str(accepted), workspace)
        test = _predict(model, collected, validated, classes, "test", progress)
        outside = _predict(model, collected, validated, classes, "out_of_scope", progress)
        changed = _robustness(model, test, collected, params, facts, progress)
    shown = test if test is not None else cross_validated
    learnt = read_json(models / "0" / "candidates.json")
    rounds = _rounds(round_decisions, models, validated, classes, params)
    parts = slices(_measured(shown.frame, validated, params), shown.right, shown.groups, params)
    doubt = read_manifest(validated)["notes"].get("doubt") or {}
    curve = _curve(shown, learnt["learning_curve"], _noise(cross_validated.frame, validated), facts.seed)
    confident = (cross_validated.confidence, cross_validated.right)
    metrics = {
        "accepted_round": accepted,
        "confidence": params.confidence,
        "cross_validation": _metrics(cross_validated, params, facts, ranks) if len(cross_validated.frame) else None,
        "folds": _folds(cross_validated),
        "repeated": learnt["repeated"],
        "test": None if test is None else _metrics(test, params, facts, ranks),
        "test_labels": None if test is None else _test_labels(test, params),
        "per_class": per_class(shown.said, shown.truth, classes, params.confidence),
        "slices": parts,
        "rounds": rounds,
        "step_contributions": learnt["step_contributions"],
        "selective_prediction": abstained(shown, known, params.confidence),
        "operating_points": operating_points(confident, (shown.confidence, shown.right, shown.groups), params),
        "out_of_scope": out_of_scope(
            shown.probabilities,
            np.zeros((0, len(classes))) if outside is None else outside.probabilities,
            known["threshold"],
            params,
            facts.seed,
            classes.index(NOTHING) if NOTHING in classes else None,
        ),
        "unknown_classes": learnt["unknown_classes"],
        "unseen_sources": learnt["unseen_sources"],
        "robustness": changed,
        "learning_curve": learnt["learning_curve"]
        and {
            "labels": learnt["learning_curve"]["labels"],
            "points": learnt["learning_curve"]["points"],
            "expected": extrapolated(curve, float(shown.right.mean())),
        },
        "next": _next(
            curve, shown, validated, doubt, learnt["step_contributions"], rounds, parts, _learnt_from(chosen)
        ),
        "rows": _rows_by_stage(generations),
        "test_digest": None if test is None else test_digest(test.frame),
    }
    if test is not None:
        taken = [name for name, one in metrics["test"].items() if isinstance(one, dict)]
        earlier = read_evaluation(workspace / "reports")
        log_test_evaluation(
            workspace,
            test_digest(test.frame),
            digest(models / str(accepted)),
            taken,
            has_earlier_results=bool(earlier and earlier["test"]),
        )
    write_json(output / EVALUATION, metrics)
    write_json(output / METRICS, headline_metrics(metrics))
    _write_predictions(output / "predictions.parquet", shown, accepted)
    write_plots(output / "plots", shown, metrics, params)
    write_losses(output / "plots" / "losses.csv", models / "0")


def _ranks(classes: Sequence[str], params: EvaluateParams) -> Ints | None:
    """Each class's place in the order of params.yaml; None where there is none. Raises InputError where the order names other classes."""
    order = list(params.ordered_classes)
    if not order:
        return None
    if sorted(order) != sorted(classes):
        raise InputError(
            f"params.yaml: evaluate.ordered_classes names {', '.join(order)}; the classes are {', '.join(classes)}. Name each of them once."
        )
    return np.array([order.index(name) for name in classes], dtype=np.int64)


def _measured(frame: pd.DataFrame, validated: Path, params: EvaluateParams) -> pd.DataFrame:
    """The rows' columns to cut by, in their order, as validate has them. Raises InputError for a column that it has not."""
    there = [name for name in columns_of(validated) if name not in NOT_TO_CUT_BY]
    for name in params.slices or ():
        if name not in there:
            raise InputError(
                f"params.yaml: evaluate.slices: there is no column '{name}'; there are {', '.join(there)}."
            )
    wanted = [name for name in dict.fromkeys(USUAL if params.slices is None else params.slices) if name in there]
    rows = read(validated, ["id", *wanted], ids=frame["id"].tolist()).drop_duplicates("id").set_index("id")
    return rows.reindex(frame["id"]).reset_index(drop=True)


def _robustness(
    model: TrainedModel,
    test: Scored | None,
    collected: Path,
    params: EvaluateParams,
    facts: WorkspaceConfig,
    progress: Progress,
) -> dict[str, Any] | None:
    """On so many test rows, those with the first ids, which are hashes."""
    from seedling.evaluate.minimal_perturbation import minimal_perturbation
    from seedling.evaluate.robustness import ROWS, robustness

    many = ROWS[facts.effort] if params.robustness_rows is None else params.robustness_rows
    if test is None or many == 0:
        return None
    ids = sorted(test.frame["id"])[:many]
    rows, truth = partial(payloads, [collected], ids), _of(ids, test, test.truth.tolist())
    found = robustness(
        model,
        rows,
        truth,
        _of(ids, test, test.groups.tolist()),
        params,
        modality=facts.modality,
        max_megapixels=facts.max_megapixels,
        seed=facts.seed,
        progress=progress,
    )
    step = minimal_perturbation(
        model,
        rows(),
        truth,
        modality=facts.modality,
        effort=facts.effort,
        max_megapixels=facts.max_megapixels,
        progress=progress,
    )
    return found and {**found, "minimal_perturbation": step}


def _of(ids: Sequence[str], scored: Scored, values: Sequence[Any]) -> dict[str, Any]:
    """The values of these rows, by id."""
    known = dict(zip(scored.frame["id"], values, strict=True))
    return {one: known[one] for one in ids}


def _noise(judged: pd.DataFrame, validated: Path) -> float:
    """The share of wrong labels that is expected among the rows that train judged by, as validate says of each; 0 where it says nothing."""
    if "p_label_error" not in columns_of(validated) or not len(judged):
        return 0.0
    wrong = read(validated, ["id", "p_label_error"], ids=judged["id"].tolist())["p_label_error"]
    return float(wrong.fillna(0.0).astype(float).mean())


def _curve(shown: Scored, learnt: Mapping[str, Any] | None, noise: float, seed: int) -> Curve | None:
    if not len(shown.frame):
        return None
    error, rows = float(1 - shown.right.mean()), effective_rows(shown.right.astype(float), shown.groups)
    return Curve.of(learnt, error, rows, noise, seed)


def _next(
    curve: Curve | None,
    shown: Scored,
    validated: Path,
    doubt: Mapping[str, Any],
    steps: Sequence[Mapping[str, Any]],
    rounds: Sequence[Mapping[str, Any]],
    parts: Sequence[Mapping[str, Any]],
    used: set[str],
) -> list[dict[str, Any]]:
    manifest = read_manifest(validated)
    rows, labels = Counter[str](), Counter[str]()
    for one in manifest["counts"]:
        rows[one["split"]] += one["rows"]
        if one["split"] == "train" and one["label"] is not None:
            labels[one["label"]] += one["rows"]
    return next_steps(
        curve,
        rows=rows,
        doubt=doubt,
        errors=errors_by_class(shown.right, shown.truth, shown.classes),
        labels=labels,
        step_contributions=steps,
        rounds=rounds,
        slices=parts,
        used=used,
        labels_from=_labels_from(validated),
        queue=(validated.parent / "pseudo_label" / "1" / "queue.csv").is_file(),
        unlabeled=read_manifest(validated.parent / "scrape")["reasons"].get("no_label", 0),
    )


def _labels_from(validated: Path) -> list[LabelsFrom]:
    """The judged training labels by site, folder or table, and by the rule that gave them."""
    if "p_label_error" not in columns_of(validated):
        return []
    rows = read(validated, ["origin", "label_source", "p_label_error"], splits=["train"])
    rows = rows[rows["p_label_error"].notna()]
    sources = rows["label_source"].astype("string")
    rules = sources.where(sources.str.startswith("weak:", na=False)).str.removeprefix("weak:")
    found = []
    for kind, names in (("source", rows["origin"].map(source_of)), ("rule", rules)):
        for name, chances in rows["p_label_error"].astype(float).groupby(names, sort=True):
            found.append(LabelsFrom(kind, str(name), len(chances), float(chances.sum())))
    return found


def _learnt_from(model: Mapping[str, Any]) -> set[str]:
    return {step for member in model["members"] for step in member["recipe"]}


def _folds(scored: Scored) -> list[dict[str, Any]]:
    """Accuracy of each fold: how far a single split can be from another."""
    held = scored.frame["fold"].to_numpy(dtype=float)
    found = []
    for fold in np.unique(held[~np.isnan(held)]):
        right = scored.right[held == fold]
        found.append({"fold": int(fold), "rows": len(right), "accuracy": round(float(right.mean()), 6)})
    return found


def read_decisions(models: Path) -> list[dict[str, Any]]:
    """The rounds' decisions in their order. Raises InputError where there is none."""
    found = sorted(
        (int(path.parent.name), path) for path in models.glob("*/decision.json") if path.parent.name.isdigit()
    )
    if not found:
        raise InputError(f"{models} holds no trained round: run `seedling stage train@0`, or `seedling run`.")
    return [read_decision(path) for _, path in found]


def out_of_fold(model: Path, validated: Path, classes: Sequence[str]) -> Scored:
    """The rows that people labeled, with the predictions of models that never saw them."""
    frame = read_frame(model / "out_of_fold.parquet")
    frame = frame[frame["fold"].notna() | (frame["split"] != "train")]  # rows that every model saw say nothing
    frame = frame[frame["label_source"] != "repaired"]  # and rows that were relabeled agree with the models
    human = frame[frame["label_source"] == "human"]
    used = (human if len(human) else frame).reset_index(drop=True)
    origin = read(validated, ["id", "origin"], ids=used["id"].tolist()).drop_duplicates("id").set_index("id")["origin"]
    stacked = used["probabilities"].tolist()
    probabilities = np.array(stacked, dtype=np.float64).reshape(len(stacked), len(classes))
    return Scored(used.assign(origin=used["id"].map(origin)), probabilities, list(classes))


def _predict(
    model: TrainedModel, collected: Path, validated: Path, classes: list[str], split: str, progress: Progress
) -> Scored | None:
    columns = ["id", "split", "label", "origin", "group"]
    rows = read(validated, columns, splits=[split]).set_index("id")
    if rows.empty:
        return None
    probabilities = model.predict_rows(rows.index.tolist(), partial(payloads, [collected]), progress)
    return Scored(rows.reset_index(), probabilities, classes)


def test_digest(frame: pd.DataFrame) -> str:
    """Which test split this is: a hash of its ids and labels in the ids' order."""
    lines = sorted(f"{one} {label}" for one, label in zip(frame["id"], frame["label"], strict=True))
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=8).hexdigest()


def _metrics(scored: Scored, params: EvaluateParams, facts: WorkspaceConfig, ranks: Ints | None) -> dict[str, Any]:
    found = with_intervals(scored.probabilities, scored.truth, scored.groups, params, facts.seed, ranks)
    effective = rows_for_interval(scored.right.astype(float), scored.groups, params.confidence)
    return {**found, "rows": len(scored.frame), "effective_rows": round(effective, 3)}


def _test_labels(test: Scored, params: EvaluateParams) -> dict[str, Any] | None:
    effective = rows_for_interval(test.right.astype(float), test.groups, params.confidence)
    return label_errors(test.probabilities, test.truth, effective, params.confidence)


def _rounds(
    round_decisions: Sequence[Mapping[str, Any]],
    models: Path,
    validated: Path,
    classes: Sequence[str],
    params: EvaluateParams,
) -> list[dict[str, Any]]:
    """Each trained round: the decision, and its cross-validated accuracy on the same rows."""
    rounds = []
    for round_decision in round_decisions:
        if round_decision["decision"] == "skipped":
            continue
        scored = out_of_fold(models / str(round_decision["round"]), validated, classes)
        found = accuracy(scored.said, scored.truth, scored.groups, params).rounded() if len(scored.frame) else None
        kept = {name: round_decision[name] for name in ("round", "decision", "reason", "worth_in_labels")}
        harmed = [classes[one["label"]] for one in round_decision["classes"] if one["harmed"]]
        rounds.append({**kept, "harmed": harmed, "accuracy": found, "difference": round_decision["accuracy"]})
    return rounds


def _model_json(model: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(model / "model.json")
    return found


def abstained(scored: Scored, abstain: Mapping[str, Any], confidence: float = 0.95) -> dict[str, Any]:
    """What the limit that train chose does on these rows: the share that is answered, and how many of those are right."""
    sure, right = scored.confidence >= abstain["threshold"], scored.right
    return {
        "threshold": abstain["threshold"],
        "target_accuracy": abstain["target_accuracy"],
        "out_of_scope": abstain["out_of_scope"],
        "coverage": wilson(int(sure.sum()), len(sure), confidence).rounded() if len(sure) else None,
        "accuracy": wilson(int(right[sure].sum()), int(sure.sum()), confidence).rounded() if sure.any() else None,
    }


def _rows_by_stage(generations: Path) -> dict[str, Any]:
    found = {}
    for path in sorted(generations.glob("**/manifest.json")):
        manifest = read_json(path)
        found[manifest["stage"]] = {**manifest["rows"], "reasons": manifest["reasons"]}
    return found


def _write_predictions(path: Path, scored: Scored, accepted: int) -> None:
    classes = np.array(scored.classes)
    table = {
        "id": pa.array(scored.frame["id"], pa.string()),
        "origin": pa.array(scored.frame["origin"], pa.string()),
        "label": pa.array(scored.frame["label"], pa.string()),
        "predicted": pa.array(classes[scored.probabilities.argmax(axis=1)].tolist(), pa.string()),
        "probabilities": pa.array(list(scored.probabilities.astype(np.float32)), pa.list_(pa.float32())),
        "round": pa.array([accepted] * len(scored.frame), pa.int8()),
        "group": pa.array(scored.frame["group"], pa.string()),
    }
    pq.write_table(pa.table(table), path, compression="zstd")
