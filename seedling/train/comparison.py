"""Compare a round with the accepted one: which learners, how many seeds, and what the gain is worth in labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedling.config.params import TrainParams, WorkspaceConfig
from seedling.files.reading import read_frame
from seedling.records.decision import DecisionRecord
from seedling.stats.randomness import generator
from seedling.stats.statistics import Estimate
from seedling.train import files
from seedling.train.candidates import predicted_seconds
from seedling.train.choice import EvaluationRows, calibrated
from seedling.train.cross_validation import Predictions, TrainingData, out_of_fold_with_seeds
from seedling.train.learning_curve import correct_with_folds, worth_in_labels
from seedling.train.round_decision import RoundDecision, compare_rounds, decide_without_evaluation_rows, mean_scores
from seedling.train.tally import Candidate
from seedling.workspace import POOL_PREDICTIONS

N_SEEDS = {"quick": 1, "normal": 3, "thorough": 5}


@dataclass(frozen=True)
class Loop:
    """The state of the loop: this round's number, the maximum number of rounds, and the previous round.

    teacher, previous: the previous round's folder and decision, None in round 0.
    """

    number: int
    max_rounds: int
    teacher: Path | None
    previous: DecisionRecord | None

    @property
    def last(self) -> bool:
        """Whether this is the last round."""
        return self.number >= self.max_rounds


def decide(
    loop: Loop,
    probabilities: dict[Candidate, NDArray[np.float32]],
    predictions: Predictions,
    evaluation_rows: EvaluationRows,
    data: TrainingData,
    params: TrainParams,
    config: WorkspaceConfig,
) -> tuple[RoundDecision, dict[Candidate, NDArray[np.float32]]]:
    """Return the decision and the candidates' probabilities, with more seeds where the comparison needs them.

    Round 0 is always accepted.

    probabilities: (1, n_evaluated, n_classes) per candidate.
    predictions: the chosen model's.
    """
    if loop.teacher is None or loop.previous is None:
        return _first_decision(loop, len(data.rows.pool), len(evaluation_rows.truth)), probabilities
    n_classes = predictions.pool.shape[2]
    old = files.read_candidates(loop.teacher, n_classes)
    in_both = [candidate for candidate in probabilities if candidate in old]
    # Carried candidates did not change, so they are only compared if there is no other.
    compared = [candidate for candidate in in_both if not candidate.carried] or in_both
    cheapest = min(compared, key=lambda candidate: predicted_seconds(candidate, data))
    probabilities = probabilities | with_more_seeds(cheapest, probabilities, evaluation_rows, data, params, config)
    old_pool = np.stack(read_frame(loop.teacher / POOL_PREDICTIONS)["probabilities"].tolist())
    old_labels, new_labels = old_pool[:, -n_classes:].argmax(axis=1), predictions.pool[-1].argmax(axis=1)
    accepted_round = loop.previous.accepted_round
    if len(evaluation_rows.truth) == 0:
        n_vanished = len(set(old_labels.tolist()) - set(new_labels.tolist()))
        return decide_without_evaluation_rows(loop.number, accepted_round, n_vanished, last=loop.last), probabilities
    decision = compare_rounds(
        loop.number,
        accepted_round,
        [old[candidate] for candidate in compared],
        [probabilities[candidate].astype(np.float64) for candidate in compared],
        evaluation_rows.truth,
        evaluation_rows.groups,
        changed_share=float((old_labels != new_labels).mean()),
        last=loop.last,
        params=params,
        seed=config.seed,
    )
    correct = [
        _mean_correct([of_round[candidate] for candidate in compared], evaluation_rows)
        for of_round in (old, probabilities)
    ]
    return replace(decision, worth_in_labels=worth_of_round(data, evaluation_rows, correct, config)), probabilities


def _mean_correct(
    probabilities: Sequence[NDArray[np.floating[Any]]], evaluation_rows: EvaluationRows
) -> NDArray[np.float64]:
    """(n_evaluated,): the mean correctness over seeds and candidates; (n_seeds, n_evaluated, n_classes) each."""
    as_floats = [of_candidate.astype(np.float64) for of_candidate in probabilities]
    by_seed = mean_scores(as_floats, lambda of_seed: of_seed.argmax(axis=1) == evaluation_rows.truth)
    mean: NDArray[np.float64] = by_seed.mean(axis=0)
    return mean


def _first_decision(loop: Loop, n_pool: int, n_evaluated: int) -> RoundDecision:
    """The decision of round 0. n_pool: number of pool rows; n_evaluated: number of evaluation rows."""
    reason = "the start, cross-validated" if n_evaluated else "the start; no labeled row can be held out"
    if n_pool == 0:
        reason += "; the pool is empty, so there is nothing to pseudo-label"
    return RoundDecision(0, "accepted", loop.last or n_pool == 0, reason, 0, n_evaluated)


def with_more_seeds(
    candidate: Candidate,
    probabilities: dict[Candidate, NDArray[np.float32]],
    evaluation_rows: EvaluationRows,
    data: TrainingData,
    params: TrainParams,
    config: WorkspaceConfig,
) -> dict[Candidate, NDArray[np.float32]]:
    """The candidate's probabilities with the first seed, followed by those with further seeds."""
    n_seeds = (params.decision_seeds or N_SEEDS[config.effort]) if data.rows.folds else 1
    further = out_of_fold_with_seeds(data, candidate, range(1, n_seeds if not candidate.carried else 1))
    further_probabilities = [calibrated(logits, evaluation_rows).astype(np.float32)[None] for logits in further]
    return {candidate: np.concatenate([probabilities[candidate], *further_probabilities])}


def worth_of_round(
    data: TrainingData,
    evaluation_rows: EvaluationRows,
    correct: list[NDArray[np.float64]],
    config: WorkspaceConfig,
) -> Estimate | None:
    """How many labels the round's gain is worth; None with fewer than three folds or only validation rows.

    correct: (n_evaluated,), mean correctness before and after the round.
    """
    n_folds = len(data.rows.folds)
    if n_folds < 3 or len(evaluation_rows.labeled_index) == 0:
        return None
    labeled = slice(len(evaluation_rows.labeled_index))  # the validation rows behind them have no fold
    with_few, with_many = (
        correct_with_folds(data, evaluation_rows, n_train_folds).astype(np.float64)
        for n_train_folds in (n_folds // 2, n_folds - 1)
    )
    before, after = (of_round[labeled] for of_round in correct)
    return worth_in_labels(
        with_few,
        with_many,
        before,
        after,
        evaluation_rows.groups[labeled],
        labels=len(data.rows.labeled),
        ratio=(n_folds - 1) / (n_folds // 2),
        rng=generator(config.seed, "worth in labels"),
    )
