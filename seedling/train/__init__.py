"""train: compare learners by cross-validation, predict out of fold, and accept or reject the round.

python -m seedling.runner train@0
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seedling.config.params import NOTHING, TrainParams, WorkspaceConfig
from seedling.dataset.class_indices import class_indices
from seedling.dataset.generation import PayloadReader, read, read_manifest
from seedling.dataset.schema import HUMAN_SOURCES
from seedling.dataset.training_rows import TrainingRows, mixed_in_rows, training_rows
from seedling.features.classical import FeatureMaker
from seedling.features.encoder_handle import EncoderHandle
from seedling.label_quality.label_weights import LABEL_WEIGHTED_LOSSES
from seedling.models.device import release_freed_memory
from seedling.models.losses import balanced
from seedling.models.model import single_threaded
from seedling.models.saving import load_features, make_features, save_features
from seedling.models.training import FitContext, Mixin
from seedling.parallel.executor import this_process
from seedling.parallel.launcher import LAUNCH, run_by_launcher
from seedling.progress import Progress, silent
from seedling.records.candidates import AnalysesRecord, CandidatesRecord
from seedling.records.decision import DecisionRecord
from seedling.records.round_manifest import RoundManifestRecord
from seedling.train import files
from seedling.train.choice import Choice, EvaluationRows, abstention, calibrated, candidate_table
from seedling.train.comparison import Loop, decide
from seedling.train.cross_validation import Predictions
from seedling.train.learning_curve import learning_curve
from seedling.train.model_record import model_record
from seedling.train.previous_model import PreviousModel
from seedling.train.repeated import repeated_cross_validation
from seedling.train.round_decision import RoundDecision
from seedling.train.step_contributions import step_contributions
from seedling.train.tally import PREVIOUS_MODEL, Candidate
from seedling.train.training_data import TrainingData
from seedling.train.trial import Trial, choose_and_fit, try_candidates
from seedling.train.unknown import unknown_classes
from seedling.train.unseen_sources import unseen_sources
from seedling.workspace import CANDIDATES, DECISION, FEATURE_FILES, MANIFEST, MODEL, Workspace

GRADIENT_STEPS = {"quick": 150, "normal": 240, "thorough": 1500}
POOL_ROWS = {"quick": 10_000, "normal": 30_000, "thorough": 100_000}


@dataclass(frozen=True)
class InputFolders:
    """The folders that train reads; the last two are None in round 0."""

    collected: Path
    validated: Path
    augmented: Path
    synthesized: Path
    pseudo_labels: Path | None = None
    teacher: Path | None = None


def train(  # noqa: PLR0913  (the inputs of a stage, each by its name)
    params: TrainParams,
    config: WorkspaceConfig,
    *,
    round_number: int,
    rounds: int,
    folders: InputFolders,
    workspace: Path,
    output: Path,
    encoder: EncoderHandle | None = None,
    inputs: Path | None = None,
    progress: Progress = silent,
) -> None:
    """Write `models/<round>`: the chosen model, the candidates, out-of-fold and pool predictions, and the decision.

    If the loop has stopped or no pseudo-label was kept, only a decision with the reason is written. After a kill, the
    next run resumes from `.seedling/unfinished/`, which is cleared at the end. If the environment names a launcher, its
    processes do the work: the leader does all of it, the others return after cross-validation.

    rounds: maximum number of rounds.
    inputs: folder of params.yaml and data/ for the launched processes; the workspace if None.
    """
    previous = _previous_decision(folders)
    if previous and (skipped := _skip_decision(previous, round_number, rounds, folders)):
        _write_skipped(output, skipped)
        return
    if launcher := os.environ.get(LAUNCH):
        run_by_launcher(launcher, f"train@{round_number}", workspace, output, progress, inputs=inputs)
        return
    progress("compute features", 0, None)
    classes = files.classes_of(folders.validated)
    data, frame, maker = _training_data(params, config, classes, round_number, folders, workspace, encoder, progress)
    previous_model = None if folders.teacher is None else PreviousModel.read(folders.teacher)
    evaluation_rows = _evaluation_rows(frame, classes, params)
    round_inputs = RoundInputs(params, config, classes, data, frame, evaluation_rows, previous_model)
    release_freed_memory()  # of images and their parts, before the folds' copies
    loop = Loop(round_number, rounds, folders.teacher, previous)
    with single_threaded():
        results = _run_round(loop, round_inputs, output, progress)
    if results is None:
        return
    save_features(maker, output)
    files.write_predictions(output, data.rows, frame, results.predictions, results.label_weights)
    files.write_validation_predictions(output, results.predictions)
    files.write_losses(output, data.tally)
    files.write_seconds(workspace, f"train@{round_number}", data.tally)
    _write_json_files(output, round_inputs, results)
    files.manifest(round_number, data.rows).write(output / MANIFEST)
    for unfinished in Workspace(workspace).unfinished.glob(f"train@{round_number}-*"):
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_skipped(output: Path, decision: RoundDecision) -> None:
    decision.record.write(output / DECISION)
    RoundManifestRecord(stage=f"train@{decision.round}", skipped=decision.reason).write(output / MANIFEST)


@dataclass(frozen=True)
class RoundInputs:
    """What a round is computed from.

    frame: the labeled and the validation rows; previous_model: a member of this round's model, None in round 0.
    """

    params: TrainParams
    config: WorkspaceConfig
    classes: list[str]
    data: TrainingData
    frame: pd.DataFrame
    evaluation_rows: EvaluationRows
    previous_model: PreviousModel | None = None


@dataclass(frozen=True)
class RoundResults:
    """The results of a round, before they are written.

    predictions: the chosen model's; probabilities: (n_evaluated, n_classes) per candidate; label_weights:
    (n_fold_models, n_labeled); analyses: without content after round 0.
    """

    trial: Trial
    choice: Choice
    predictions: Predictions
    probabilities: dict[Candidate, NDArray[np.float64]]
    round_decision: RoundDecision
    label_weights: NDArray[np.float64]
    analyses: AnalysesRecord


def _run_round(loop: Loop, inputs: RoundInputs, output: Path, progress: Progress) -> RoundResults | None:
    """Try the candidates, choose, and decide; the final models are written to `output`.

    Returns None in a launched process that does not lead: it is done after cross-validation.
    """
    params, config, data, evaluation_rows = inputs.params, inputs.config, inputs.data, inputs.evaluation_rows
    trial = try_candidates(data, params, config, evaluation_rows, loop, progress)
    if not this_process().leads:
        return None
    previous_model = inputs.previous_model
    choice = choose_and_fit(trial, evaluation_rows, config.seed, previous_model, output)
    probabilities = {candidate: calibrated(logits, evaluation_rows) for candidate, logits in trial.trained.items()}
    if previous_model is not None:
        trial.trained = {PREVIOUS_MODEL: previous_model.logits, **trial.trained}
        previous_model.copy_members(output)
    predictions = choice.combine(trial.trained)
    round_decision = decide(loop, previous_model, predictions, evaluation_rows, data, params, config)
    label_weights = _label_weights(choice.members, data) if previous_model is None else previous_model.label_weights
    analyses = _analyses(inputs) if loop.number == 0 else AnalysesRecord()
    return RoundResults(trial, choice, predictions, probabilities, round_decision, label_weights, analyses)


def _write_json_files(output: Path, inputs: RoundInputs, results: RoundResults) -> None:
    """Write candidates.json, decision.json and model.json."""
    params, config, classes, evaluation_rows = inputs.params, inputs.config, inputs.classes, inputs.evaluation_rows
    contributions = step_contributions(results.probabilities, evaluation_rows, params.bootstrap_draws, config.seed)
    candidates = CandidatesRecord(
        candidates=candidate_table(results.trial.trained, results.choice, evaluation_rows),
        left_out=results.trial.left_out_records(),
        step_contributions=tuple(contributions),
        **dict(results.analyses),
    )
    candidates.write(output / CANDIDATES)
    results.round_decision.record.write(output / DECISION)
    selective_prediction = abstention(
        evaluation_rows.select(results.predictions),
        evaluation_rows.truth,
        params.target_selective_accuracy,
        evaluation_rows.out_of_scope(results.predictions),
        classes.index(NOTHING) if NOTHING in classes else None,
    )
    previous_members = () if inputs.previous_model is None else inputs.previous_model.members
    model = model_record(results.choice, results.trial, previous_members, classes, config, selective_prediction)
    model.write(output / MODEL)


def _analyses(inputs: RoundInputs) -> AnalysesRecord:
    """The analyses of round 0; None for an analysis with too few rows."""
    config, data, frame, evaluation_rows = inputs.config, inputs.data, inputs.frame, inputs.evaluation_rows
    origins = frame.loc[frame["split"] == "train", "origin"].tolist()
    return AnalysesRecord(
        learning_curve=learning_curve(data, evaluation_rows),
        repeated=repeated_cross_validation(data, evaluation_rows, config),
        unknown_classes=unknown_classes(data, evaluation_rows, inputs.classes, config),
        unseen_sources=unseen_sources(data, evaluation_rows, origins, config),
    )


def _label_weights(members: tuple[Candidate, ...], data: TrainingData) -> NDArray[np.float64]:
    """(n_fold_models, n_labeled): label weights if more than half of the members use them, else ones."""
    n_fold_models = len(data.rows.folds) + 1
    loss_counts = Counter(member.loss for member in members if member.loss in LABEL_WEIGHTED_LOSSES)
    if 2 * loss_counts.total() <= len(members):
        return np.ones((n_fold_models, len(data.rows.labeled)))
    loss = loss_counts.most_common(1)[0][0]
    return np.stack([data.label_weights(fold_index, loss) for fold_index in range(n_fold_models)])


def _previous_decision(folders: InputFolders) -> DecisionRecord | None:
    if folders.teacher is None:
        return None
    return DecisionRecord.read(folders.teacher / DECISION)


def _skip_decision(
    previous: DecisionRecord, round_number: int, rounds: int, folders: InputFolders
) -> RoundDecision | None:
    """The decision "skipped" with its reason; None if the round must be trained."""
    n_pseudo_labels = 0 if folders.pseudo_labels is None else read_manifest(folders.pseudo_labels).rows.kept
    if previous.stop:
        reason = previous.reason if previous.decision == "skipped" else f"the loop stopped after round {previous.round}"
    elif round_number > rounds:
        reason = f"params and effort ask for {rounds} rounds"
    elif n_pseudo_labels == 0:
        reason = "no pseudo-label was kept"
    else:
        return None
    return RoundDecision(round_number, "skipped", True, reason, previous.accepted_round, previous.rows)


def _training_data(  # noqa: PLR0913  (the folders and settings that rows and features are computed from)
    params: TrainParams,
    config: WorkspaceConfig,
    classes: list[str],
    round_number: int,
    folders: InputFolders,
    workspace: Path,
    encoder: EncoderHandle | None,
    progress: Progress,
) -> tuple[TrainingData, pd.DataFrame, FeatureMaker]:
    """The rows and their features, the labeled and validation rows as a frame, and the fitted feature maker."""
    pool_rows = params.pool_rows or POOL_ROWS[config.effort]
    rows = training_rows(
        classes,
        validated=folders.validated,
        augmented=folders.augmented,
        synthesized=folders.synthesized,
        pseudo_labels=folders.pseudo_labels,
        seed=config.seed,
        pool_rows=pool_rows,
    )
    maker = _feature_maker(params, config, folders, workspace, encoder)
    read_any = PayloadReader.of(folders.collected, folders.augmented, folders.synthesized)
    read_collected = PayloadReader.of(folders.collected)
    inputs = maker.of_rows(rows.ids.tolist(), read_any, fit=folders.teacher is None, progress=progress)
    mixin_rows = mixed_in_rows(folders.validated, pool_rows, config.seed)
    columns = ["id", "split", "fold", "label", "label_source", "group", "origin"]
    splits = ["train", "validation", "out_of_scope"]
    validated_rows = read(folders.validated, columns, splits=splits).set_index("id")
    validation_ids = validated_rows[validated_rows["split"] == "validation"].index.tolist()
    out_of_scope_ids = validated_rows[validated_rows["split"] == "out_of_scope"].index.tolist()
    validation = maker.of_rows([*validation_ids, *out_of_scope_ids], read_collected, fit=False)
    frame = validated_rows.loc[[*rows.ids[rows.labeled], *validation_ids]].reset_index()
    mixed_in = mixin_rows[["label", "weight"]].to_records().tolist()
    other_rows = [validation_ids, out_of_scope_ids, mixed_in]
    key = unfinished_key(params, config, rows, other_rows, maker, folders.teacher)
    mixin = _mixin(mixin_rows, maker, folders) if round_number == 0 and params.mixin else None
    steps = params.steps or GRADIENT_STEPS[config.effort]
    data = TrainingData(
        rows=rows,
        inputs=inputs,
        validation=validation,
        context=FitContext(len(classes), config.seed, steps, mixin=mixin, maker=maker),
        pseudo_labeled=round_number > 0,
        scratch=Workspace(workspace).unfinished / f"train@{round_number}-{key}",
    )
    return data, frame, maker


def _feature_maker(
    params: TrainParams,
    config: WorkspaceConfig,
    folders: InputFolders,
    workspace: Path,
    encoder: EncoderHandle | None,
) -> FeatureMaker:
    """A new feature maker in round 0, later the teacher's: all rounds have the same rows, so it is fitted once."""
    if folders.teacher is None:
        return make_features(encoder, params.image_side, config, Workspace(workspace).feature_cache)
    return load_features(folders.teacher, config.modality, workspace)


