"""train: the choice of the model, when to abstain, and what a round is worth in labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benches import evaluation_rows, labeled, predictions, training_data

from seedling.config.params import TrainParams
from seedling.features.classical import Inputs
from seedling.stats.statistics import fit_temperature, softmax
from seedling.train.choice import abstention, blend, choose, greedy
from seedling.train.learning_curve import learning_curve, worth_in_labels
from seedling.train.round_decision import compare_rounds, decide_without_evaluation_rows
from seedling.train.step_contributions import step_contributions
from seedling.train.tally import PREVIOUS_MODEL, Candidate


def test_the_greedy_selection_takes_learners_that_complement_each_other() -> None:
    """Two learners are each correct on one half of the rows and undecided on the other; a third is undecided on all."""
    truth = np.arange(100) % 2
    sure = 4 * np.eye(2)[truth]
    half = np.arange(100) < 50
    trained = {
        Candidate("svm", ("collected",)): predictions(np.where(half[:, None], sure, 0.0)),
        Candidate("random_forest", ("collected",)): predictions(np.where(half[:, None], 0.0, sure)),
        Candidate("logistic_regression", ("collected",)): predictions(np.zeros((100, 2))),
    }
    picked = greedy(trained, evaluation_rows(truth))
    assert {candidate.learner for candidate in picked} == {"svm", "random_forest"}
    assert {candidate.learner for candidate in choose(trained, evaluation_rows(truth)).members} == {
        "svm",
        "random_forest",
    }


def test_without_evaluation_rows_the_default_learners_vote() -> None:
    """Each with its last training data, independent of its accuracy; trees and neighbors do not vote."""
    no_predictions = predictions(np.zeros((0, 2)))
    trained = {
        Candidate(name, trained_on): no_predictions
        for name in ("logistic_regression", "random_forest")
        for trained_on in (("collected",), ("collected", "augment"))
    }
    choice = choose(trained, evaluation_rows(np.zeros(0, dtype=np.int64)))
    assert choice.members == (Candidate("logistic_regression", ("collected", "augment")),)


def test_the_threshold_to_abstain_by_hand() -> None:
    """Confidences .9, .8, .7, .6, of which .7 is wrong: accuracy 3/4 in total, and 2/2 from .8 on."""
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    truth = np.array([0, 0, 1, 0])
    assert abstention(probabilities, truth, 0.75).threshold == 0.0
    abstain = abstention(probabilities, truth, 0.95)
    assert abstain.coverage is not None
    assert abstain.accuracy is not None
    assert (abstain.threshold, abstain.coverage.value, abstain.accuracy.value) == (0.8, 0.5, 1.0)


def test_the_default_target_halves_the_errors_of_a_model_that_would_abstain_on_most_rows() -> None:
    """By hand: ten rows, right are the 1st, 2nd, 4th and 5th, so that .95 is reached on two rows only.

    Accuracy 4/10 in total, so that the target is 7/10: 4 of the first 5 are right, and 4 of the first 6 are too few.
    """
    confidence = np.linspace(0.99, 0.54, 10)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    truth = np.array([0, 0, 1, 0, 0, 1, 1, 1, 1, 1])
    abstain = abstention(probabilities, truth)
    assert abstain.coverage is not None
    assert abstain.accuracy is not None
    assert (abstain.target_accuracy, abstain.coverage.value, abstain.accuracy.value) == (0.7, 0.5, 0.8)
    strict = abstention(probabilities, truth, 0.95)
    assert strict.coverage is not None
    assert (strict.target_accuracy, strict.coverage.value) == (0.95, 0.2)


def test_the_default_target_is_strict_if_half_of_the_rows_reach_it() -> None:
    """By hand: the first two of four are right, and the others wrong."""
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    abstain = abstention(probabilities, np.array([0, 0, 1, 1]))
    assert (abstain.target_accuracy, abstain.threshold) == (0.95, 0.8)


def test_out_of_scope_rows_count_as_wrong_unless_the_model_predicts_nothing() -> None:
    """An out-of-scope row at .85: only .9 reaches the target; if class 1 is `nothing` and predicted, it is correct."""
    probabilities, truth = np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 0])
    out_of_scope = np.array([[0.15, 0.85]])
    assert abstention(probabilities, truth, 0.95, out_of_scope).threshold == 0.9
    assert abstention(probabilities, truth, 0.95, out_of_scope, nothing=1).threshold == 0.0


def test_what_a_gain_is_worth_in_labels_by_hand() -> None:
    """Errors .4 with few labels and .2 with twice as many: error ∝ 1 / labels. From .2 to .1 takes 100 more of 100."""
    rows = np.arange(1000)
    with_few, with_many, after = (rows % 10 >= 4, rows % 10 >= 2, rows % 10 >= 1)
    worth = worth_in_labels(
        with_few.astype(float),
        with_many.astype(float),
        with_many.astype(float),
        after.astype(float),
        rows.astype(str),
        labels=100,
        ratio=2.0,
        rng=np.random.default_rng(0),
    )
    assert worth is not None
    assert worth.value == pytest.approx(100, rel=0.1)
    assert worth.low < worth.value < worth.high
    flat = worth_in_labels(
        with_many.astype(float), with_many.astype(float), with_few.astype(float), after.astype(float),
        rows.astype(str), labels=100, ratio=2.0, rng=np.random.default_rng(0),
    )  # fmt: skip
    assert flat is None, "if more labels do not help, the exponent is unknown"


def test_a_round_that_harms_a_class_is_rejected() -> None:
    """Of 200 rows per class, class 1 loses 40 correct rows and class 0 gains 60: better in all, but class 1 is harmed."""
    truth = np.repeat([0, 1], 200)
    number = np.arange(400) % 200
    old = np.where(truth == 0, number < 120, number < 160)
    new = np.where(truth == 0, number < 180, number < 120)
    before, after = (
        softmax(6 * np.where(correct[:, None], np.eye(2)[truth], np.eye(2)[1 - truth])) for correct in (old, new)
    )
    decision = compare_rounds(
        1, 0, before, after, truth, np.arange(400).astype(str),
        weights=np.ones(400), changed_share=0.5, last=False, params=TrainParams(bootstrap_draws=500), seed=0,
    )  # fmt: skip
    assert decision.decision == "rejected"
    assert [(change.label, change.harmed, round(change.change.value, 6)) for change in decision.classes] == [
        (0, False, 0.3),
        (1, True, -0.2),
    ]
    assert decision.reason.startswith("significantly lower recall in 1 class; log loss -")


def test_a_later_model_is_the_vote_of_the_previous_one_and_each_new_learner() -> None:
    """Votes 3 : 1 : 1; the previous model is calibrated already, so its logits get the temperature 1."""
    truth = np.arange(60) % 2
    logits = {name: np.random.default_rng(number).normal(size=(60, 2)) for number, name in enumerate("abc")}
    learners = [Candidate("logistic_regression", ("collected",)), Candidate("nearest_neighbors", ("collected",))]
    previous = predictions(logits["a"])
    trained = {learner: predictions(logits[name]) for learner, name in zip(learners, "bc", strict=True)}
    choice = blend(previous, 3.0, trained, evaluation_rows(truth))
    assert choice.members == (PREVIOUS_MODEL, *learners)
    assert (choice.votes, choice.temperatures[0]) == ((3.0, 1.0, 1.0), 1.0)
    temperatures = [fit_temperature(logits[name], truth) for name in "bc"]
    parts = [softmax(logits["b"] / temperatures[0]), softmax(logits["c"] / temperatures[1])]
    mean = (3 * softmax(logits["a"]) + parts[0] + parts[1]) / 5
    combined = choice.combine({PREVIOUS_MODEL: previous, **trained})
    assert combined.labeled == pytest.approx(softmax(np.log(mean) / choice.temperature))


def test_a_round_without_evaluation_rows_is_rejected_if_classes_vanish() -> None:
    """It is accepted, with the reason, if none does."""
    assert decide_without_evaluation_rows(1, 0, 2, last=False).decision == "rejected"
    accepted = decide_without_evaluation_rows(1, 0, 0, last=True)
    assert (accepted.decision, accepted.accepted_round, accepted.stop, accepted.rows) == ("accepted", 1, True, 0)


def test_a_steps_contribution_is_paired_over_the_learners_with_and_without_it() -> None:
    """Augmenting fixes two rows of ten for one learner and one for another: +15 points; other learners do not count."""
    truth = np.zeros(10, dtype=np.int64)

    def correct(n_rows: int) -> np.ndarray:
        return np.eye(2)[(np.arange(10) >= n_rows).astype(int)]

    probabilities = {
        Candidate("svm", ("collected",), "plain"): correct(6),
        Candidate("svm", ("collected", "augment"), "plain"): correct(8),
        Candidate("logistic_regression", ("collected",), "plain"): correct(7),
        Candidate("logistic_regression", ("collected", "augment"), "plain"): correct(8),
        Candidate("logistic_regression", ("collected",), "label_weighted"): correct(6),
        Candidate("network", ("collected",), "plain"): correct(1),
    }
    steps = {step.step: step for step in step_contributions(probabilities, evaluation_rows(truth), 500, 0)}
    assert steps["augment"].difference.value == pytest.approx(0.15)
    assert steps["augment"].learners == ("svm", "logistic_regression")
    assert steps["label_weighted"].kind == "loss"
    assert steps["label_weighted"].difference.value == pytest.approx(-0.1)
    assert set(steps) == {"augment", "label_weighted"}
    assert (
        step_contributions(
            {candidate: np.zeros((0, 2)) for candidate in probabilities}, evaluation_rows(truth[:0]), 500, 0
        )
        == []
    )


def test_the_learning_curve_adds_the_labels_of_one_fold_after_the_other() -> None:
    """Forty labels in five folds: training on 8, 16, 24 and 32 separates all rows; two folds give no curve."""
    rows, inputs, truth = labeled(40)
    curve = learning_curve(training_data(rows, inputs), evaluation_rows(truth))
    assert curve is not None
    assert [(point.labels, point.accuracy.value) for point in curve.points] == [
        (8, 1),
        (16, 1),
        (24, 1),
        (32, 1),
    ]
    assert (curve.labels, curve.rows) == (40, 40)
    halves = replace(rows, fold=rows.fold % 2)
    assert learning_curve(training_data(halves, inputs), evaluation_rows(truth)) is None


def test_a_curve_rises_if_labels_help() -> None:
    """Overlapping classes in forty dimensions: a fifth of the labels gives a lower accuracy."""
    rng = np.random.default_rng(0)
    rows, _, truth = labeled(400)
    features = rng.normal(size=(400, 40)).astype(np.float32)
    features[:, 0] += 3 * truth
    curve = learning_curve(training_data(rows, Inputs(features)), evaluation_rows(truth))
    assert curve is not None
    values = [point.accuracy.value for point in curve.points]
    assert values[0] < values[-1] - 0.02
