"""The candidates of a round: learners, training data and losses, as far as the time budget of the effort allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from seedling.config.params import TrainParams, WorkspaceConfig
from seedling.dataset.training_rows import INGREDIENTS, TrainingRows
from seedling.errors import InputError
from seedling.label_quality.label_weights import LABEL_WEIGHTED_LOSSES
from seedling.models.heads import LINEAR
from seedling.models.losses import CONSISTENCY, MIXIN, NETWORK_LOSSES
from seedling.records.candidates import CandidateRecord, CandidatesRecord
from seedling.train.tally import GRADIENT_LEARNERS, Candidate
from seedling.train.training_data import TrainingData
from seedling.workspace import CANDIDATES

BUDGET_SECONDS = {"quick": 60.0, "normal": 200.0, "thorough": 7200.0}  # of one core, per round
HEADS = ("logistic_regression", "encoder_regression", "svm", "random_forest")
# Without trees, which are weak on hundreds of dense features of equal importance.
DENSE_HEADS = ("logistic_regression", "encoder_regression", "svm")
POOL_LEARNERS = ("logistic_regression", "nearest_neighbors")  # of later rounds
MAX_NEIGHBOR_ROWS = 10_000  # labeled and pool; the time of nearest neighbors grows with its square, and they are kept
THOROUGH_HEADS = ("nearest_neighbors", "boosted_trees")  # too slow for their gain at other efforts
MIN_PRETRAINING_IMAGES = 200  # fewer show too little of what the images have in common
MIN_CLASS_RATIO = 2.0  # largest over smallest class; from here on, losses for imbalance are tried
MIN_ROWS_TO_WEIGHT = 60  # labeled rows: with fewer, an outlier is more likely a rare row than a label error
MIN_ROWS_PER_CLASS = 5  # labeled rows: a model of one or two rows per class finds label errors in almost every row


def first_candidates(
    params: TrainParams,
    config: WorkspaceConfig,
    rows: TrainingRows,
    *,
    has_mixin: bool = False,
    has_encoder: bool = False,
    can_evaluate: bool = True,
) -> list[Candidate]:
    """Candidates of round 0: each head on collected rows, plus augmented rows, plus synthesized rows.

    Networks use all rows, with and without another dataset if there is one (has_mixin). Fine-tuning uses collected
    rows. Beside a network that learns from the pool, the plain one is left to `further_networks`, unless there is
    another dataset or there are no evaluation rows (can_evaluate). Raises InputError if train.candidates names a
    learner that the data does not allow.
    """
    learners: Sequence[str] = params.candidates or _default_learners(config, has_encoder)
    _check_learners(learners, config, has_encoder)
    data_choices = [INGREDIENTS[: count + 1] for count in range(len(INGREDIENTS))]
    present = {kind for kind in INGREDIENTS if (rows.ingredient == kind).any()}
    data_choices = [trained_on for trained_on in data_choices if trained_on[-1] in present]
    n_images = int(((rows.ingredient == "pool") | (rows.ingredient == "collected")).sum())
    uses_pool = len(rows.pool) > 0 and n_images >= MIN_PRETRAINING_IMAGES and params.losses is None
    candidates = []
    for learner in learners:
        if learner == "network":
            candidates += [Candidate(learner, data_choices[-1], CONSISTENCY)] if uses_pool else []
            candidates += [Candidate(learner, data_choices[-1], MIXIN)] if has_mixin else []
            candidates += [] if uses_pool and can_evaluate and not has_mixin else [Candidate(learner, data_choices[-1])]
        elif learner == "fine_tuned":
            candidates += [Candidate(learner, data_choices[0], MIXIN)] if has_mixin else []
            candidates += [Candidate(learner, trained_on) for trained_on in data_choices[:1]]
        else:
            candidates += [Candidate(learner, trained_on) for trained_on in data_choices]
    return candidates


def _default_learners(config: WorkspaceConfig, has_encoder: bool) -> list[str]:
    """The learners without train.candidates, in the order in which they use the budget."""
    thorough = config.effort == "thorough"
    learners = [head for head in DENSE_HEADS if has_encoder or head != "encoder_regression"]
    if has_encoder and config.effort != "quick":
        learners.append("fine_tuned")
    if not has_encoder and config.modality == "image" and config.effort != "quick":
        learners.append("network")
    if not has_encoder or thorough:
        learners.append("random_forest")
    learners += THOROUGH_HEADS if thorough else ()
    return learners


def _check_learners(learners: Sequence[str], config: WorkspaceConfig, has_encoder: bool) -> None:
    """Raise InputError if a learner needs images without an encoder, or an encoder, and has none."""
    allowed = {
        "network": not has_encoder and config.modality == "image",
        "fine_tuned": has_encoder,
        "encoder_regression": has_encoder,
    }
    for name, is_allowed in allowed.items():
        if name in learners and not is_allowed:
            reason = (
                "learns from small images without an encoder"
                if name == "network"
                else "needs an encoder, and no encoder is set"
            )
            remedy = "set `encoder` to null" if name == "network" and has_encoder else "leave it out"
            raise InputError(f"params.yaml: train.candidates: '{name}' {reason}: {remedy}.")


def further_candidates(
    params: TrainParams, config: WorkspaceConfig, rows: TrainingRows, best: Sequence[Candidate]
) -> list[Candidate]:
    """Combine each learner's best training data with other losses that the labels give a reason to try."""
    losses: list[str] = [loss for loss in params.losses or [] if loss not in {"plain", MIXIN}]
    if params.losses is None:
        class_counts = rows.targets[rows.labeled].sum(axis=0)
        if len(rows.labeled) >= max(MIN_ROWS_TO_WEIGHT, MIN_ROWS_PER_CLASS * len(class_counts)):
            losses += LABEL_WEIGHTED_LOSSES
        if class_counts.max() >= MIN_CLASS_RATIO * max(class_counts.min(), 1):
            losses += ["balanced", "logit_adjusted"]
        if config.effort == "thorough":
            losses += list(NETWORK_LOSSES)
    heads: tuple[str, ...] = DENSE_HEADS if config.effort != "thorough" else (*HEADS, *THOROUGH_HEADS)
    has_synthesized = bool((rows.ingredient == "synthesize").any())
    return [
        Candidate(candidate.learner, candidate.trained_on, loss)
        for candidate in best
        for loss in losses
        if (candidate.learner == "network" and (loss != "second_head" or has_synthesized))
        or (candidate.learner in heads and loss not in (*NETWORK_LOSSES, CONSISTENCY))
        if candidate.learner != "network" or config.effort == "thorough" or params.losses is not None
    ]


