"""evaluate: computes metrics with intervals, plots and predictions. The only stage that reads the locked test split.

python -m seedling.runner evaluate
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from seedling.config.params import NOTHING, EvaluateParams, WorkspaceConfig
from seedling.dataset.generation import PayloadReader, columns_of, digest, read, read_manifest, source_of
from seedling.dataset.schema import HUMAN_SOURCES, REVIEW_SOURCE
from seedling.errors import InputError, SeedlingError
from seedling.evaluate.metrics import accuracy, majority_baseline, per_class, with_intervals
from seedling.evaluate.next_steps import Curve, LabelSource, errors_by_class, extrapolate, next_steps
from seedling.evaluate.plots import write_losses, write_plots
from seedling.evaluate.scope import operating_points, out_of_scope
from seedling.evaluate.scored import Scored
from seedling.evaluate.slices import DEFAULT_COLUMNS, slices
from seedling.features.classical import FeatureMaker, ImageFeatures
from seedling.files.reading import read_frame
from seedling.label_quality.errors_in_test_labels import label_errors
from seedling.media.images import SMALL_SIDE
from seedling.progress import Progress, announce, silent
from seedling.records.candidates import CandidatesRecord, LearningCurveRecord, StepContributionRecord
from seedling.records.decision import DecisionRecord
from seedling.records.evaluation import (
    AdviceRecord,
    EvaluationRecord,
    EvaluationSummary,
    ExtrapolatedCurveRecord,
    FoldRecord,
    MetricsRecord,
    OperatingPointRecord,
    OutOfScopeRecord,
    RobustnessRecord,
    RoundRecord,
    SelectivePredictionRecord,
    SliceRecord,
    StageRowsRecord,
    WrongTestLabelsRecord,
)
from seedling.records.few_labels import training_labels
from seedling.records.headline_metrics import headline_metrics
from seedling.records.intervals import EstimateRecord
from seedling.records.manifest import Manifest, read_notes
from seedling.records.model import AbstentionRecord, ModelRecord
from seedling.records.results import read_evaluation_summary
from seedling.records.stage_notes import ValidateNotes
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

Value = TypeVar("Value")
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
    accepted_round = round_decisions[-1].accepted_round
    model_folder = models / str(accepted_round)
    classes = list(read_manifest(validated).classes)
    ranks = _ranks(classes, params)
    model_record = ModelRecord.read(model_folder / MODEL)
    _check_classes(model_record, classes)
    cross_validated = out_of_fold(model_folder, validated, classes)
    with single_threaded():
        model = load_model(model_folder, workspace)
        test = _predict(model, collected, validated, classes, "test", progress)
        outside = _predict(model, collected, validated, classes, "out_of_scope", progress)
    evaluated = cross_validated if test is None else test
    cross_validated_metrics = _metrics(cross_validated, params, config, ranks) if len(cross_validated.frame) else None
    test_metrics = None if test is None else _metrics(test, params, config, ranks)
    digest_of_test = None if test is None else test_digest(test.frame)
    if digest_of_test and test_metrics:  # logged before the accuracy is shown, since a user may stop the run then
        _log(digest_of_test, test_metrics, model_folder, workspace)
    announce(progress, headline(EvaluationSummary(test=test_metrics, cross_validation=cross_validated_metrics)))
    with single_threaded():
        robustness = _robustness(model, test, collected, params, config, progress)
    train_results = CandidatesRecord.read(models / "0" / CANDIDATES)
    rounds = _rounds(round_decisions, models, validated, classes, params)
    slice_results = slices(
        _slice_columns(evaluated.frame, validated, params), evaluated.right, evaluated.groups, params
    )
    noise = _expected_label_noise(cross_validated.frame, validated)
    curve = _curve(evaluated, train_results.learning_curve, noise, config.seed)
    threshold = model_record.selective_prediction.threshold
    evaluation = EvaluationRecord(
        accepted_round=accepted_round,
        confidence=params.confidence,
        cross_validation=cross_validated_metrics,
        test=test_metrics,
        test_digest=digest_of_test,
        test_labels=None if test is None else _test_labels(test, params),
        folds=_folds(cross_validated),
        repeated=train_results.repeated,
        per_class=tuple(per_class(evaluated.predicted, evaluated.truth, classes, params.confidence)),
        slices=tuple(slice_results),
        rounds=rounds,
        step_contributions=train_results.step_contributions,
        selective_prediction=selective_prediction(evaluated, model_record.selective_prediction, params.confidence),
        operating_points=_operating_points(cross_validated, evaluated, params),
        out_of_scope=None if outside is None else _out_of_scope(evaluated, outside, threshold, params, config.seed),
        unknown_classes=train_results.unknown_classes,
        unseen_sources=train_results.unseen_sources,
        robustness=robustness,
        learning_curve=_learning_curve(curve, evaluated, train_results.learning_curve),
        next=_next_steps(
            curve,
            evaluated,
            validated,
            train_results.step_contributions,
            slice_results,
            _training_data_of(model_record),
            is_photographs_without_encoder=_is_photographs(model.features),
        ),
        baseline=majority_baseline(training_labels(read_manifest(validated)), evaluated.frame["label"]),
        rows=_rows_by_stage(generations),
    )
    evaluation.write(output / EVALUATION)
    headline_metrics(evaluation).write(output / METRICS)
    _write_predictions(output / PREDICTIONS, evaluated, accepted_round)
    write_plots(output / PLOTS, evaluated, evaluation, params)
    write_losses(output / PLOTS / LOSSES, models / "0")


def _log(digest_of_test: str, metrics: MetricsRecord, model_folder: Path, workspace: Path) -> None:
    """Adds this evaluation of the test split to the log of test-set evaluations."""
    earlier_results = read_evaluation_summary(Workspace(workspace).reports)
    log_test_evaluation(
        workspace,
        digest_of_test,
        digest(model_folder),
        metrics.names,
        has_earlier_results=bool(earlier_results and earlier_results.test),
    )


def _operating_points(
    cross_validated: Scored, evaluated: Scored, params: EvaluateParams
) -> tuple[OperatingPointRecord, ...]:
    selection = (cross_validated.confidence, cross_validated.right)
    return tuple(operating_points(selection, (evaluated.confidence, evaluated.right, evaluated.groups), params))


def _out_of_scope(
    evaluated: Scored, outside: Scored, threshold: float, params: EvaluateParams, seed: int
) -> OutOfScopeRecord | None:
    classes = evaluated.classes
    background_class = classes.index(NOTHING) if NOTHING in classes else None
    return out_of_scope(evaluated.probabilities, outside.probabilities, threshold, params, seed, background_class)


def _learning_curve(
    curve: Curve | None, evaluated: Scored, measured: LearningCurveRecord | None
) -> ExtrapolatedCurveRecord | None:
    """The measured points and the expected ones; None if train measured no learning curve."""
    if measured is None:
        return None
    return ExtrapolatedCurveRecord(
        labels=measured.labels,
        points=measured.points,
        expected=extrapolate(curve, float(evaluated.right.mean())),
    )


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
) -> RobustnessRecord | None:
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
    return results and results.model_copy(update={"minimal_perturbation": perturbation})


def _by_id(ids: Sequence[str], scored: Scored, values: Sequence[Value]) -> dict[str, Value]:
    """The values of these rows, by id. values: one per row of `scored`."""
    value_of = dict(zip(scored.frame["id"], values, strict=True))
    return {row_id: value_of[row_id] for row_id in ids}


def _expected_label_noise(evaluation_rows: pd.DataFrame, validated: Path) -> float:
    """Expected share of wrong labels among these rows: the mean of p_label_error, 0 where it is missing."""
    if "p_label_error" not in columns_of(validated) or not len(evaluation_rows):
        return 0.0
    p_label_error = read(validated, ["id", "p_label_error"], ids=evaluation_rows["id"].tolist())["p_label_error"]
    return float(p_label_error.fillna(0.0).astype(float).mean())


def _curve(evaluated: Scored, measured: LearningCurveRecord | None, noise: float, seed: int) -> Curve | None:
    if not len(evaluated.frame):
        return None
    error = float(1 - evaluated.right.mean())
    rows = effective_rows(evaluated.right.astype(float), evaluated.groups)
    return Curve.of(measured, error, rows, noise, seed)


def _next_steps(
    curve: Curve | None,
    evaluated: Scored,
    validated: Path,
    step_contributions: Sequence[StepContributionRecord],
    slice_results: Sequence[SliceRecord],
    training_data: set[str],
    *,
    is_photographs_without_encoder: bool,
) -> tuple[AdviceRecord, ...]:
    manifest = read_manifest(validated)
    rows = Counter[str]()
    for count in manifest.counts:
        rows[count.split] += count.rows
    return next_steps(
        curve,
        rows=rows,
        label_issues=read_notes(validated, ValidateNotes).estimated_issues,
        unreviewed=_unreviewed(validated),
        errors=errors_by_class(evaluated.right, evaluated.truth, evaluated.classes),
        labels=training_labels(manifest),
        step_contributions=step_contributions,
        slices=slice_results,
        training_data=training_data,
        label_sources=_label_sources(validated),
        has_queue=(validated.parent / "pseudo_label" / "1" / QUEUE).is_file(),
        unlabeled=read_manifest(validated.parent / "scrape").reasons.get("no_label", 0),
        is_photographs_without_encoder=is_photographs_without_encoder,
    )


def _is_photographs(features: FeatureMaker) -> bool:
    """Whether the rows are images that are not small, without an encoder."""
    return isinstance(features, ImageFeatures) and (features.side or 0) > SMALL_SIDE


def _unreviewed(validated: Path) -> list[float] | None:
    """The p_label_error of the training labels that no person has reviewed; None if no label is reviewed."""
    if "p_label_error" not in columns_of(validated):
        return None
    rows = read(validated, ["label_source", "p_label_error"], splits=["train"])
    is_reviewed = rows["label_source"].eq(REVIEW_SOURCE)
    return [float(p) for p in rows.loc[~is_reviewed, "p_label_error"].dropna()] if is_reviewed.any() else None


def _label_sources(validated: Path) -> list[LabelSource]:
    """The unreviewed training labels with a p_label_error, by site, folder or table, and by the rule that gave them."""
    if "p_label_error" not in columns_of(validated):
        return []
    rows = read(validated, ["origin", "label_source", "p_label_error"], splits=["train"])
    rows = rows[rows["p_label_error"].notna() & rows["label_source"].ne(REVIEW_SOURCE)]
    sources = rows["label_source"].astype("string")
    rules = sources.where(sources.str.startswith("weak:", na=False)).str.removeprefix("weak:")
    label_sources = []
    for kind, names in (("source", rows["origin"].map(source_of)), ("rule", rules)):
        for name, p_label_error in rows["p_label_error"].astype(float).groupby(names, sort=True):
            label_sources.append(LabelSource(kind, str(name), len(p_label_error), float(p_label_error.sum())))
    return label_sources


def _training_data_of(model: ModelRecord) -> set[str]:
    """The stages whose rows the model was trained on, such as `augment`."""
    return {step for member in model.members for step in member.recipe}


def _folds(scored: Scored) -> tuple[FoldRecord, ...]:
    """Accuracy on each fold: how much the accuracy varies from split to split."""
    fold_of_row = scored.frame["fold"].to_numpy(dtype=float)
    folds = []
    for fold in np.unique(fold_of_row[~np.isnan(fold_of_row)]):
        right = scored.right[fold_of_row == fold]
        folds.append(FoldRecord(fold=int(fold), rows=len(right), accuracy=round(float(right.mean()), 6)))
    return tuple(folds)


def read_decisions(models: Path) -> list[DecisionRecord]:
    """The decisions of all rounds, in order. Raises InputError if no round was trained."""
    paths = sorted((int(path.parent.name), path) for path in models.glob(f"*/{DECISION}") if path.parent.name.isdigit())
    if not paths:
        raise InputError(f"{models} holds no trained round: run `seedling stage train@0`, or `seedling run`.")
    return [DecisionRecord.read(path) for _, path in paths]


def _check_classes(model: ModelRecord, classes: Sequence[str]) -> None:
    """Raise SeedlingError if validate has found other classes since the model was trained."""
    if list(model.classes) != list(classes):
        differing = sorted(set(model.classes) ^ set(classes))
        raise SeedlingError(
            f"The model was trained on other classes than the data has now ({', '.join(differing)[:200]}): "
            "`seedling run` trains it again."
        )


def out_of_fold(model: Path, validated: Path, classes: Sequence[str]) -> Scored:
    """The human-labeled rows with the predictions of models that were not trained on them."""
    frame = read_frame(model / OUT_OF_FOLD)
    frame = frame[frame["fold"].notna() | (frame["split"] != "train")]  # drop rows that every model was trained on
    frame = frame[frame["label_source"] != "repaired"]  # relabeled rows agree with the models by construction
    human = frame[frame["label_source"].isin(HUMAN_SOURCES)]
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


def _metrics(scored: Scored, params: EvaluateParams, config: WorkspaceConfig, ranks: Ints | None) -> MetricsRecord:
    """The metrics of these rows, of which there is at least one."""
    estimates = with_intervals(scored.probabilities, scored.truth, scored.groups, params, config.seed, ranks)
    effective = rows_for_interval(scored.right.astype(float), scored.groups, params.confidence)
    return MetricsRecord.model_validate({**estimates, "rows": len(scored.frame), "effective_rows": round(effective, 3)})


def _test_labels(test: Scored, params: EvaluateParams) -> WrongTestLabelsRecord | None:
    effective = rows_for_interval(test.right.astype(float), test.groups, params.confidence)
    return label_errors(test.probabilities, test.truth, effective, params.confidence)


def _rounds(
    round_decisions: Sequence[DecisionRecord],
    models: Path,
    validated: Path,
    classes: Sequence[str],
    params: EvaluateParams,
) -> tuple[RoundRecord, ...]:
    """Each trained round: the decision, and its cross-validated accuracy on the same rows."""
    rounds = []
    for round_decision in round_decisions:
        if round_decision.decision == "skipped":
            continue
        scored = out_of_fold(models / str(round_decision.round), validated, classes)
        rounds.append(
            RoundRecord(
                round=round_decision.round,
                decision=round_decision.decision,
                reason=round_decision.reason,
                worth_in_labels=round_decision.worth_in_labels,
                harmed=tuple(classes[change.label] for change in round_decision.classes if change.harmed),
                accuracy=EstimateRecord.of(accuracy(scored.predicted, scored.truth, scored.groups, params))
                if len(scored.frame)
                else None,
                difference=round_decision.accuracy,
            )
        )
    return tuple(rounds)


def selective_prediction(
    scored: Scored, abstention: AbstentionRecord, confidence: float = 0.95
) -> SelectivePredictionRecord:
    """Coverage and selective accuracy on these rows at the threshold that train chose.

    coverage: share of rows with a confidence of at least the threshold; accuracy: share of those that are right.
    """
    covered, right = scored.confidence >= abstention.threshold, scored.right
    n_covered = int(covered.sum())
    return SelectivePredictionRecord(
        threshold=abstention.threshold,
        target_accuracy=abstention.target_accuracy,
        out_of_scope=abstention.out_of_scope,
        coverage=EstimateRecord.of(wilson(n_covered, len(covered), confidence)) if len(covered) else None,
        accuracy=EstimateRecord.of(wilson(int(right[covered].sum()), n_covered, confidence)) if n_covered else None,
    )


def _rows_by_stage(generations: Path) -> dict[str, StageRowsRecord]:
    manifests = (Manifest.read(path) for path in sorted(generations.glob(f"**/{MANIFEST}")))
    return {
        manifest.stage: StageRowsRecord(
            rows_in=manifest.rows.rows_in,
            kept=manifest.rows.kept,
            rejected=manifest.rows.rejected,
            reasons=manifest.reasons,
        )
        for manifest in manifests
    }


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
