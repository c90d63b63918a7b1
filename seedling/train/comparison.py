"""Compare a round's model with the accepted one, and what the gain is worth in labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seedling.config.params import TrainParams, WorkspaceConfig
from seedling.records.decision import DecisionRecord
from seedling.stats.randomness import generator
from seedling.stats.statistics import Estimate
from seedling.train.choice import EvaluationRows
from seedling.train.cross_validation import Predictions
from seedling.train.learning_curve import correct_with_folds, worth_in_labels
from seedling.train.previous_model import PreviousModel
from seedling.train.round_decision import (
    RoundDecision,
    class_share_weights,
    compare_rounds,
    decide_without_evaluation_rows,
)
from seedling.train.training_data import TrainingData


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
    previous_model: PreviousModel | None,
    predictions: Predictions,
    evaluation_rows: EvaluationRows,
    data: TrainingData,
    params: TrainParams,
    config: WorkspaceConfig,
) -> RoundDecision:
    """Accept or reject the round; round 0 is always accepted.

    previous_model: None in round 0; predictions: the probabilities of this round's model.
    """
    if previous_model is None or loop.previous is None:
        return _first_decision(loop, len(data.rows.pool), len(evaluation_rows.truth))
    old_pool, accepted_round = previous_model.pool, loop.previous.accepted_round
    old_labels, new_labels = old_pool.argmax(axis=1), predictions.pool[-1].argmax(axis=1)
    if len(evaluation_rows.truth) == 0:
        n_vanished = len(set(old_labels.tolist()) - set(new_labels.tolist()))
        return decide_without_evaluation_rows(loop.number, accepted_round, n_vanished, last=loop.last)
    old, new = previous_model.evaluated(evaluation_rows), evaluation_rows.select(predictions)
    decision = compare_rounds(
        loop.number,
        accepted_round,
        old,
        new,
        evaluation_rows.truth,
        evaluation_rows.groups,
        weights=class_share_weights(evaluation_rows.truth, old_pool),
        changed_share=float((old_labels != new_labels).mean()),
        last=loop.last,
        params=params,
        seed=config.seed,
    )
    correct = [(of_round.argmax(axis=1) == evaluation_rows.truth).astype(np.float64) for of_round in (old, new)]
    return replace(decision, worth_in_labels=worth_of_round(data, evaluation_rows, correct, config))


def _first_decision(loop: Loop, n_pool: int, n_evaluated: int) -> RoundDecision:
    """The decision of round 0. n_pool: number of pool rows; n_evaluated: number of evaluation rows."""
    reason = "the start, cross-validated" if n_evaluated else "the start; no labeled row can be held out"
    if n_pool == 0:
        reason += "; the pool is empty, so there is nothing to pseudo-label"
    return RoundDecision(0, "accepted", loop.last or n_pool == 0, reason, 0, n_evaluated)


def worth_of_round(
    data: TrainingData,
    evaluation_rows: EvaluationRows,
    correct: list[NDArray[np.float64]],
    config: WorkspaceConfig,
) -> Estimate | None:
    """How many labels the round's gain is worth; None with fewer than three folds or only validation rows.

    correct: (n_evaluated,), correctness before and after the round.
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