def further_networks(candidates: Sequence[Candidate], losses: Mapping[Candidate, float]) -> list[Candidate]:
    """The plain network, unless the one that learns from the pool is the best of several candidates.

    The pool does not help on all data. Where it does, the trainings of the plain network are saved.

    candidates: of the first trial; losses: log loss of each learner's best candidate.
    """
    best = min(losses, key=lambda candidate: losses[candidate], default=None)
    if best is not None and best.loss == CONSISTENCY and len(losses) > 1:
        return []
    return list(_missing_plain_networks(candidates).values())


def _missing_plain_networks(candidates: Sequence[Candidate]) -> dict[Candidate, Candidate]:
    """The plain network of each candidate that learns from the pool, if it is not a candidate itself."""
    plain = {each: replace(each, loss="plain") for each in candidates if each.loss == CONSISTENCY}
    return {with_pool: network for with_pool, network in plain.items() if network not in candidates}


def first_within_budget(
    candidates: Sequence[Candidate], data: TrainingData, budget: float
) -> tuple[list[Candidate], float, dict[Candidate, float | str]]:
    """As `within_budget`, with seconds in reserve for the plain networks that may follow.

    If a network that learns from the pool does not fit together with the plain one, the plain one takes its place.
    """
    plain = _missing_plain_networks(candidates)
    reserve = sum(predicted_seconds(network, data) for network in plain.values())
    affordable, seconds, left_out = within_budget(candidates, data, budget - reserve)
    too_slow: dict[Candidate, float | str] = {
        each: f"would take about {left_out[each]:.0f} s of one core, and the network without the pool {reserve:.0f} s"
        for each in plain
        if each in left_out
    }
    if not too_slow:
        return affordable, seconds, dict(left_out)
    instead = [plain[each] if each in too_slow else each for each in candidates]
    affordable, seconds, left_out = within_budget(instead, data, budget)
    return affordable, seconds, too_slow | left_out


