"""Step contributions: compare the same learners with and without each step, on rows that none of them saw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from seedling.records.candidates import StepContributionRecord
from seedling.records.intervals import DifferenceRecord
from seedling.stats.randomness import generator
from seedling.stats.statistics import Floats, paired_difference
from seedling.train.choice import EvaluationRows
from seedling.train.tally import Candidate

PLAIN = "plain"


def step_contributions(
    probabilities: Mapping[Candidate, Floats], evaluation_rows: EvaluationRows, draws: int, seed: int
) -> list[StepContributionRecord]:
    """The paired difference of accuracy with and without each kind of training data and each loss.

    A step's difference is the mean over the learners that were trained with and without it and are equal otherwise.

    probabilities: (n_evaluated, n_classes) per candidate.
    draws: number of bootstrap samples.
    """
    correct = {
        candidate: (of_candidate.argmax(axis=1) == evaluation_rows.truth).astype(np.float64)
        for candidate, of_candidate in probabilities.items()
    }
    pairs: dict[tuple[Literal["recipe", "loss"], str], list[tuple[Candidate, Candidate]]] = {}
    for candidate in correct if len(evaluation_rows.truth) else ():
        with_less_data = Candidate(candidate.learner, candidate.trained_on[:-1], candidate.loss)
        if len(candidate.trained_on) > 1 and with_less_data in correct:
            pairs.setdefault(("recipe", candidate.trained_on[-1]), []).append((with_less_data, candidate))
        with_plain_loss = Candidate(candidate.learner, candidate.trained_on, PLAIN)
        if candidate.loss != PLAIN and with_plain_loss in correct:
            pairs.setdefault(("loss", candidate.loss), []).append((with_plain_loss, candidate))
    contributions = []
    for (kind, step), step_pairs in pairs.items():
        without_step, with_step = (np.mean([correct[pair[side]] for pair in step_pairs], axis=0) for side in (0, 1))
        difference = paired_difference(
            without_step,
            with_step,
            evaluation_rows.groups,
            larger_is_better=True,
            draws=draws,
            rng=generator(seed, "step_contributions"),  # the same bootstrap samples for each step
            wrong=1 / len(step_pairs),  # one row that changes for one learner
        )
        learners = tuple(dict.fromkeys(pair[1].learner for pair in step_pairs))
        contributions.append(
            StepContributionRecord(kind=kind, step=step, learners=learners, difference=DifferenceRecord.of(difference))
        )
    return contributions