def unfinished_key(
    params: TrainParams,
    config: WorkspaceConfig,
    rows: TrainingRows,
    other_rows: Sequence[Any],
    maker: FeatureMaker,
    teacher: Path | None,
) -> str:
    """A hash of everything that unfinished work depends on: work under another key is never resumed.

    Ids are hashes of the contents, so that the folders themselves need not be read. other_rows: the ids of validation
    rows and the mixed-in rows; teacher: whose features the round uses, None in round 0.
    """
    fitted = [] if teacher is None else [path.read_bytes() for path in sorted(teacher.glob(FEATURE_FILES))]
    parts = [
        params.model_dump_json(),
        config.model_dump_json(),
        rows.digest(),
        repr(other_rows),
        str(getattr(maker, "key", "")),
        *(hashlib.blake2b(content).hexdigest() for content in fitted),
    ]
    return hashlib.blake2b("\x1f".join(parts).encode(), digest_size=8).hexdigest()


def _mixin(rows: pd.DataFrame, maker: FeatureMaker, folders: InputFolders) -> Mixin | None:
    """Another dataset's rows as learner inputs; None if it has no rows or fewer than two classes."""
    labels, names = pd.factorize(rows["label"], sort=True)
    if len(names) < 2:
        return None
    inputs = maker.of_rows(rows.index.tolist(), PayloadReader.of(folders.collected), fit=False)
    return Mixin(inputs, labels.astype(np.int64), rows["weight"].to_numpy(dtype=np.float64), len(names))


def _evaluation_rows(frame: pd.DataFrame, classes: list[str], params: TrainParams) -> EvaluationRows:
    """Select the human-labeled rows that some fold model does not see; if there are none, such rows labeled by rules.

    Relabeled rows are excluded: they agree with the models by construction.
    """
    labeled = (frame["split"] == "train").to_numpy()
    held_out = (frame["fold"].notna() & (frame["label_source"] != "repaired")).to_numpy() | ~labeled
    held_out_by_humans = frame["label_source"].isin(HUMAN_SOURCES).to_numpy() & held_out
    chosen = held_out_by_humans if held_out_by_humans.any() else held_out
    evaluated = frame[chosen | ~labeled]
    truth = class_indices(evaluated["label"], classes)
    weights = np.ones(len(truth))
    if params.choose_by == "balanced_log_loss" and len(truth):
        weights = balanced(np.eye(len(classes))[truth], weights)
    return EvaluationRows(
        truth=truth,
        labeled_index=np.flatnonzero(chosen[labeled]),
        groups=evaluated["group"].to_numpy(dtype=str),
        weights=weights,
        n_validation=int((~labeled).sum()),
    )