def later_candidates(params: TrainParams, rows: TrainingRows, teacher: Path) -> list[Candidate]:
    """Candidates of a later round: the learners that learn from pseudo-labels, each with its best data and loss.

    These are logistic regression and nearest neighbors (with at most `MAX_NEIGHBOR_ROWS` rows), or those learners of
    `train.candidates` that are not trained by gradient descent. The model of the round before stays a member, so no
    other learner has to be trained again.
    """
    record = CandidatesRecord.read(teacher / CANDIDATES)
    best: dict[str, CandidateRecord] = {}
    for entry in record.tried:
        rival = best.get(entry.learner)
        if rival is None or _rank(entry) < _rank(rival):
            best[entry.learner] = entry
    allowed = [learner for learner in params.candidates or () if learner not in GRADIENT_LEARNERS]
    n_rows = len(rows.labeled) + len(rows.pool)
    learners: Sequence[str] = allowed or (POOL_LEARNERS if n_rows <= MAX_NEIGHBOR_ROWS else POOL_LEARNERS[:1])
    return [
        Candidate.of(best[learner]) if learner in best else Candidate(learner, INGREDIENTS[:1]) for learner in learners
    ]


def _rank(entry: CandidateRecord) -> tuple[bool, float]:
    """Sort key, smallest is best: the loss of the choice; without evaluation rows, the chosen candidate."""
    return (not entry.chosen, 0.0) if entry.choice_loss is None else (False, entry.choice_loss)


def within_budget(
    candidates: Sequence[Candidate], data: TrainingData, budget: float, *, at_least: int = 1
) -> tuple[list[Candidate], float, dict[Candidate, float]]:
    """Return the candidates that fit the budget, the sum of their seconds, and the seconds of each of the others.

    Candidates are taken in their order, the first `at_least` always. The seconds are predicted, not measured: the
    choice must not depend on the load of the machine.
    """
    total_seconds = 0.0
    affordable: list[Candidate] = []
    left_out: dict[Candidate, float] = {}
    for candidate in candidates:
        seconds = predicted_seconds(candidate, data)
        if len(affordable) >= at_least and total_seconds + seconds > budget:
            left_out[candidate] = seconds
            continue
        affordable.append(candidate)
        total_seconds += seconds
    return affordable, total_seconds, left_out


def predicted_seconds(candidate: Candidate, data: TrainingData) -> float:
    """Predict the seconds of cross-validating a candidate on one core, from timings on a few thousand rows."""
    rows = data.rows
    n_models_per_fold = data.n_models
    n_train = float(
        np.isin(rows.ingredient, candidate.trained_on).sum() + (len(rows.pool) / 2 if data.pseudo_labeled else 0)
    )
    n_predicted = float(
        len(rows.pool) / n_models_per_fold + len(rows.labeled) / max(1, len(rows.folds)) + len(data.validation)
    )
    n_features = float(min(data.inputs.features.shape[1], 2_000))
    n_classes = float(data.classes)
    n_models = (len(rows.folds) + 1) * n_models_per_fold
    seconds_per_model = {
        **dict.fromkeys(LINEAR, 5e-9 * n_train * n_features * n_classes),
        "svm": 4e-10 * n_train * (n_train + n_predicted) * n_features,
        "random_forest": 2e-6 * 100 * np.sqrt(n_features) * n_train + 1e-5 * n_predicted,
        "nearest_neighbors": 3e-10 * n_train * (n_train + n_predicted) * n_features,
        "boosted_trees": 1e-8 * 60 * n_classes * n_train * n_features,
    }
    if candidate.learner == "network":
        side = 0 if data.inputs.images is None else data.inputs.images.shape[1]
        seconds_per_step = 0.011 * (side / 16) ** 2 * {CONSISTENCY: 2.5, MIXIN: 2.0}.get(candidate.loss, 1.0)
        return float(n_models * data.context.steps * seconds_per_step)
    if candidate.learner == "fine_tuned":
        from seedling.models.fine_tuned import predicted_seconds_of_model

        seconds = predicted_seconds_of_model(data.context, n_train, n_predicted)
        return n_models * seconds * (2 if candidate.loss == MIXIN else 1)
    return float(n_models * seconds_per_model[candidate.learner])
