"""Final models: fitted once, early where a core is idle, and without a trace where no choice uses them."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
from benches import labeled, training_data

from seedling.errors import Diverged
from seedling.features.classical import Inputs
from seedling.models.saving import Learner, make_learner
from seedling.models.training import FitContext
from seedling.train.cross_validation import cross_validate
from seedling.train.final_models import discard_final_models, fit_final_models, take_final_models
from seedling.train.tally import Candidate
from seedling.train.training_data import TrainingData

NETWORK = Candidate("network", ("collected",))
N_ROWS = 40


class RecordingLearner:
    """Stands for a network: records the number of rows of each training, and predicts the class shares.

    max_rows: with more, its training diverges after its first loss.
    """

    name, classes = "network", 2

    def __init__(self, context: FitContext, n_rows_of_trainings: list[int], max_rows: int) -> None:
        self.context, self.n_rows_of_trainings, self.max_rows = context, n_rows_of_trainings, max_rows
        self.shares = np.zeros(2)

    def fit(self, inputs: Inputs, targets: np.ndarray, weights: np.ndarray) -> None:
        """Records the number of rows, and reports a loss."""
        self.n_rows_of_trainings.append(len(inputs))
        self.context.watch(10, 1.0)
        if len(inputs) > self.max_rows:
            raise Diverged("The loss is not a finite number at step 11.")
        self.shares = targets.mean(axis=0)

    def logits(self, inputs: Inputs) -> np.ndarray:
        """(n_rows, 2): the class shares of the training rows."""
        return np.tile(self.shares, (len(inputs), 1))


def recorded(parallel_trainings: int, max_rows: int = N_ROWS) -> tuple[TrainingData, list[int]]:
    """Data of forty rows in five folds, and the number of rows of each training, which is empty before the first."""
    rows, inputs, _ = labeled(N_ROWS)
    n_rows_of_trainings: list[int] = []
    data = dataclasses.replace(
        training_data(rows, inputs),
        make_learner=lambda name, context: RecordingLearner(context, n_rows_of_trainings, max_rows),
        max_parallel_trainings=parallel_trainings,
    )
    return data, n_rows_of_trainings


@pytest.mark.parametrize(("parallel_trainings", "during_folds"), [(1, 5), (2, 6), (5, 5), (16, 6)])
def test_an_idle_core_fits_the_final_network_beside_the_last_folds(parallel_trainings: int, during_folds: int) -> None:
    """Five folds leave one of 2 and eleven of 16 cores idle, but none of 1 and 5; no final model is fitted twice."""
    data, n_rows_of_trainings = recorded(parallel_trainings)
    cross_validate(data, [NETWORK])
    assert len(n_rows_of_trainings) == during_folds
    take_final_models(data, [NETWORK])
    assert Counter(n_rows_of_trainings) == {32: 5, 40: 1}


def test_the_losses_that_are_written_do_not_depend_on_the_number_of_cores() -> None:
    """A network that is not chosen has the losses of its five folds, also where an idle core fitted its final model."""
    of_folds = [f"network plain fold {number} half 0" for number in range(1, 6)]
    for parallel_trainings, before in ((5, of_folds), (2, ["network plain final half 0", *of_folds])):
        data, _ = recorded(parallel_trainings)
        cross_validate(data, [NETWORK])
        assert sorted(data.tally.losses) == sorted(before)
        discard_final_models(data)
        assert sorted(data.tally.losses) == of_folds


def test_a_final_training_that_diverges_early_diverges_again_if_the_candidate_is_chosen() -> None:
    """Its folds are valid and its final model is not kept; the losses are those of one training, not of two."""
    losses = []
    for parallel_trainings in (5, 2):
        data, _ = recorded(parallel_trainings, max_rows=32)
        trained, failed = cross_validate(data, [NETWORK])
        assert list(trained) == [NETWORK] and failed == {}
        assert isinstance(take_final_models(data, [NETWORK])[NETWORK], Diverged)
        losses.append(data.tally.losses)
    assert losses[0]["network plain final half 0"] == losses[1]["network plain final half 0"] == [(10, 1.0)]


def test_a_failed_final_training_takes_the_place_of_its_models_only() -> None:
    """The other candidate has its model."""

    def make(name: str, context: FitContext) -> Learner:
        return RecordingLearner(context, [], 0) if name == "network" else make_learner(name, context)

    rows, inputs, truth = labeled(N_ROWS)
    data = dataclasses.replace(training_data(rows, inputs), make_learner=make)
    valid = Candidate("logistic_regression", ("collected",))
    models = fit_final_models(data, [NETWORK, valid])
    assert isinstance(models[NETWORK], Diverged)
    fitted = models[valid]
    assert not isinstance(fitted, Diverged)
    (model,) = fitted
    assert (model.logits(inputs).argmax(axis=1) == truth).all()
