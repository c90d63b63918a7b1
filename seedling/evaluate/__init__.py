"""evaluate: computes metrics with intervals, plots and predictions. The only stage that reads the locked test split.

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
from seedling.dataset.generation import PayloadReader, columns_of, digest, read, read_manifest, source_of, write_json
from seedling.errors import InputError
from seedling.evaluate.metrics import accuracy, per_class, with_intervals
from seedling.evaluate.next_steps import Curve, LabelSource, errors_by_class, extrapolate, next_steps
from seedling.evaluate.plots import write_losses, write_plots
from seedling.evaluate.scope import operating_points, out_of_scope
from seedling.evaluate.scored import Scored
from seedling.evaluate.slices import DEFAULT_COLUMNS, slices
from seedling.files.reading import read_frame, read_json
from seedling.label_quality.errors_in_test_labels import label_errors
from seedling.progress import Progress, announce, silent
from seedling.records.results import headline_metrics, read_decision, read_evaluation
from seedling.records.summaries import headline
from seedling.records.test_evaluations import log_test_evaluation
from seedling.stats.statistics import Ints, effective_rows, rows_for_interval, wilson
from seedling.workspace import (
    CANDIDATES,
    DECISION,
    EVALUATION,
    LOSSES,
    MANIFEST,
    METRICS,
    MODEL,
    OUT_OF_FOLD,
    PLOTS,
    PREDICTIONS,
    QUEUE,
    Workspace,
)

if TYPE_CHECKING:
    from seedling.models.model import TrainedModel

COLUMNS_WITHOUT_SLICES = ("id", "parent_ids", "label_probs", "quality")  # unique per row, or lists


def evaluate(  # noqa: PLR0913  (the inputs of a stage, each by its name)
    params: EvaluateParams,
    config: WorkspaceConfig,
    *,
    collected: Path,
    validated: Path,
    generations: Path,
    models: Path,
    workspace: Path,
    output: Path,
    progress: Progress = silent,
) -> None:
    """Writes evaluation.json, metrics.json, predictions.parquet and plots/ of the accepted model.

    Logs each evaluation of the test split. Without a test split, the metrics are those of cross-validation only and
    "test" is null.
    """
    from seedling.models.model import load_model, single_threaded  # and torch, which readers of the pages do not need

    round_decisions = read_decisions(models)
    accepted_round = round_decisions[-1]["accepted_round"]
    model_folder = models / str(accepted_round)
    classes = read_manifest(validated)["classes"]
    ranks = _ranks(classes, params)
    cross_validated = out_of_fold(model_folder, validated, classes)
    model_json = _model_json(model_folder)
    with single_threaded():
        model = load_model(model_folder, workspace)
        test = _predict(model, collected, validated, classes, "test", progress)
        outside = _predict(model, collected, validated, classes, "out_of_scope", progress)
    evaluated = cross_validated if test is None else test
    results: dict[str, dict[str, Any] | None] = {
        "cross_validation": _metrics(cross_validated, params, config, ranks) if len(cross_validated.frame) else None,
        "test": None if test is None else _metrics(test, params, config, ranks),
    }
    if test is not None:  # logged before the accuracy is shown, since a user may stop the run then
        _log(test, results["test"] or {}, model_folder, workspace)
    announce(progress, headline(results))
    with single_threaded():
        robustness = _robustness(model, test, collected, params, config, progress)
    train_results = read_json(models / "0" / CANDIDATES)
    rounds = _rounds(round_decisions, models, validated, classes, params)
    slice_results = slices(
        _slice_columns(evaluated.frame, validated, params), evaluated.right, evaluated.groups, params
    )
    noise = _expected_label_noise(cross_validated.frame, validated)
    curve = _curve(evaluated, train_results["learning_curve"], noise, config.seed)
    metrics = {
        "accepted_round": accepted_round,
        "confidence": params.confidence,
        **results,
        "folds": _folds(cross_validated),
        "repeated": train_results["repeated"],
        "test_labels": None if test is None else _test_labels(test, params),
        "per_class": per_class(evaluated.predicted, evaluated.truth, classes, params.confidence),
        "slices": slice_results,
        "rounds": rounds,
        "step_contributions": train_results["step_contributions"],
        **_limits_of_use(evaluated, cross_validated, outside, model_json["selective_prediction"], params, config.seed),
        "unknown_classes": train_results["unknown_classes"],
        "unseen_sources": train_results["unseen_sources"],
        "robustness": robustness,
        "learning_curve": _learning_curve(curve, evaluated, train_results["learning_curve"]),
        "next": _next_steps(
            curve,
            evaluated,
            validated,
            train_results["step_contributions"],
            rounds,
            slice_results,
            _training_data_of(model_json),
        ),
        "rows": _rows_by_stage(generations),
        "test_digest": None if test is None else test_digest(test.frame),
    }
    write_json(output / EVALUATION, metrics)
    write_json(output / METRICS, headline_metrics(metrics))
    _write_predictions(output / PREDICTIONS, evaluated, accepted_round)
    write_plots(output / PLOTS, evaluated, metrics, params)
    write_losses(output / PLOTS / LOSSES, models / "0")


def _log(test: Scored, metrics: Mapping[str, Any], model_folder: Path, workspace: Path) -> None:
    """Adds this evaluation of the test split to the log of test-set evaluations."""
    earlier_results = read_evaluation(Workspace(workspace).reports)
    log_test_evaluation(
        workspace,
        test_digest(test.frame),
        digest(model_folder),
        [name for name, estimate in metrics.items() if isinstance(estimate, dict)],
        has_earlier_results=bool(earlier_results and earlier_results["test"]),
    )


def _limits_of_use(
    evaluated: Scored,
    cross_validated: Scored,
    outside: Scored | None,
    abstention: Mapping[str, Any],
    params: EvaluateParams,
    seed: int,
) -> dict[str, Any]:
    """Selective prediction, operating points and rows that belong to none of the classes."""
    classes = evaluated.classes
    return {
        "selective_prediction": selective_prediction(evaluated, abstention, params.confidence),
        "operating_points": operating_points(
            (cross_validated.confidence, cross_validated.right),
            (evaluated.confidence, evaluated.right, evaluated.groups),
            params,
        ),
        "out_of_scope": out_of_scope(
            evaluated.probabilities,
            np.zeros((0, len(classes))) if outside is None else outside.probabilities,
            abstention["threshold"],
            params,
            seed,
            classes.index(NOTHING) if NOTHING in classes else None,
        ),
    }


def _learning_curve(
    curve: Curve | None, evaluated: Scored, measured: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """The measured points and the expected ones; None if train measured no learning curve."""
    return measured and {
        "labels": measured["labels"],
        "points": measured["points"],
        "expected": extrapolate(curve, float(evaluated.right.mean())),
    }


def _ranks(classes: Sequence[str], params: EvaluateParams) -> Ints | None:
    """Rank of each class in `evaluate.ordered_classes`; None if the classes have no order.

    Raises InputError if the order names other classes.
    """
    order = list(params.ordered_classes)
    if not order:
        return None
    if sorted(order) != sorted(classes):
        raise InputError(
            f"params.yaml: evaluate.ordered_classes names {', '.join(order)}; the classes are {', '.join(classes)}. "
            "Name each of them once."
        )
    return np.array([order.index(name) for name in classes], dtype=np.int64)


def _slice_columns(frame: pd.DataFrame, validated: Path, params: EvaluateParams) -> pd.DataFrame:
    """The validated columns to slice by, aligned with the rows of `frame`.

    Raises InputError if params.yaml names a column that does not exist.
    """
    available = [name for name in columns_of(validated) if name not in COLUMNS_WITHOUT_SLICES]
    for name in params.slices or ():
        if name not in available:
            raise InputError(
                f"params.yaml: evaluate.slices: there is no column '{name}'; there are {', '.join(available)}."
            )
    requested = DEFAULT_COLUMNS if params.slices is None else params.slices
    columns = [name for name in dict.fromkeys(requested) if name in available]
    rows = read(validated, ["id", *columns], ids=frame["id"].tolist()).drop_duplicates("id").set_index("id")
    return rows.reindex(frame["id"]).reset_index(drop=True)


def _robustness(
    model: TrainedModel,
    test: Scored | None,
    collected: Path,
    params: EvaluateParams,
    config: WorkspaceConfig,
    progress: Progress,
) -> dict[str, Any] | None:
    """Robustness on a sample of the test rows: those with the first ids. Ids are hashes, so the sample is random."""
    from seedling.evaluate.minimal_perturbation import MAX_ROWS, SHARE_OF_ROBUSTNESS_ROWS, minimal_perturbation
    from seedling.evaluate.robustness import ROWS_BY_EFFORT, robustness

    sample_size = ROWS_BY_EFFORT[config.effort] if params.robustness_rows is None else params.robustness_rows
    if test is None or sample_size == 0:
        return None
    ids = sorted(test.frame["id"])[:sample_size]
    rows, truth = partial(PayloadReader.of(collected), ids), _by_id(ids, test, test.truth.tolist())
    results = robustness(
        model,
        rows,
        truth,
        _by_id(ids, test, test.groups.tolist()),
        params,
        modality=config.modality,
        max_megapixels=config.max_megapixels,
        seed=config.seed,
        progress=progress,
        predicted=_by_id(ids, test, test.predicted.tolist()),
    )
    perturbation = minimal_perturbation(
        model,
        rows(),
        truth,
        modality=config.modality,
        effort=config.effort,
        max_rows=min(MAX_ROWS, round(SHARE_OF_ROBUSTNESS_ROWS * sample_size)),
        max_megapixels=config.max_megapixels,
        progress=progress,
    )
    return results and {**results, "minimal_perturbation": perturbation}


def _by_id(ids: Sequence[str], scored: Scored, values: Sequence[Any]) -> dict[str, Any]:
    """The values of these rows, by id. values: one per row of `scored`."""
    value_of = dict(zip(scored.frame["id"], values, strict=True))
    return {row_id: value_of[row_id] for row_id in ids}


def _expected_label_noise(evaluation_rows: pd.DataFrame, validated: Path) -> float:
    """Expected share of wrong labels among these rows: the mean of p_label_error, 0 where it is missing."""
    if "p_label_error" not in columns_of(validated) or not len(evaluation_rows):
        return 0.0
    p_label_error = read(validated, ["id", "p_label_error"], ids=evaluation_rows["id"].tolist())["p_label_error"]
    return float(p_label_error.fillna(0.0).astype(float).mean())


def _curve(evaluated: Scored, measured: Mapping[str, Any] | None, noise: float, seed: int) -> Curve | None:
    if not len(evaluated.frame):
        return None
    error = float(1 - evaluated.right.mean())
    rows = effective_rows(evaluated.right.astype(float), evaluated.groups)
    return Curve.of(measured, error, rows, noise, seed)


def _next_steps(
    curve: Curve | None,
    evaluated: Scored,
    validated: Path,
    step_contributions: Sequence[Mapping[str, Any]],
    rounds: Sequence[Mapping[str, Any]],
    slice_results: Sequence[Mapping[str, Any]],
    training_data: set[str],
) -> list[dict[str, Any]]:
    manifest = read_manifest(validated)
    rows, labels = Counter[str](), Counter[str]()
    for count in manifest["counts"]:
        rows[count["split"]] += count["rows"]
        if count["split"] == "train" and count["label"] is not None:
            labels[count["label"]] += count["rows"]
    return next_steps(
        curve,
        rows=rows,
        label_issues=manifest["notes"].get("label_issues") or {},
        errors=errors_by_class(evaluated.right, evaluated.truth, evaluated.classes),
        labels=labels,
        step_contributions=step_contributions,
        rounds=rounds,
        slices=slice_results,
        training_data=training_data,
        label_sources=_label_sources(validated),
        has_queue=(validated.parent / "pseudo_label" / "1" / QUEUE).is_file(),
        unlabeled=read_manifest(validated.parent / "scrape")["reasons"].get("no_label", 0),
    )


def _label_sources(validated: Path) -> list[LabelSource]:
    """The training labels with a p_label_error, by site, folder or table, and by the rule that gave them."""
    if "p_label_error" not in columns_of(validated):
        return []
    rows = read(validated, ["origin", "label_source", "p_label_error"], splits=["train"])
    rows = rows[rows["p_label_error"].notna()]
    sources = rows["label_source"].astype("string")
    rules = sources.where(sources.str.startswith("weak:", na=False)).str.removeprefix("weak:")
    label_sources = []
    for kind, names in (("source", rows["origin"].map(source_of)), ("rule", rules)):
        for name, p_label_error in rows["p_label_error"].astype(float).groupby(names, sort=True):
            label_sources.append(LabelSource(kind, str(name), len(p_label_error), float(p_label_error.sum())))
    return label_sources


def _training_data_of(model_json: Mapping[str, Any]) -> set[str]:
    """The stages whose rows the model was trained on, such as `augment`."""
    return {step for member in model_json["members"] for step in member["recipe"]}


def _folds(scored: Scored) -> list[dict[str, Any]]:
    """Accuracy on each fold: how much the accuracy varies from split to split."""
    fold_of_row = scored.frame["fold"].to_numpy(dtype=float)
    folds = []
    for fold in np.unique(fold_of_row[~np.isnan(fold_of_row)]):
        right = scored.right[fold_of_row == fold]
        folds.append({"fold": int(fold), "rows": len(right), "accuracy": round(float(right.mean()), 6)})
    return folds


def read_decisions(models: Path) -> list[dict[str, Any]]:
    """The decisions of all rounds, in order. Raises InputError if no round was trained."""
    paths = sorted((int(path.parent.name), path) for path in models.glob(f"*/{DECISION}") if path.parent.name.isdigit())
    if not paths:
        raise InputError(f"{models} holds no trained round: run `seedling stage train@0`, or `seedling run`.")
    return [read_decision(path) for _, path in paths]


def out_of_fold(model: Path, validated: Path, classes: Sequence[str]) -> Scored:
    """The human-labeled rows with the predictions of models that were not trained on them."""
    frame = read_frame(model / OUT_OF_FOLD)
    frame = frame[frame["fold"].notna() | (frame["split"] != "train")]  # drop rows that every model was trained on
    frame = frame[frame["label_source"] != "repaired"]  # relabeled rows agree with the models by construction
    human = frame[frame["label_source"] == "human"]
    rows = (human if len(human) else frame).reset_index(drop=True)
    origin = read(validated, ["id", "origin"], ids=rows["id"].tolist()).drop_duplicates("id").set_index("id")["origin"]
    stacked = rows["probabilities"].tolist()
    probabilities = np.array(stacked, dtype=np.float64).reshape(len(stacked), len(classes))
    return Scored(rows.assign(origin=rows["id"].map(origin)), probabilities, list(classes))


def _predict(
    model: TrainedModel, collected: Path, validated: Path, classes: list[str], split: str, progress: Progress
) -> Scored | None:
    columns = ["id", "split", "label", "origin", "group"]
    rows = read(validated, columns, splits=[split]).set_index("id")
    if rows.empty:
        return None
    probabilities = model.predict_rows(rows.index.tolist(), PayloadReader.of(collected), progress)
    return Scored(rows.reset_index(), probabilities, classes)


def test_digest(frame: pd.DataFrame) -> str:
    """Digest of a test split: a hash of its ids and labels, sorted."""
    lines = sorted(f"{row_id} {label}" for row_id, label in zip(frame["id"], frame["label"], strict=True))
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=8).hexdigest()


def _metrics(scored: Scored, params: EvaluateParams, config: WorkspaceConfig, ranks: Ints | None) -> dict[str, Any]:
    metrics = with_intervals(scored.probabilities, scored.truth, scored.groups, params, config.seed, ranks)
    effective = rows_for_interval(scored.right.astype(float), scored.groups, params.confidence)
    return {**metrics, "rows": len(scored.frame), "effective_rows": round(effective, 3)}


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
        estimate = (
            accuracy(scored.predicted, scored.truth, scored.groups, params).rounded() if len(scored.frame) else None
        )
        kept = {name: round_decision[name] for name in ("round", "decision", "reason", "worth_in_labels")}
        harmed = [classes[result["label"]] for result in round_decision["classes"] if result["harmed"]]
        rounds.append({**kept, "harmed": harmed, "accuracy": estimate, "difference": round_decision["accuracy"]})
    return rounds


def _model_json(model: Path) -> dict[str, Any]:
    model_json: dict[str, Any] = read_json(model / MODEL)
    return model_json


def selective_prediction(scored: Scored, abstention: Mapping[str, Any], confidence: float = 0.95) -> dict[str, Any]:
    """Coverage and selective accuracy on these rows at the threshold that train chose.

    coverage: share of rows with a confidence of at least the threshold; accuracy: share of those that are right.
    """
    covered, right = scored.confidence >= abstention["threshold"], scored.right
    return {
        "threshold": abstention["threshold"],
        "target_accuracy": abstention["target_accuracy"],
        "out_of_scope": abstention["out_of_scope"],
        "coverage": wilson(int(covered.sum()), len(covered), confidence).rounded() if len(covered) else None,
        "accuracy": wilson(int(right[covered].sum()), int(covered.sum()), confidence).rounded()
        if covered.any()
        else None,
    }


def _rows_by_stage(generations: Path) -> dict[str, Any]:
    rows_by_stage = {}
    for path in sorted(generations.glob(f"**/{MANIFEST}")):
        manifest = read_json(path)
        rows_by_stage[manifest["stage"]] = {**manifest["rows"], "reasons": manifest["reasons"]}
    return rows_by_stage


def _write_predictions(path: Path, scored: Scored, accepted_round: int) -> None:
    classes = np.array(scored.classes)
    table = {
        "id": pa.array(scored.frame["id"], pa.string()),
        "origin": pa.array(scored.frame["origin"], pa.string()),
        "label": pa.array(scored.frame["label"], pa.string()),
        "predicted": pa.array(classes[scored.probabilities.argmax(axis=1)].tolist(), pa.string()),
        "probabilities": pa.array(list(scored.probabilities.astype(np.float32)), pa.list_(pa.float32())),
        "round": pa.array([accepted_round] * len(scored.frame), pa.int8()),
        "group": pa.array(scored.frame["group"], pa.string()),
    }
    pq.write_table(pa.table(table), path, compression="zstd")
