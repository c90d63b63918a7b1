"""The final models of candidates, which see all folds and are the ones that are saved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from seedling.errors import Diverged
from seedling.models.saving import Learner
from seedling.parallel.executor import in_threads
from seedling.train.tally import GRADIENT_LEARNERS, Candidate
from seedling.train.training_data import TrainingData


def take_final_models(data: TrainingData, candidates: Sequence[Candidate]) -> dict[Candidate, list[Learner] | Diverged]:
    """As `fit_final_models`, without fitting again the models that cross-validation has fitted; they are given away."""
    fitted: dict[Candidate, list[Learner] | Diverged] = {
        candidate: data.final_models.pop(candidate) for candidate in candidates if candidate in data.final_models
    }
    return fitted | fit_final_models(data, [candidate for candidate in candidates if candidate not in fitted])


def discard_final_models(data: TrainingData) -> None:
    """Discard the final models of candidates that were not chosen.

    How many were fitted early depends on the number of cores, so their losses must not be written.
    """
    if data.rows.folds:
        for candidate in data.final_models:
            data.tally.forget_final_losses(candidate)
    data.final_models.clear()


def fit_final_models(data: TrainingData, candidates: Sequence[Candidate]) -> dict[Candidate, list[Learner] | Diverged]:
    """Fit each candidate's models that see all folds; a failed training's error takes the place of its models.

    All models are fitted at once, so that no core is idle while another fits a candidate's only model.
    """
    fold_index = len(data.rows.folds)

    def fit(task: tuple[Candidate, int]) -> Learner | Diverged:
        try:
            return data.fit(task[0], None, fold_index, task[1])
        except Diverged as error:
            return error

    tasks = longest_first((candidate, half) for candidate in candidates for half in range(data.n_models))
    fitted = dict(zip(tasks, in_threads(fit, tasks), strict=True))
    results: dict[Candidate, list[Learner] | Diverged] = {}
    for candidate in candidates:
        models = [fitted[candidate, half] for half in range(data.n_models)]
        errors = [model for model in models if isinstance(model, Diverged)]
        results[candidate] = errors[0] if errors else [model for model in models if not isinstance(model, Diverged)]
    return results


def submit_early_final_models(
    data: TrainingData, candidates: Sequence[Candidate], threads: ThreadPoolExecutor
) -> dict[Candidate, list[Future[Learner]]]:
    """Start the final models of learners trained by gradient descent on cores that would wait for the last folds.

    They are kept for `take_final_models`, and discarded with their losses if the candidate is not chosen.
    """
    n_folds, n_models = len(data.rows.folds), data.n_models
    gradient_candidates = [candidate for candidate in candidates if candidate.learner in GRADIENT_LEARNERS]
    n_idle = -len(gradient_candidates) * n_folds % data.parallel_trainings
    early = gradient_candidates[:n_idle] if n_folds else []
    data.tally.expect_more_models(len(early) * n_models)
    return {
        candidate: [threads.submit(data.fit, candidate, None, n_folds, half) for half in range(n_models)]
        for candidate in early
    }


def longest_first(tasks: Iterable[tuple[Candidate, int]]) -> list[tuple[Candidate, int]]:
    """The tasks of learners that are trained by gradient descent, which take longest, before the others."""
    return sorted(tasks, key=lambda task: task[0].learner not in GRADIENT_LEARNERS)
