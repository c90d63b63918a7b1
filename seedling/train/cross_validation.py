"""Cross-validation by fold models: a prediction for a row never comes from a model, or from the pseudo-labels of a
model, that saw the row's label.

Fold model k never sees fold k: neither its labels, nor augmented rows made from its rows, nor pseudo-labels of models
that saw them. One more model, the final model, sees all folds and is the one that is saved. From round 1 on, a fold
model consists of two models. Each learns the pseudo-labels of one half of the pool and labels the other half, so that
no model labels a row whose pseudo-label it was trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from seedling.errors import Diverged
from seedling.features.classical import Inputs
from seedling.models.device import release_freed_memory
from seedling.models.saving import Learner
from seedling.parallel.cluster import on_cluster, over_cluster
from seedling.parallel.executor import choose_executor, this_process
from seedling.stats.randomness import derived_seed
from seedling.stats.statistics import Floats
from seedling.train.final_models import fit_final_models, longest_first, submit_early_final_models
from seedling.train.fold_result import FailedFold, FoldResult
from seedling.train.tally import Candidate, Tally
from seedling.train.training_data import TrainingData

MIN_SECONDS_TO_DISTRIBUTE = 20.0  # shorter work is done before another process has received it
NOT_FINITE = "it predicted NaN or infinite values"


@dataclass
class Predictions:
    """Logits of one candidate, or probabilities of the chosen model.

    labeled: (n_labeled, n_classes), out of fold; validation: (n_validation, n_classes), mean over the fold models;
    pool: (n_fold_models, n_pool, n_classes), the final model's last (zeros if it was not trained);
    labeled_std: (n_labeled,) and pool_std: (n_fold_models, n_pool), Monte Carlo dropout standard deviation of the
    predicted class's probability, zeros for learners without dropout.
    """

    labeled: Floats
    validation: Floats
    pool: Floats
    labeled_std: Floats
    pool_std: Floats


def cross_validate(
    data: TrainingData, candidates: Sequence[Candidate], seconds: float = 0.0
) -> tuple[dict[Candidate, Predictions], dict[Candidate, str]]:
    """Return each candidate's out-of-fold predictions, and the reason of each candidate whose training failed.

    The folds run in threads or, if the predicted `seconds` are many, on the executor that the caller of the stage
    configured: Prefect's task runner in a flow.
    """
    rows = data.rows
    predictions = {candidate: no_predictions(data, len(rows.pool)) for candidate in candidates}
    failed: dict[Candidate, str] = {}
    for fold_index, fold_results in enumerate(_results_by_fold(data, candidates, seconds)):
        for candidate, result in zip(candidates, fold_results, strict=True):
            _add_fold(data, candidate, fold_index, result, predictions, failed)
    if not rows.folds and len(data.validation):  # all labeled rows are needed for training: evaluate on validation rows
        logits = this_process().by_leader(lambda: _final_logits(data, candidates))
        for candidate, result in logits.items():
            if isinstance(result, FailedFold):
                failed[candidate] = result.reason
                del predictions[candidate]
            else:
                predictions[candidate].validation[:] = result
    return predictions, failed


def _final_logits(data: TrainingData, candidates: Sequence[Candidate]) -> dict[Candidate, Floats | FailedFold]:
    """(n_validation, n_classes) by the final model of each candidate, which is kept for `take_final_models`."""
    logits: dict[Candidate, Floats | FailedFold] = {}
    for candidate, models in fit_final_models(data, candidates).items():
        if isinstance(models, Diverged):
            logits[candidate] = FailedFold(str(models))
            continue
        data.final_models[candidate] = models
        of_candidate = mean_logits(models, data.validation)
        logits[candidate] = of_candidate if np.isfinite(of_candidate).all() else FailedFold(NOT_FINITE)
    return logits


def _results_by_fold(
    data: TrainingData, candidates: Sequence[Candidate], seconds: float
) -> Sequence[Sequence[FoldResult | FailedFold]]:
    """The results of `_fold_result`, per fold and per candidate, computed where the executor runs them."""
    n_folds = len(data.rows.folds)
    fold_indices = range(n_folds)
    execute = choose_executor(seconds, MIN_SECONDS_TO_DISTRIBUTE)
    if not on_cluster() and this_process().count > 1:  # each process computes its share of the folds
        return execute(
            lambda fold_index: [_fold_result(data, each, fold_index) for each in candidates], fold_indices, "fold"
        )
    tasks = [*product(candidates, fold_indices)]
    if on_cluster():
        results = _run_on_cluster(data, tasks)
        return [results[fold_index::n_folds] for fold_index in fold_indices]
    # One piece per candidate and fold: with one per fold, five folds on two cores would leave a core idle for half of
    # the last fold. The longest pieces start first, for the same reason.
    with ThreadPoolExecutor(data.parallel_trainings) as threads:
        futures = {task: threads.submit(_fold_result, data, *task) for task in longest_first(tasks)}
        final_models = submit_early_final_models(data, candidates, threads)

        def results_of_fold(fold_index: int) -> list[FoldResult | FailedFold]:
            return [futures[candidate, fold_index].result() for candidate in candidates]

        try:
            fold_results = execute(results_of_fold, fold_indices, "fold")
            for candidate, models in final_models.items():
                try:
                    data.final_models[candidate] = [model.result() for model in models]
                except Diverged:  # if the candidate is chosen, its training fails again, and is reported
                    data.tally.forget_final_losses(candidate)
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    return fold_results


def _add_fold(
    data: TrainingData,
    candidate: Candidate,
    fold_index: int,
    result: FoldResult | FailedFold,
    predictions: dict[Candidate, Predictions],
    failed: dict[Candidate, str],
) -> None:
    """Add one fold's result of a candidate to its predictions; a candidate that failed is moved to `failed`."""
    rows, n_folds = data.rows, len(data.rows.folds)
    if isinstance(result, FailedFold):
        failed[candidate] = result.reason
        predictions.pop(candidate, None)
        return
    if fold_index not in this_process().share(range(n_folds)):
        data.tally.add_finished(candidate, result.losses, data.n_models, result.seconds)
    if candidate in predictions:
        of_candidate, held_out = predictions[candidate], rows.fold[rows.labeled] == rows.folds[fold_index]
        of_candidate.labeled[held_out] = result.labeled
        of_candidate.validation += result.validation / n_folds
        of_candidate.pool[fold_index] = result.pool
        of_candidate.labeled_std[held_out] = result.labeled_std
        of_candidate.pool_std[fold_index] = result.pool_std


