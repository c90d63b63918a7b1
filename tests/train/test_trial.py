"""The candidates that a round tries: the networks with and without the pool, and what they cost."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from benches import evaluation_rows, labeled, training_data

from seedling.config.params import TrainParams, WorkspaceConfig
from seedling.errors import Diverged
from seedling.features.classical import Inputs
from seedling.models.saving import Learner, make_learner
from seedling.models.training import FitContext
from seedling.progress import silent
from seedling.train.candidates import predicted_seconds
from seedling.train.comparison import Loop
from seedling.train.tally import Candidate
from seedling.train.training_data import TrainingData
from seedling.train.trial import Trial, try_candidates

WITH_POOL = Candidate("network", ("collected",), "consistency")
PLAIN = Candidate("network", ("collected",))
ROUND_0 = Loop(0, 2, None, None)


class DivergingLearner:
    """A network whose training diverges."""

    name, classes = "network", 2

    def fit(self, inputs: Inputs, targets: np.ndarray, weights: np.ndarray) -> None:
        """Diverges."""
        raise Diverged("The loss is not a finite number at step 1.")

    def logits(self, inputs: Inputs) -> np.ndarray:
        """Is never called."""
        raise AssertionError


def images_with_pool(contexts: list[FitContext], diverging_loss: str = "") -> tuple[TrainingData, np.ndarray]:
    """Forty labeled images of 8 pixels, dark and light ones, and a pool of 200, with the classes of the labeled ones.

    contexts: gets the context of each network; diverging_loss: networks with this loss diverge.
    """

    def make(name: str, context: FitContext) -> Learner:
        contexts.extend([context] if name == "network" else [])
        return DivergingLearner() if context.loss == diverging_loss else make_learner(name, context)

    rows, inputs, truth = labeled(240)
    brightness = np.where(truth == 0, 40, 200)[:, None, None, None]
    noise = np.random.default_rng(0).integers(0, 40, (240, 8, 8, 3))
    is_pool = np.arange(240) >= 40
    rows = dataclasses.replace(
        rows,
        ingredient=np.where(is_pool, "pool", "collected"),
        fold=np.where(is_pool, -1, rows.fold),
        targets=np.where(is_pool[:, None], 0.0, rows.targets),
    )
    inputs = dataclasses.replace(inputs, images=(brightness + noise).astype(np.uint8))
    return dataclasses.replace(training_data(rows, inputs), make_learner=make), truth[:40]


def tried(data: TrainingData, truth: np.ndarray, params: TrainParams) -> Trial:
    """The trial of round 0."""
    config = WorkspaceConfig(modality="image")
    return try_candidates(data, params, config, evaluation_rows(truth), ROUND_0, silent)


@pytest.mark.slow
def test_a_network_with_the_pool_that_diverges_leaves_the_plain_one() -> None:
    """Also if no other learner is a candidate: the reason is kept, and the round has a model."""
    data, truth = images_with_pool([], diverging_loss="consistency")
    trial = tried(data, truth, TrainParams(candidates=["network"]))
    assert list(trial.trained) == [PLAIN]
    assert trial.left_out == {WITH_POOL: "The loss is not a finite number at step 1."}


@pytest.mark.slow
@pytest.mark.parametrize("spare_seconds", [0.1, -0.1])
def test_each_network_is_pretrained_whether_or_not_the_budget_is_enough_for_both(spare_seconds: float) -> None:
    """The one with the pool is tried only if the budget is enough for the plain one, too; else the plain one is."""
    contexts: list[FitContext] = []
    data, truth = images_with_pool(contexts)
    candidates = (Candidate("logistic_regression", ("collected",)), WITH_POOL, PLAIN)
    budget = sum(predicted_seconds(candidate, data) for candidate in candidates) + spare_seconds
    params = TrainParams(candidates=["logistic_regression", "network"], budget_seconds=budget)
    networks = {candidate for candidate in tried(data, truth, params).trained if candidate.learner == "network"}
    assert (WITH_POOL in networks) == (spare_seconds > 0)
    assert PLAIN in networks or spare_seconds > 0
    assert contexts and all(context.body is not None for context in contexts)
