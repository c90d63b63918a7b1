"""One round's trial: cross-validate the candidates within the budget, choose among them, and fit the final models."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from seedling.config.params import TrainParams, WorkspaceConfig
from seedling.errors import Diverged
from seedling.features.encoded_features import EncodedFeatures
from seedling.models.saving import save_learner
from seedling.parallel.cluster import on_cluster
from seedling.parallel.executor import pieces_at_once, this_process
from seedling.progress import Progress
from seedling.records.candidates import LeftOutRecord
from seedling.train.candidates import (
    BUDGET_SECONDS,
    MIN_PRETRAINING_IMAGES,
    first_candidates,
    first_within_budget,
    further_candidates,
    further_networks,
    later_candidates,
    predicted_seconds,
    within_budget,
)
from seedling.train.choice import Choice, EvaluationRows, best_per_learner, blend, choose, loss_of
from seedling.train.comparison import Loop
from seedling.train.cross_validation import Predictions, cross_validate, pool_logits, pool_std
from seedling.train.final_models import discard_final_models, take_final_models
from seedling.train.previous_model import PreviousModel
from seedling.train.tally import Candidate
from seedling.train.training_data import TrainingData
from seedling.workspace import half_folder


@dataclass
class Trial:
    """The cross-validated candidates, and those left out, with predicted seconds or the reason of failure.

    round_number: of this round; saved: candidates whose final models are written.
    """

    data: TrainingData
    round_number: int = 0
    trained: dict[Candidate, Predictions] = field(default_factory=dict)
    left_out: dict[Candidate, float | str] = field(default_factory=dict)
    saved: set[Candidate] = field(default_factory=set)

    def run(self, candidates: Sequence[Candidate], seconds: float, progress: Progress) -> None:
        """Cross-validate more candidates. seconds: the predicted duration."""
        data = self.data
        data.tally.expect_models(max(1, len(data.rows.folds)) * len(candidates) * data.n_models, progress)
        trained, failed = cross_validate(data, candidates, seconds)
        self.trained.update(trained)
        self.left_out.update(failed)

    def file_of(self, candidate: Candidate) -> str:
        """The name of a candidate's files, without suffix: they lie beside those of earlier rounds."""
        number = self.round_number
        return candidate.name if number == 0 else f"{candidate.name}-round{number}"

    def left_out_records(self) -> tuple[LeftOutRecord, ...]:
        """The entries of `left_out` in candidates.json."""
        return tuple(
            LeftOutRecord(
                learner=candidate.learner,
                recipe=candidate.trained_on,
                loss=candidate.loss,
                reason=reason if isinstance(reason, str) else f"would take about {reason:.0f} s of one core",
            )
            for candidate, reason in self.left_out.items()
        )


def try_candidates(
    data: TrainingData,
    params: TrainParams,
    config: WorkspaceConfig,
    evaluation_rows: EvaluationRows,
    loop: Loop,
    progress: Progress,
) -> Trial:
    """Cross-validate the round's candidates: in round 0 those within its budget, later those that use pseudo-labels."""
    trial = Trial(data, loop.number)
    if loop.teacher is not None:
        candidates = later_candidates(params, data.rows, loop.teacher)
        trial.run(candidates, _seconds(candidates, data), progress)
        return trial
    budget = params.budget_seconds or BUDGET_SECONDS[config.effort]
    candidates = first_candidates(
        params,
        config,
        data.rows,
        has_mixin=data.context.mixin is not None,
        has_encoder=isinstance(data.context.maker, EncodedFeatures),
        can_evaluate=len(evaluation_rows.truth) > 0,
    )
    affordable, seconds, left_out = first_within_budget(candidates, data, budget)
    trial.left_out.update(left_out)
    _run_pretrained(trial, affordable, progress)
    if len(evaluation_rows.truth):
        best = best_per_learner(trial.trained, evaluation_rows)
        losses = {candidate: loss_of(candidate, trial.trained, evaluation_rows) for candidate in best}
        further = further_networks([*affordable, *left_out], losses)
        further += further_candidates(params, config, data.rows, best)
        affordable, seconds, further_left_out = within_budget(further, data, budget - seconds, at_least=0)
        trial.left_out.update(further_left_out)
        trial.run(affordable, seconds, progress)
    return trial