def no_predictions(data: TrainingData, pool_rows: int) -> Predictions:
    """Zeros to be filled. pool_rows: number of pool rows with predictions."""
    rows = data.rows
    folds, labeled = len(rows.folds), len(rows.labeled)
    return Predictions(
        labeled=np.zeros((labeled, data.classes)),
        validation=np.zeros((len(data.validation), data.classes)),
        pool=np.zeros((folds + 1, pool_rows, data.classes), dtype=np.float32),
        labeled_std=np.zeros(labeled),
        pool_std=np.zeros((folds + 1, pool_rows), dtype=np.float32),
    )


def _fold_result(data: TrainingData, candidate: Candidate, fold_index: int) -> FoldResult | FailedFold:
    """The result of `_compute_fold`, from the file of an unfinished run if there is one."""
    unfinished = _load_unfinished(data, candidate, fold_index)
    if unfinished is not None:
        return unfinished
    result = _compute_fold(data, candidate, fold_index)
    _save_unfinished(data, candidate, fold_index, result)
    return result


def _compute_fold(data: TrainingData, candidate: Candidate, fold_index: int) -> FoldResult | FailedFold:
    """A fold's predictions of rows whose labels and pseudo-labels its models did not learn, or why training failed."""
    started = perf_counter()
    rows, fold = data.rows, data.rows.folds[fold_index]
    try:
        models = [data.fit(candidate, fold, fold_index, half) for half in range(data.n_models)]
    except Diverged as error:
        return FailedFold(str(error))
    held_out = data.inputs.take(rows.labeled[rows.fold[rows.labeled] == fold])
    result = FoldResult(
        labeled=mean_logits(models, held_out),
        labeled_std=np.mean([dropout_std(model, held_out, fold_index) for model in models], axis=0),
        pool_std=pool_std(data, models).astype(np.float32),
        validation=mean_logits(models, data.validation),
        pool=pool_logits(data, models).astype(np.float32),
        seconds=perf_counter() - started,
        losses=data.tally.losses_of_fold(candidate, fold_index),
    )
    release_freed_memory()  # otherwise each thread's heap keeps the size of its largest copy of the rows
    return result if result.is_finite else FailedFold(NOT_FINITE)


