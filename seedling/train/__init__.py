"""train: learners compared by cross-validation, out-of-fold predictions, and a decision against the round before.

python -m seedling.runner train@0
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seedling.config.params import NOTHING, TrainParams, WorkspaceConfig
from seedling.dataset.generation import MANIFEST, digest, payloads, read, read_manifest, write_json
from seedling.dataset.training_rows import mixed_in_rows, training_rows
from seedling.features.classical import FeatureMaker
from seedling.features.encoder_handle import EncoderHandle
from seedling.label_quality.label_weights import TRUSTED
from seedling.models.device import release_freed_memory
from seedling.models.losses import balanced
from seedling.models.model import single_threaded
from seedling.models.saving import load_features, make_features, save_features
from seedling.models.training import FitContext, Mixin
from seedling.parallel.executor import this_process
from seedling.parallel.launcher import LAUNCH, launched
from seedling.progress import Progress, silent
from seedling.records.results import read_decision
from seedling.train import files
from seedling.train.choice import Judged, abstention, calibrated, candidate_table
from seedling.train.comparison import Loop, decision_of
from seedling.train.cross_validation import TrainingData
from seedling.train.learning_curve import learning_curve
from seedling.train.repeated import repeated
from seedling.train.round_decision import RoundDecision
from seedling.train.step_contributions import step_contributions
from seedling.train.tally import Candidate
from seedling.train.trial import choose_and_fit, try_candidates
from seedling.train.unknown import unknown_classes
from seedling.train.unseen_sources import unseen_sources

STEPS = {"quick": 150, "normal": 240, "thorough": 1500}  # of what learns by gradients
POOL_ROWS = {"quick": 10_000, "normal": 30_000, "thorough": 100_000}


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
    facts: WorkspaceConfig,
    *,
    round_number: int,
    rounds: int,
    sources: Sources,
    workspace: Path,
    output: Path,
    encoder: EncoderHandle | None = None,
    inputs: Path | None = None,
    progress: Progress = silent,
) -> None:
    """Writes `models/<round>`: the chosen model, the table of candidates, out-of-fold and pool predictions, the decision.

    Where the loop has stopped before, or no pseudo-label was kept, only a decision that says so is written. After a kill
    the next run goes on where this one was: in `.seedling/unfinished/`, which is cleared at the end. Where the environment
    names a launcher its processes do the work; the one that leads does all of this, the others are done when the folds are.
    inputs: the folder of params.yaml and data/ that these processes read; the workspace if None.
    """
    previous = _previous_verdict(sources)
    if previous and (skipped := _skip(previous, round_number, rounds, sources)):
        write_json(output / "decision.json", skipped.as_json())
        write_json(output / MANIFEST, {"stage": f"train@{round_number}", "skipped": skipped.reason})
        return
    if launcher := os.environ.get(LAUNCH):
        launched(launcher, f"train@{round_number}", workspace, output, progress, inputs=inputs)
        return
    progress("compute features", 0, None)
    classes = files.classes_of(sources.validated)
    bench, frame, maker = _training_data(params, facts, classes, round_number, sources, workspace, encoder, progress)
    judged = _judged(frame, classes, params)
    release_freed_memory()  # of images and their parts, before the folds' copies
    with single_threaded():
        trial = try_candidates(bench, params, facts, judged, sources.teacher, progress)
        if not this_process().leads:
            return
        choice = choose_and_fit(trial, judged, facts.seed, sources.teacher, output)
        trained = trial.trained
        said = {one: calibrated(trained[one], judged).astype(np.float32)[None] for one in trained}
        predictions = choice.combine(trained)
        loop = Loop(round_number, rounds, sources.teacher, previous)
        round_decision, said = decision_of(loop, said, predictions, judged, bench, params, facts)
        trust = _trust_of(choice.members, bench)
        curve = learning_curve(bench, judged) if round_number == 0 else None
        again = repeated(bench, judged, facts) if round_number == 0 else None
        unknown = unknown_classes(bench, judged, classes, facts) if round_number == 0 else None
        origins = frame.loc[frame["split"] == "train", "origin"].tolist()
        unseen = unseen_sources(bench, judged, origins, facts) if round_number == 0 else None
    save_features(maker, output)
    files.write_predictions(output, bench.rows, frame, predictions, trust)
    files.write_candidates(output, said)
    files.write_losses(output, bench.said)
    files.write_seconds(workspace, f"train@{round_number}", bench.said)
    table = candidate_table(trained, choice, judged)
    firsts = {one: probabilities[0].astype(np.float64) for one, probabilities in said.items()}
    learnt = {
        "tried": table,
        "left_out": trial.left_out_as_json(),
        "step_contributions": step_contributions(firsts, judged, params.bootstrap_draws, facts.seed),
        "learning_curve": curve,
        "repeated": again,
        "unknown_classes": unknown,
        "unseen_sources": unseen,
    }
    write_json(output / "candidates.json", learnt)
    write_json(output / "decision.json", round_decision.as_json())
    nothing = classes.index(NOTHING) if NOTHING in classes else None
    abstain = abstention(
        judged.of(predictions), judged.truth, params.target_selective_accuracy, judged.outside(predictions), nothing
    )
    write_json(output / "model.json", choice.as_json(classes, facts, round_number, bench.halves, abstain))
    folders = {name: folder for name, folder in vars(sources).items() if name != "teacher"}
    write_json(output / MANIFEST, files.manifest(round_number, bench.rows, folders))
    for unfinished in (workspace / ".seedling" / "unfinished").glob(f"train@{round_number}-*"):
        shutil.rmtree(unfinished, ignore_errors=True)


def _trust_of(members: tuple[Candidate, ...], bench: TrainingData) -> NDArray[np.float64]:
    """(n_lineages, n_labeled): the trust in the labels, where the chosen model's main part used one; else ones."""
    used = Counter(one.loss for one in members if one.loss in TRUSTED)
    if 2 * used.total() <= len(members):
        return np.ones((len(bench.rows.folds) + 1, len(bench.rows.labeled)))
    loss = used.most_common(1)[0][0]
    return np.stack([bench.trust(place, loss) for place in range(len(bench.rows.folds) + 1)])


