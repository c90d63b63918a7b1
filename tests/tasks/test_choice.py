"""train: what is chosen, when to abstain, and what a round is worth in labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benches import bench_of, judged, labeled, predictions

from seedling.config.params import TrainParams
from seedling.features.classical import Inputs
from seedling.stats.statistics import softmax
from seedling.train.choice import abstention, choose, greedy
from seedling.train.learning_curve import learning_curve, worth_in_labels
from seedling.train.round_decision import judge, scores_of_rows, unjudged
from seedling.train.step_contributions import step_contributions
from seedling.train.tally import Candidate


def test_the_greedy_selection_takes_learners_that_mend_each_other() -> None:
    """Two are each right on one half of the rows and undecided on the other; a third is undecided everywhere."""
    truth = np.arange(100) % 2
    sure = 4 * np.eye(2)[truth]
    half = np.arange(100) < 50
    trained = {
        Candidate("svm", ("collected",)): predictions(np.where(half[:, None], sure, 0.0)),
        Candidate("random_forest", ("collected",)): predictions(np.where(half[:, None], 0.0, sure)),
        Candidate("logistic_regression", ("collected",)): predictions(np.zeros((100, 2))),
    }
    picked = greedy(trained, judged(truth))
    assert {one.learner for one in picked} == {"svm", "random_forest"}
    assert {one.learner for one in choose(trained, judged(truth)).members} == {"svm", "random_forest"}


def test_without_a_row_to_judge_by_the_usual_learners_vote() -> None:
    """Each on its last recipe, no matter how they do; trees and neighbors do not vote."""
    nothing = predictions(np.zeros((0, 2)))
    trained = {
        Candidate(name, recipe): nothing
        for name in ("logistic_regression", "random_forest")
        for recipe in (("collected",), ("collected", "augment"))
    }
    found = choose(trained, judged(np.zeros(0, dtype=np.int64)))
    assert found.members == (Candidate("logistic_regression", ("collected", "augment")),)


def test_the_limit_to_abstain_by_hand() -> None:
    """Confidences .9, .8, .7, .6, right, right, wrong, right: three of four are right in all; 2 of 2 are, surer than .8."""
    chances = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    truth = np.array([0, 0, 1, 0])
    assert abstention(chances, truth, 0.75)["threshold"] == 0.0
    found = abstention(chances, truth, 0.95)
    assert (found["threshold"], found["coverage"]["value"], found["accuracy"]["value"]) == (0.8, 0.5, 1.0)


def test_out_of_scope_rows_count_as_wrong_but_where_the_model_says_nothing() -> None:
    """A row of none of the classes at .85: only .9 is sure enough; where class 1 is `nothing` and said, it is right."""
    chances, truth = np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 0])
    outside = np.array([[0.15, 0.85]])
    assert abstention(chances, truth, 0.95, outside)["threshold"] == 0.9
    assert abstention(chances, truth, 0.95, outside, nothing=1)["threshold"] == 0.0


def test_what_a_gain_is_worth_in_labels_by_hand() -> None:
    """Errors .4 with few labels and .2 with twice as many: they fall as 1 / labels. From .2 to .1 is 100 labels more of 100."""
    rows = np.arange(1000)
    few, many, after = (rows % 10 >= 4, rows % 10 >= 2, rows % 10 >= 1)
    found = worth_in_labels(
        few.astype(float),
        many.astype(float),
        many.astype(float),
        after.astype(float),
        rows.astype(str),
        labels=100,
        ratio=2.0,
        rng=np.random.default_rng(0),
    )
    assert found is not None
    assert found.value == pytest.approx(100, rel=0.1)
    assert found.low < found.value < found.high
    flat = worth_in_labels(
        many.astype(float), many.astype(float), few.astype(float), after.astype(float), rows.astype(str),
        labels=100, ratio=2.0, rng=np.random.default_rng(0),
    )  # fmt: skip
    assert flat is None, "where more labels brought nothing, nothing can be said"


def test_classes_that_surely_lost_are_named() -> None:
    """Of 200 rows a class, class 1 loses 40 that were right and class 0 wins 40: the sum is 0, the harm is said."""
    truth = np.repeat([0, 1], 200)
    place = np.arange(400) % 200
    old = np.where(truth == 0, place < 120, place < 160)
    new = np.where(truth == 0, place < 160, place < 120)
    both = [softmax(6 * np.where(one[:, None], np.eye(2)[truth], np.eye(2)[1 - truth])) for one in (old, new)]
    found = judge(
        1, 0, [both[0][None]], [both[1][None]], truth, np.arange(400).astype(str),
        changed_share=0.5, last=False, params=TrainParams(bootstrap_draws=500), seed=0,
    )  # fmt: skip
    assert found.decision == "accepted"
    assert [(one.label, one.harmed, round(one.change.value, 6)) for one in found.classes] == [
        (0, False, 0.2),
        (1, True, -0.2),
    ]
    assert "1 of 2 classes lost rows for certain" in found.reason


def test_a_round_that_nothing_can_judge_is_rejected_where_classes_vanish() -> None:
    """And accepted, with the reason, where none does."""
    assert unjudged(1, 0, 2, last=False).decision == "rejected"
    accepted = unjudged(1, 0, 0, last=True)
    assert (accepted.decision, accepted.accepted_round, accepted.stop, accepted.rows) == ("accepted", 1, True, 0)


def test_a_learner_of_one_seed_counts_alike_in_all() -> None:
    """Two learners on one row: right under both seeds, and under the first alone: 1 and 1/2."""
    always, first_alone = np.array([[[0.9, 0.1]]]), np.array([[[0.9, 0.1]], [[0.2, 0.8]]])
    found = scores_of_rows([always, first_alone], lambda said: said[:, 0] > 0.5)
    assert found.tolist() == [[1.0], [0.5]]


def test_what_a_step_bought_is_paired_over_the_learners_that_have_both() -> None:
    """Augmenting mends two rows of ten for one learner and one for the other: +15 points; a learner without it counts nowhere."""
    truth = np.zeros(10, dtype=np.int64)

    def right(many: int) -> np.ndarray:
        return np.eye(2)[(np.arange(10) >= many).astype(int)]

    said = {
        Candidate("svm", ("collected",), "plain"): right(6),
        Candidate("svm", ("collected", "augment"), "plain"): right(8),
        Candidate("logistic_regression", ("collected",), "plain"): right(7),
        Candidate("logistic_regression", ("collected", "augment"), "plain"): right(8),
        Candidate("logistic_regression", ("collected",), "label_weighted"): right(6),
        Candidate("network", ("collected",), "plain"): right(1),
    }
    steps = {one["step"]: one for one in step_contributions(said, judged(truth), 500, 0)}
    assert steps["augment"]["difference"]["value"] == pytest.approx(0.15)
    assert steps["augment"]["learners"] == ["svm", "logistic_regression"]
    assert (steps["label_weighted"]["kind"], steps["label_weighted"]["difference"]["value"]) == (
        "loss",
        pytest.approx(-0.1),
    )
    assert set(steps) == {"augment", "label_weighted"}
    assert step_contributions({one: chances[:0] for one, chances in said.items()}, judged(truth[:0]), 500, 0) == []


def test_the_learning_curve_counts_the_labels_of_one_fold_after_the_other() -> None:
    """Forty labels in five folds: 8, 16, 24 and 32 teach rows that anyone can tell apart; two folds draw no curve."""
    rows, inputs, truth = labeled(40)
    found = learning_curve(bench_of(rows, inputs), judged(truth))
    assert found is not None
    assert [(one["labels"], one["accuracy"]["value"]) for one in found["points"]] == [(8, 1), (16, 1), (24, 1), (32, 1)]
    assert (found["labels"], found["rows"]) == (40, 40)
    halves = replace(rows, fold=rows.fold % 2)
    assert learning_curve(bench_of(halves, inputs), judged(truth)) is None


def test_a_curve_rises_where_labels_help() -> None:
    """Rows about corners that overlap, in forty dimensions: with a fifth of the labels more is wrong."""
    source = np.random.default_rng(0)
    rows, _, truth = labeled(400)
    features = source.normal(size=(400, 40)).astype(np.float32)
    features[:, 0] += 3 * truth
    found = learning_curve(bench_of(rows, Inputs(features)), judged(truth))
    assert found is not None
    values = [one["accuracy"]["value"] for one in found["points"]]
    assert values[0] < values[-1] - 0.02