def _run_pretrained(trial: Trial, candidates: Sequence[Candidate], progress: Progress) -> None:
    """Cross-validate the candidates of a round; the network's body is pretrained beside those that do not need it.

    Pretraining uses one core. It runs alone where memory is small, and where several processes take each step together.
    """
    networks = [candidate for candidate in candidates if candidate.learner == "network"]
    others = [candidate for candidate in candidates if candidate.learner != "network"]
    if not networks or not others or on_cluster() or this_process().count > 1 or pieces_at_once() == 1:
        trial.data = _pretrained(trial.data, networks, progress)
        trial.run(candidates, _seconds(candidates, trial.data), progress)
        return
    in_order = [*trial.trained, *candidates]  # ties are decided by this order
    with ThreadPoolExecutor(1) as thread:
        pretraining = thread.submit(_pretrained, trial.data, networks, progress)
        trial.run(others, _seconds(others, trial.data), progress)
        trial.data = pretraining.result()
    trial.run(networks, _seconds(networks, trial.data), progress)
    trial.trained = {candidate: trial.trained[candidate] for candidate in in_order if candidate in trial.trained}


def _seconds(candidates: Sequence[Candidate], data: TrainingData) -> float:
    return sum(predicted_seconds(candidate, data) for candidate in candidates)


def _pretrained(data: TrainingData, candidates: Sequence[Candidate], progress: Progress) -> TrainingData:
    """Pretrain the network's body if a network is among the candidates.

    It learns from all training images without labels, so that one body serves all fold models.
    """
    rows = np.flatnonzero((data.rows.ingredient == "collected") | (data.rows.ingredient == "pool"))
    has_network, images = any(candidate.learner == "network" for candidate in candidates), data.inputs.images
    if not has_network or images is None or len(rows) < MIN_PRETRAINING_IMAGES:
        return data
    from seedling.models.network import pretrain

    description, steps = "pretrain the network on unlabeled images", data.context.steps
    progress(description, 0, steps)
    context = data.context.of_model(
        checkpoint=None if data.scratch is None else data.scratch / "pretraining",
        watch=lambda step, loss: progress(f"{description} (loss {loss:.2f})", step, steps),
    )
    body = this_process().by_leader(lambda: pretrain(images[rows], context))
    return replace(data, context=data.context.of_model(body=body))


def choose_and_fit(
    trial: Trial, evaluation_rows: EvaluationRows, seed: int, previous_model: PreviousModel | None, output: Path
) -> Choice:
    """Choose among the candidates and write the final models to `output`.

    In a later round, all learners that were trained join the previous model. A candidate whose final training fails is
    removed and the choice is repeated. Raises Diverged if no candidate is left.
    """
    while trial.trained:
        if previous_model is None:
            choice = choose(trial.trained, evaluation_rows, seed)
        else:
            choice = blend(previous_model.logits, previous_model.votes, trial.trained, evaluation_rows)
        failed = _fit_final_models(trial, choice, output)
        if not failed:
            discard_final_models(trial.data)
            return choice
        for candidate, reason in failed.items():
            del trial.trained[candidate]
            trial.left_out[candidate] = reason
    reasons = "; ".join(f"{entry.learner}: {entry.reason}" for entry in trial.left_out_records())
    raise Diverged(
        f"No learner could be trained ({reasons}). Choose other learners in train.candidates in params.yaml."
    )


def _fit_final_models(trial: Trial, choice: Choice, output: Path) -> dict[Candidate, str]:
    """Fit and save the members that this round trained; return the reason of each that failed."""
    needed = [candidate for candidate in trial.trained if candidate in choice.members and candidate not in trial.saved]
    failed: dict[Candidate, str] = {}
    for candidate, models in take_final_models(trial.data, needed).items():
        if isinstance(models, Diverged):
            failed[candidate] = str(models)
            continue
        predictions = trial.trained[candidate]
        predictions.pool[-1] = pool_logits(trial.data, models)
        predictions.pool_std[-1] = pool_std(trial.data, models)
        for half, model in enumerate(models):
            save_learner(model, output / half_folder(half) / trial.file_of(candidate))
        trial.saved.add(candidate)
    return failed
