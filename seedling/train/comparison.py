"""A round beside the one before: which learners are compared, under how many seeds, and what the gain is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedling.config.params import TrainParams, WorkspaceConfig
from seedling.files.reading import read_frame
from seedling.stats.randomness import generator
from seedling.stats.statistics import Estimate
from seedling.train import files
from seedling.train.candidates import predicted_seconds
from seedling.train.choice import Judged, calibrated
from seedling.train.cross_validation import Predictions, TrainingData, out_of_fold_anew
from seedling.train.learning_curve import right_with, worth_in_labels
from seedling.train.round_decision import RoundDecision, judge, scores_of_rows, unjudged
from seedling.train.tally import Candidate

SEEDS = {"quick": 1, "normal": 3, "thorough": 5}


@dataclass(frozen=True)
class Loop:
    """Where the loop stands: this round's number, how many there may be, and of the round before the folder and the decision,
    None in round 0.
    """

    number: int
    at_most: int
    teacher: Path | None
    previous: Mapping[str, Any] | None

    @property
    def last(self) -> bool:
        """Whether no round may follow."""
        return self.number >= self.at_most


def decision_of(
    loop: Loop,
    said: dict[Candidate, NDArray[np.float32]],
    predictions: Predictions,
    judged: Judged,
    bench: TrainingData,
    params: TrainParams,
    facts: WorkspaceConfig,
) -> tuple[RoundDecision, dict[Candidate, NDArray[np.float32]]]:
    """The decision, and what the candidates said with the further seeds that it asked for. Round 0 is always accepted.

    said: (1, n_judged, n_classes) a candidate; predictions: the chosen model's.
    """
    if loop.teacher is None or loop.previous is None:
        many = len(bench.rows.pool)
        start = "the start, cross-validated" if len(judged.truth) else "the start; no labeled row can be held out"
        pool = "" if many else "; the pool is empty, so there is nothing to pseudo-label"
        return RoundDecision(0, "accepted", loop.last or many == 0, f"{start}{pool}", 0, len(judged.truth)), said
    classes = predictions.pool.shape[2]
    before = files.read_candidates(loop.teacher, classes)
    both = [one for one in said if one in before]
    both = [one for one in both if not one.carried] or both  # what was taken over has not changed
    said = said | with_more_seeds(
        min(both, key=lambda one: predicted_seconds(one, bench)), said, judged, bench, params, facts
    )
    taught = np.stack(read_frame(loop.teacher / files.POOL)["probabilities"].to_numpy())
    old_labels, new_labels = taught[:, -classes:].argmax(axis=1), predictions.pool[-1].argmax(axis=1)
    changed = old_labels != new_labels
    if len(judged.truth) == 0:
        vanished = len(set(old_labels.tolist()) - set(new_labels.tolist()))
        return unjudged(loop.number, loop.previous["accepted_round"], vanished, last=loop.last), said
    found = judge(
        loop.number,
        loop.previous["accepted_round"],
        [before[one] for one in both],
        [said[one].astype(np.float64) for one in both],
        judged.truth,
        judged.groups,
        changed_share=float(changed.mean()),
        last=loop.last,
        params=params,
        seed=facts.seed,
    )
    right = [
        scores_of_rows(
            [np.asarray(each[one], dtype=np.float64) for one in both], lambda one: one.argmax(axis=1) == judged.truth
        ).mean(axis=0)
        for each in (before, said)
    ]
    return replace(found, worth_in_labels=worth_of_round(bench, judged, right, facts)), said


def with_more_seeds(
    candidate: Candidate,
    said: dict[Candidate, NDArray[np.float32]],
    judged: Judged,
    bench: TrainingData,
    params: TrainParams,
    facts: WorkspaceConfig,
) -> dict[Candidate, NDArray[np.float32]]:
    """What this candidate, the cheapest that is compared, says under further seeds, behind what it says under the first."""
    seeds = (params.decision_seeds or SEEDS[facts.effort]) if bench.rows.folds else 1
    anew = out_of_fold_anew(bench, candidate, range(1, seeds if not candidate.carried else 1))
    more = [calibrated(one, judged).astype(np.float32)[None] for one in anew]
    return {candidate: np.concatenate([said[candidate], *more])}


def worth_of_round(
    bench: TrainingData, judged: Judged, scores: list[NDArray[np.float64]], facts: WorkspaceConfig
) -> Estimate | None:
    """What the round is worth in labels; None where there are too few folds, or validation rows alone, to draw a curve."""
    folds = len(bench.rows.folds)
    if folds < 3 or len(judged.place) == 0:
        return None
    mine = slice(len(judged.place))  # validation rows, which follow, have no fold to draw a curve with
    few, many = (right_with(bench, judged, taught).astype(np.float64) for taught in (folds // 2, folds - 1))
    before, after = (one[mine] for one in scores)
    return worth_in_labels(
        few,
        many,
        before,
        after,
        judged.groups[mine],
        labels=len(bench.rows.labeled),
        ratio=(folds - 1) / (folds // 2),
        rng=generator(facts.seed, "worth in labels"),
    )
