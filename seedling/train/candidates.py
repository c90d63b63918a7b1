"""What is tried in a round: learners, ingredients and losses, as far as the time budget of the effort goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seedling.config.params import TrainParams, WorkspaceConfig
from seedling.dataset.training_rows import INGREDIENTS, TrainingRows
from seedling.errors import InputError
from seedling.files.reading import read_json
from seedling.label_quality.label_weights import TRUSTED
from seedling.models.losses import CONSISTENCY, MIXIN, NETWORK_LOSSES
from seedling.train.cross_validation import TrainingData
from seedling.train.tally import Candidate

BUDGET = {"quick": 60.0, "normal": 200.0, "thorough": 7200.0}  # seconds of one core, a round
HEADS = ("logistic_regression", "svm", "random_forest")
DENSE_HEADS = ("logistic_regression", "svm")  # trees say little of hundreds of directions that all mean a bit
MORE_HEADS = ("nearest_neighbors", "boosted_trees")  # worth their time where time is no matter
PRETRAINING_IMAGES = 200  # fewer say too little about what images have in common
UNEVEN = 2.0  # the largest class over the smallest, from where on losses for imbalance are tried
ENOUGH_TO_DOUBT = 60  # labeled rows: with fewer, a row that stands apart is more likely rare than wrong
ENOUGH_A_CLASS = 5  # of them: a model of one or two rows a class doubts nearly every row


def first_candidates(
    params: TrainParams,
    facts: WorkspaceConfig,
    rows: TrainingRows,
    *,
    mixin: bool = False,
    has_encoder: bool = False,
) -> list[Candidate]:
    """Round 0: each head on collected rows alone, with children, and with all; what learns by gradients on all, and where there is
    another dataset (mixin) with and without it.
    """
    encoded, thorough = has_encoder, facts.effort == "thorough"
    default = [*DENSE_HEADS]  # in the order in which the budget is spent
    if encoded and facts.effort != "quick":
        default.append("fine_tuned")
    if not encoded and facts.modality == "image" and facts.effort != "quick":
        default.append("network")
    if not encoded or thorough:
        default.append("random_forest")
    default += MORE_HEADS if thorough else ()
    learners: Sequence[str] = params.candidates or default
    for name, needs in (("network", not encoded and facts.modality == "image"), ("fine_tuned", encoded)):
        if name in learners and not needs:
            why = (
                "learns from small images without an encoder"
                if name == "network"
                else "tunes the encoder, and there is none"
            )
            remedy = "set `encoder` to null" if name == "network" and encoded else "leave it out"
            raise InputError(f"params.yaml: train.candidates: '{name}' {why}: {remedy}.")
    recipes = [INGREDIENTS[: many + 1] for many in range(len(INGREDIENTS))]
    present = {kind for kind in INGREDIENTS if (rows.ingredient == kind).any()}
    recipes = [recipe for recipe in recipes if recipe[-1] in present]
    images = int(((rows.ingredient == "pool") | (rows.ingredient == "collected")).sum())
    of_pool = len(rows.pool) > 0 and images >= PRETRAINING_IMAGES and params.losses is None
    found = []
    for learner in learners:
        if learner == "network":
            found += [Candidate(learner, recipes[-1], CONSISTENCY)] if of_pool else []
            found += [Candidate(learner, recipes[-1], MIXIN)] if mixin else []
            found.append(Candidate(learner, recipes[-1]))  # the pool is no help everywhere, nor is another dataset
        else:
            found += [Candidate(learner, recipes[0], MIXIN)] if mixin and learner == "fine_tuned" else []
            found += [Candidate(learner, recipe) for recipe in (recipes[:1] if learner == "fine_tuned" else recipes)]
    return found


def further_candidates(
    params: TrainParams, facts: WorkspaceConfig, rows: TrainingRows, best: Sequence[Candidate]
) -> list[Candidate]:
    """The best recipe of each learner under other losses, where the labels give cause to try them."""
    losses: list[str] = [one for one in params.losses or [] if one not in {"plain", MIXIN}]
    if params.losses is None:
        counts = rows.targets[rows.labeled].sum(axis=0)
        if len(rows.labeled) >= max(ENOUGH_TO_DOUBT, ENOUGH_A_CLASS * len(counts)):
            losses += TRUSTED
        if counts.max() >= UNEVEN * max(counts.min(), 1):
            losses += ["balanced", "logit_adjusted"]
        if facts.effort == "thorough":
            losses += list(NETWORK_LOSSES)
    usual: tuple[str, ...] = DENSE_HEADS if facts.effort != "thorough" else (*HEADS, *MORE_HEADS)
    mixed_in = bool((rows.ingredient == "synthesize").any())
    return [
        Candidate(one.learner, one.recipe, loss)
        for one in best
        for loss in losses
        if (one.learner == "network" and (loss != "second_head" or mixed_in))
        or (one.learner in usual and loss not in (*NETWORK_LOSSES, CONSISTENCY))
        if one.learner != "network" or facts.effort == "thorough" or params.losses is not None
    ]


def later_candidates(teacher: Path) -> tuple[list[Candidate], list[Candidate]]:
    """What voted in the round before; and what else was best of each learner there, and all that is taken over, so that no choice is lost."""
    table = read_json(teacher / "candidates.json")["tried"]
    tried = [
        (entry, Candidate(entry["learner"], tuple(entry["recipe"]), entry["loss"]))
        for entry in table
        if entry["learner"] != "ensemble"
    ]
    best: dict[str, tuple[dict[str, Any], Candidate]] = {}
    for entry, one in tried:
        rival = best.get(one.learner)
        if rival is None or _rank(entry) < _rank(rival[0]):
            best[one.learner] = (entry, one)
    voted = [one for entry, one in tried if entry["chosen"]]
    others = [one for _, one in tried if one.carried or best[one.learner][1] == one]
    return voted, [one for one in others if one not in voted]


def _rank(entry: Mapping[str, Any]) -> tuple[bool, float]:
    """Without a row to judge by the chosen one is best."""
    return (False, entry["choice_loss"]) if entry["log_loss"] is not None else (not entry["chosen"], 0.0)


def within_budget(
    candidates: Sequence[Candidate], bench: TrainingData, budget: float, *, at_least: int = 1
) -> tuple[list[Candidate], float, dict[Candidate, float]]:
    """Those that fit the budget in their order, the first `at_least` always, and their seconds; and those of each of the others.

    The seconds are predicted, not measured: what is tried must not depend on how busy the machine is.
    """
    spent = 0.0
    kept: list[Candidate] = []
    left_out: dict[Candidate, float] = {}
    for one in candidates:
        seconds = predicted_seconds(one, bench)
        if len(kept) >= at_least and spent + seconds > budget:
            left_out[one] = seconds
            continue
        kept.append(one)
        spent += seconds
    return kept, spent, left_out


def predicted_seconds(candidate: Candidate, bench: TrainingData) -> float:
    """What cross-validating it takes on one usual core, roughly, as it was seen on sets of a few thousand rows."""
    rows = bench.rows
    own = np.isin(rows.ingredient, candidate.recipe).sum()
    halves = bench.halves(candidate)
    fitted = float(own + (len(rows.pool) / 2 if bench.pseudo_labeled else 0))
    asked = float(len(rows.pool) / halves + len(rows.labeled) / max(1, len(rows.folds)) + len(bench.validation))
    wide = float(min(bench.inputs.features.shape[1], 2_000))
    classes = float(bench.classes)
    models = (len(rows.folds) + 1) * halves
    each = {
        "logistic_regression": 5e-9 * fitted * wide * classes,
        "svm": 4e-10 * fitted * (fitted + asked) * wide,
        "random_forest": 2e-6 * 100 * np.sqrt(wide) * fitted + 1e-5 * asked,
        "nearest_neighbors": 3e-10 * fitted * (fitted + asked) * wide,
        "boosted_trees": 1e-8 * 60 * classes * fitted * wide,
    }
    if candidate.learner == "network":
        side = 0 if bench.inputs.images is None else bench.inputs.images.shape[1]
        a_step = 0.011 * (side / 16) ** 2 * {CONSISTENCY: 2.5, MIXIN: 2.0}.get(candidate.loss, 1.0)
        return float(models * bench.setting.steps * a_step)
    if candidate.learner == "fine_tuned":
        from seedling.models.fine_tuned import predicted_seconds_of_model

        return models * predicted_seconds_of_model(bench.setting, fitted, asked) * (2 if candidate.loss == MIXIN else 1)
    return float(models * each[candidate.learner])
