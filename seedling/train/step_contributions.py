"""What each step contributed: the same learners with it and without it, on the same rows, which none of them saw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from seedling.stats.randomness import generator
from seedling.stats.statistics import Floats, paired_difference
from seedling.train.choice import Judged
from seedling.train.tally import Candidate

PLAIN = "plain"


def step_contributions(said: Mapping[Candidate, Floats], judged: Judged, draws: int, seed: int) -> list[dict[str, Any]]:
    """Of each part of a recipe and each loss: the learners that were trained with it and without it and alike in all else, and the paired
    difference of accuracy, the mean over those learners.

    said: (n_judged, n_classes) a candidate.
    """
    right = {one: (chances.argmax(axis=1) == judged.truth).astype(np.float64) for one, chances in said.items()}
    pairs: dict[tuple[str, str], list[tuple[Candidate, Candidate]]] = {}
    for one in right if len(judged.truth) else ():
        shorter = Candidate(one.learner, one.recipe[:-1], one.loss)
        if len(one.recipe) > 1 and shorter in right:
            pairs.setdefault(("recipe", one.recipe[-1]), []).append((shorter, one))
        plain = Candidate(one.learner, one.recipe, PLAIN)
        if one.loss != PLAIN and plain in right:
            pairs.setdefault(("loss", one.loss), []).append((plain, one))
    found = []
    for (kind, step), both in pairs.items():
        without, with_it = (np.mean([right[pair[side]] for pair in both], axis=0) for side in (0, 1))
        difference = paired_difference(
            without,
            with_it,
            judged.groups,
            larger_is_better=True,
            draws=draws,
            rng=generator(seed, "step_contributions"),  # the same draws for each
            wrong=1 / len(both),  # a row that turns for one learner
        )
        learners = list(dict.fromkeys(pair[1].learner for pair in both))
        found.append({"kind": kind, "step": step, "learners": learners, "difference": difference.rounded()})
    return found