@dataclass(frozen=True)
class FoldTask:
    """Trains a candidate without one fold; any process can run it."""

    data: TrainingData

    def __call__(self, task: tuple[Candidate, int]) -> FoldResult | FailedFold:
        """See `_compute_fold`. task: the candidate and the fold index."""
        return _compute_fold(replace(self.data, tally=Tally()), *task)


def _run_on_cluster(data: TrainingData, tasks: Sequence[tuple[Candidate, int]]) -> list[FoldResult | FailedFold]:
    """`_fold_result` of each task, in their order.

    The longest tasks start first, so that the cluster does not wait for a single worker at the end.
    """
    results: dict[tuple[Candidate, int], FoldResult | FailedFold] = {
        task: unfinished for task in tasks if (unfinished := _load_unfinished(data, *task)) is not None
    }
    open_tasks = longest_first(task for task in tasks if task not in results)
    computed = over_cluster(FoldTask(replace(data, scratch=None, final_models={})), open_tasks)
    for (candidate, fold_index), result in zip(open_tasks, computed, strict=True):
        _save_unfinished(data, candidate, fold_index, result)
        if isinstance(result, FoldResult):
            data.tally.add_finished(candidate, result.losses, data.n_models, result.seconds)
        results[candidate, fold_index] = result
    return [results[task] for task in tasks]


def _unfinished_path(data: TrainingData, candidate: Candidate, fold_index: int) -> Path | None:
    return None if data.scratch is None else data.scratch / f"{candidate.name}-{fold_index}.npz"


def _save_unfinished(
    data: TrainingData, candidate: Candidate, fold_index: int, result: FoldResult | FailedFold
) -> None:
    """Save a result that took long, so that the next run can use it if this one is killed."""
    path = _unfinished_path(data, candidate, fold_index)
    if path is not None and isinstance(result, FoldResult) and result.seconds > data.min_seconds_to_save:
        result.save(path)


def _load_unfinished(data: TrainingData, candidate: Candidate, fold_index: int) -> FoldResult | None:
    """The result that a killed run saved; None if there is none or its file is damaged."""
    path = _unfinished_path(data, candidate, fold_index)
    result = None if path is None else FoldResult.load(path)
    if result is not None:
        data.tally.add_finished(candidate, result.losses, data.n_models)
    return result


def mean_logits(models: Sequence[Learner], inputs: Inputs) -> Floats:
    """(n_rows, n_classes): the mean over the models, which are not called if there are no rows."""
    if len(inputs) == 0:
        return np.zeros((0, models[0].classes))
    return np.asarray(np.mean([model.logits(inputs) for model in models], axis=0))


def pool_logits(data: TrainingData, models: Sequence[Learner]) -> Floats:
    """(n_pool, n_classes): each row's logits from the model that did not learn the pseudo-labels of its half."""
    pool = data.rows.pool
    logits = np.zeros((len(pool), data.classes))
    for model, positions in _models_with_pool_rows(data, models):
        logits[positions] = model.logits(data.inputs.take(pool[positions]))
    return logits


def pool_std(data: TrainingData, models: Sequence[Learner]) -> Floats:
    """(n_pool,): as `pool_logits`, the Monte Carlo dropout standard deviation."""
    pool = data.rows.pool
    std = np.zeros(len(pool))
    for number, (model, positions) in enumerate(_models_with_pool_rows(data, models)):
        std[positions] = dropout_std(model, data.inputs.take(pool[positions]), number)
    return std


def dropout_std(model: Learner, inputs: Inputs, number: int) -> Floats:
    """(n_rows,): Monte Carlo dropout standard deviation; zeros for a learner without dropout.

    number: derives the seed.
    """
    method = getattr(model, "dropout_std", None)
    seed = derived_seed(0, "dropout", number)
    return np.zeros(len(inputs)) if method is None else np.asarray(method(inputs, seed), dtype=np.float64)


def _models_with_pool_rows(data: TrainingData, models: Sequence[Learner]) -> Iterator[tuple[Learner, NDArray[np.intp]]]:
    """Each model with the positions in the pool that it labels: the half that it did not learn, or all rows."""
    pool = data.rows.pool
    half = data.rows.half[pool] if len(models) == 2 else np.ones(len(pool), dtype=np.int64)
    for number, model in enumerate(models):
        positions = np.flatnonzero(half != number)
        if len(positions):
            yield model, positions
