"""One round's trial: what is tried, what failed or did not fit the time, what is chosen, and the models that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from seedling.config.params import TrainParams, WorkspaceConfig
from seedling.errors import Diverged
from seedling.features.encoded_features import EncodedFeatures
from seedling.models.saving import save_learner
from seedling.parallel.executor import this_process
from seedling.progress import Progress
from seedling.train import files
from seedling.train.candidates import (
    BUDGET,
    PRETRAINING_IMAGES,
    first_candidates,
    further_candidates,
    later_candidates,
    within_budget,
)
from seedling.train.choice import Choice, Judged, best_of_learners, choose
from seedling.train.cross_validation import Predictions, TrainingData, cross_validate, fit_final, pool_logits, pool_std
from seedling.train.tally import Candidate


@dataclass
class Trial:
    """What was cross-validated, and what was left out: the seconds that it would take, or why it failed."""

    bench: TrainingData
    trained: dict[Candidate, Predictions] = field(default_factory=dict)
    left_out: dict[Candidate, float | str] = field(default_factory=dict)

    def run(self, candidates: Sequence[Candidate], seconds: float, progress: Progress) -> None:
        """Cross-validates these as well. seconds: that they will take, predicted."""
        bench = self.bench
        bench.said.expect(max(1, len(bench.rows.folds)) * sum(bench.halves(one) for one in candidates), progress)
        found, failed = cross_validate(bench, candidates, seconds)
        self.trained.update(found)
        self.left_out.update(failed)

    def left_out_as_json(self) -> list[dict[str, Any]]:
        """As it is written to candidates.json."""
        return [
            {
                "learner": one.learner,
                "recipe": list(one.recipe),
                "loss": one.loss,
                "reason": why if isinstance(why, str) else f"would take about {why:.0f} s of one core",
            }
            for one, why in self.left_out.items()
        ]


def try_candidates(
    bench: TrainingData,
    params: TrainParams,
    facts: WorkspaceConfig,
    judged: Judged,
    teacher: Path | None,
    progress: Progress,
) -> Trial:
    """Everything that the round tries within its budget; in later rounds beside what is taken over from the teacher."""
    budget = params.budget_seconds or BUDGET[facts.effort]
    voted: list[Candidate] = []
    if teacher is None:
        wanted = first_candidates(
            params,
            facts,
            bench.rows,
            mixin=bench.setting.mixin is not None,
            has_encoder=isinstance(bench.setting.maker, EncodedFeatures),
        )
    else:
        voted, others = later_candidates(teacher)
        wanted = [*voted, *others]
    carried = {one: files.read_carried(teacher, one) for one in wanted if teacher is not None and one.carried}
    wanted = [one for one in wanted if one not in carried]
    # What votes in the accepted model is tried whatever it takes: without it a round may be worse, and no comparison would show that.
    always = max(1, sum(one in voted for one in wanted))
    fitting, seconds, too_long = within_budget(wanted, bench, budget, at_least=always)
    trial = Trial(pretrained(bench, fitting, progress), carried, dict(too_long))
    trial.run(fitting, seconds, progress)
    if teacher is None and trial.trained and len(judged.truth):
        more = further_candidates(params, facts, bench.rows, best_of_learners(trial.trained, judged))
        fitting, seconds, too_long = within_budget(more, bench, budget - seconds, at_least=0)
        trial.left_out.update(too_long)
        trial.run(fitting, seconds, progress)
    return trial


def pretrained(bench: TrainingData, candidates: Sequence[Candidate], progress: Progress) -> TrainingData:
    """Where a network is among the candidates its body learns from all training images, without labels and so once for
    all lineages.
    """
    rows = np.flatnonzero((bench.rows.ingredient == "collected") | (bench.rows.ingredient == "pool"))
    uses, images = any(one.learner == "network" for one in candidates), bench.inputs.images
    if not uses or images is None or len(rows) < PRETRAINING_IMAGES:
        return bench
    from seedling.models.network import pretrain

    what, steps = "pretrain the network on unlabeled images", bench.setting.steps
    progress(what, 0, steps)
    setting = bench.setting.of_model(
        checkpoint=None if bench.scratch is None else bench.scratch / "pretraining",
        watch=lambda step, loss: progress(f"{what} (loss {loss:.2f})", step, steps),
    )
    body = this_process().by_leader(lambda: pretrain(images[rows], setting))
    return replace(bench, setting=bench.setting.of_model(body=body))


def choose_and_fit(trial: Trial, judged: Judged, seed: int, teacher: Path | None, output: Path) -> Choice:
    """The choice, with its models that see all folds in `output`. One whose final training fails is left out of the choice.

    Raises Diverged where no candidate is left.
    """
    while trial.trained:
        choice = choose(trial.trained, judged, seed)
        failed = _fit(trial, choice, teacher, output)
        if not failed:
            return choice
        for one, why in failed.items():
            del trial.trained[one]
            trial.left_out[one] = why
    reasons = "; ".join(f"{one['learner']}: {one['reason']}" for one in trial.left_out_as_json())
    raise Diverged(f"No learner could be trained ({reasons}): choose others in train.candidates, params.yaml.")


def _fit(trial: Trial, choice: Choice, teacher: Path | None, output: Path) -> dict[Candidate, str]:
    """Of the members, and of what later rounds take over whether it is chosen or not; gives what failed, and why."""
    failed: dict[Candidate, str] = {}
    for one, predictions in trial.trained.items():
        if teacher is not None and one.carried:
            files.copy_carried(teacher, output, one)
        elif one in choice.members or one.carried:
            try:
                models = fit_final(trial.bench, one)
            except Diverged as error:
                failed[one] = str(error)
                continue
            predictions.pool[-1] = pool_logits(trial.bench, models)
            predictions.pool_std[-1] = pool_std(trial.bench, models)
            for half, model in enumerate(models):
                save_learner(model, output / f"half-{half}" / one.name)
            if one.carried:
                files.write_carried(output, one, predictions)
    return failed