def _previous_verdict(sources: Sources) -> dict[str, Any] | None:
    if sources.teacher is None:
        return None
    return read_decision(sources.teacher / "decision.json")


def _skip(previous: Mapping[str, Any], round_number: int, rounds: int, sources: Sources) -> RoundDecision | None:
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
    return RoundDecision(round_number, "skipped", True, reason, previous["accepted_round"], previous["rows"])


def _training_data(
    params: TrainParams,
    facts: WorkspaceConfig,
    classes: list[str],
    round_number: int,
    sources: Sources,
    workspace: Path,
    encoder: EncoderHandle | None,
    progress: Progress,
) -> tuple[TrainingData, pd.DataFrame, FeatureMaker]:
    """The rows and their features; the labeled and validation rows as a frame; the fitted features."""
    rows = training_rows(
        classes,
        validated=sources.validated,
        augmented=sources.augmented,
        synthesized=sources.synthesized,
        pseudo_labels=sources.pseudo_labels,
        seed=facts.seed,
        pool_rows=params.pool_rows or POOL_ROWS[facts.effort],
    )
    # Every round has the same rows: what round 0 learnt of their features holds for all.
    maker = (
        load_features(sources.teacher, facts.modality, workspace)
        if sources.teacher
        else make_features(encoder, params.image_side, facts)
    )
    folders = [sources.collected, sources.augmented, sources.synthesized]
    inputs = maker.of_rows(
        rows.ids.tolist(), partial(payloads, folders), fit=sources.teacher is None, progress=progress
    )
    mixed = mixed_in_rows(sources.validated, params.pool_rows or POOL_ROWS[facts.effort], facts.seed)
    columns = ["id", "split", "fold", "label", "label_source", "group", "origin"]
    known = read(sources.validated, columns, splits=["train", "validation", "out_of_scope"]).set_index("id")
    held_out = known[known["split"] == "validation"].index.tolist()
    outside = known[known["split"] == "out_of_scope"].index.tolist()
    validation = maker.of_rows([*held_out, *outside], partial(payloads, [sources.collected]), fit=False)
    frame = known.loc[[*rows.ids[rows.labeled], *held_out]].reset_index()
    key = hashlib.blake2b(
        "".join(
            [
                params.model_dump_json(),
                facts.model_dump_json(),
                *(digest(one) for one in vars(sources).values() if one),
                str(getattr(maker, "key", "")),
            ]
        ).encode(),
        digest_size=8,
    ).hexdigest()
    bench = TrainingData(
        rows=rows,
        inputs=inputs,
        validation=validation,
        setting=FitContext(
            len(classes),
            facts.seed,
            params.steps or STEPS[facts.effort],
            mixin=_mixin(mixed, maker, sources) if round_number == 0 and params.mixin else None,
            maker=maker,
        ),
        pseudo_labeled=round_number > 0,
        scratch=workspace / ".seedling" / "unfinished" / f"train@{round_number}-{key}",
    )
    return bench, frame, maker


def _mixin(rows: pd.DataFrame, maker: FeatureMaker, sources: Sources) -> Mixin | None:
    """Another dataset's rows as the learners take them; None where there are none, or too few classes to tell apart."""
    labels, names = pd.factorize(rows["label"], sort=True)
    if len(names) < 2:
        return None
    inputs = maker.of_rows(rows.index.tolist(), partial(payloads, [sources.collected]), fit=False)
    return Mixin(inputs, labels.astype(np.int64), rows["weight"].to_numpy(dtype=np.float64), len(names))


def _judged(frame: pd.DataFrame, classes: list[str], params: TrainParams) -> Judged:
    """Rows that people labeled and that some model does not see; where there are none, such rows that rules labeled. None that were
    relabeled: they agree with the models by construction.
    """
    labeled = (frame["split"] == "train").to_numpy()
    held_out = (frame["fold"].notna() & (frame["label_source"] != "repaired")).to_numpy() | ~labeled
    by_hand = (frame["label_source"] == "human").to_numpy() & held_out
    chosen = by_hand if by_hand.any() else held_out
    used = frame[chosen | ~labeled]
    number = {label: place for place, label in enumerate(classes)}
    truth = np.array([number[label] for label in used["label"]], dtype=np.int64)
    weights = np.ones(len(truth))
    if params.choose_by == "balanced_log_loss" and len(truth):
        weights = balanced(np.eye(len(classes))[truth], weights)
    return Judged(
        truth=truth,
        place=np.flatnonzero(chosen[labeled]),
        groups=used["group"].to_numpy(dtype=str),
        weights=weights,
        validation=int((~labeled).sum()),
    )
