"""Cross-validation in lineages: what is predicted for a row never comes from a model, or a model's pseudo-labels,
that saw the row's label.

Lineage k never sees fold k: neither its labels, nor children of its rows, nor pseudo-labels of models that saw them.
One more lineage sees all folds; its models are the ones that are kept. From round 1 on a lineage has two models, each
learning from one half of the pool and labelling the other, so that no model labels what it was trained on.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from tasks.learners.features import Inputs
from tasks.learners.saving import Learner, make_learner
from tasks.progress import Progress, silent
from tasks.randomness import derived_seed
from tasks.statistics import Floats
from tasks.train.rows import TrainingRows


@dataclass(frozen=True)
class Candidate:
    """A learner and the ingredients that it is trained on, besides the pool's pseudo-labels."""

    learner: str
    recipe: tuple[str, ...]


@dataclass
class Predictions:
    """Logits of one candidate, or probabilities of the chosen model.

    labelled: (n_labelled, n_classes), out of fold; validation: (n_validation, n_classes), the folds' mean;
    pool: (n_lineages, n_pool, n_classes), the last lineage's being the final model's (zeros where it was not trained).
    """

    labelled: Floats
    validation: Floats
    pool: Floats


class Tally:
    """Counts the models that are trained, from whichever thread, and says so."""

    def __init__(self) -> None:
        self._done, self._total, self._lock = 0, 0, threading.Lock()
        self._progress: Progress = silent

    def expect(self, total: int, progress: Progress) -> None:
        """From here on, so many."""
        self._total, self._progress = total, progress

    def one_more(self) -> None:
        """One model is done; those beyond the total are the final ones."""
        with self._lock:
            self._done += 1
            self._total = max(self._total, self._done)
            self._progress("train models", self._done, self._total)


@dataclass(frozen=True)
class Workbench:
    """What all candidates of a round share."""

    rows: TrainingRows
    inputs: Inputs
    validation: Inputs
    classes: int
    seed: int
    steps: int
    halves: int
    said: Tally = field(default_factory=lambda: Tally())

    def fit(self, candidate: Candidate, lineage: int | None, place: int, half: int) -> Learner:
        """One model of one lineage."""
        chosen, targets, weights = self.rows.of_lineage(lineage, place, half, candidate.recipe)
        seed = derived_seed(self.seed, candidate.learner, lineage, half)
        learner = make_learner(candidate.learner, seed, self.classes, self.steps)
        learner.fit(self.inputs.take(chosen), targets, weights)
        self.said.one_more()
        return learner


def cross_validate(bench: Workbench, candidate: Candidate) -> Predictions:
    """The candidate's out-of-fold predictions, the folds' models two at a time."""
    rows = bench.rows
    folds, pool = rows.folds, rows.pool
    place_of = {int(row): place for place, row in enumerate(rows.labelled)}
    result = Predictions(
        labelled=np.zeros((len(rows.labelled), bench.classes)),
        validation=np.zeros((len(bench.validation), bench.classes)),
        pool=np.zeros((len(folds) + 1, len(pool), bench.classes)),
    )

    def of_fold(place: int) -> tuple[Floats, Floats, Floats]:
        models = [bench.fit(candidate, folds[place], place, half) for half in range(bench.halves)]
        held_out = rows.labelled[rows.fold[rows.labelled] == folds[place]]
        return (
            mean_logits(models, bench.inputs.take(held_out)),
            mean_logits(models, bench.validation),
            pool_logits(bench, models),
        )

    with ThreadPoolExecutor(2) as threads:
        for place, (labelled, validation, on_pool) in enumerate(threads.map(of_fold, range(len(folds)))):
            held_out = rows.labelled[rows.fold[rows.labelled] == folds[place]]
            result.labelled[[place_of[int(row)] for row in held_out]] = labelled
            result.validation += validation / len(folds)
            result.pool[place] = on_pool
    return result


def mean_logits(models: Sequence[Learner], inputs: Inputs) -> Floats:
    """(n_rows, n_classes): the models' mean; nothing is asked of them where there are no rows."""
    if len(inputs) == 0:
        return np.zeros((0, models[0].classes))
    return np.asarray(np.mean([model.logits(inputs) for model in models], axis=0))


def pool_logits(bench: Workbench, models: Sequence[Learner]) -> Floats:
    """(n_pool, n_classes): each row by the model that did not learn from its half."""
    inputs, half = bench.inputs.take(bench.rows.pool), bench.rows.half[bench.rows.pool]
    if len(inputs) == 0:
        return np.zeros((0, bench.classes))
    logits = [model.logits(inputs) for model in models]
    if len(models) == 1:
        return logits[0]
    by_other: Floats = np.where((half == 0)[:, None], logits[1], logits[0])
    return by_other


def fit_final(bench: Workbench, candidate: Candidate) -> list[Learner]:
    """The models that see all folds, one a half."""
    place = len(bench.rows.folds)
    return [bench.fit(candidate, None, place, half) for half in range(bench.halves)]
