"""Pseudo-labels: filters compared with hand calculations, and propagation that never uses the labels that it is
evaluated on.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from seedling.config.params import PseudoLabelParams
from seedling.pseudo_label import _rows, audit, choose_filter, difficulty_weights
from seedling.pseudo_label.filters import FILTERS, FilterInput, compare_filters, expected_gain, unreliable_classes
from seedling.pseudo_label.queue import labeling_worth, pick_rows
from seedling.pseudo_label.teacher import (
    TEACHER_WEIGHTS,
    PseudoLabels,
    TeacherPredictions,
    choose_teacher_weight,
    refine,
)
from seedling.records.stage_notes import ClassPrecision
from seedling.stats.statistics import softmax


def filter_input(
    probabilities: list[list[float]],
    agrees: list[bool] | None = None,
    share: float = 1.0,
    dropout_std: list[float] | None = None,
) -> FilterInput:
    rows = np.array(probabilities)
    agreed = np.array(agrees or [True] * len(rows))
    return FilterInput(
        rows, agreed, share, np.zeros(rows.shape[1], dtype=bool), np.array(dropout_std or [0.0] * len(rows))
    )


def kept(name: str, rows: FilterInput, threshold: float) -> list[bool]:
    return FILTERS[name](rows, threshold).tolist()


def test_each_class_has_its_own_limit() -> None:
    """Mean confidence 0.8 in all, 0.9 and 0.7 per class: the limits are 1.0 × 0.8 = 0.8 and 0.8 × 0.7 / 0.9 = 0.622."""
    probabilities = [[0.98, 0.02], [0.82, 0.18], [0.2, 0.8], [0.4, 0.6]]
    assert kept("class_wise", filter_input(probabilities), 1.0) == [True, True, True, False]


def test_a_model_with_low_confidence_still_keeps_its_most_confident_rows() -> None:
    """After few labels no confidence is high: 0.6 is kept and 0.4 is not, with a mean of 0.5."""
    assert kept("class_wise", filter_input([[0.6, 0.2, 0.2], [0.4, 0.3, 0.3]]), 0.9) == [True, False]


def test_rows_of_a_difficult_class_weigh_more() -> None:
    """Two rows per class, mean confidences 0.9 and 0.6, 0.75 in total: factors (0.75 / 0.9)^2 and (0.75 / 0.6)^2.

    They are divided by their mean. At half strength, confidence times factor is the same for both classes.
    """
    rows = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    plain = np.array([(0.75 / 0.9) ** 2, (0.75 / 0.6) ** 2])
    assert difficulty_weights(rows, 1.0)[[0, 2]] == pytest.approx(plain / plain.mean())
    even = difficulty_weights(rows, 0.5)
    assert 0.9 * even[0] == pytest.approx(0.6 * even[2])
    assert difficulty_weights(rows, 0.0).tolist() == [1, 1, 1, 1]


def test_every_filter_accepts_an_empty_pool() -> None:
    """The mask is empty too."""
    empty = FilterInput(np.zeros((0, 3)), np.zeros(0, dtype=bool), 0.5, np.zeros(3, dtype=bool), np.zeros(0))
    assert all(filter_rows(empty, 0.9).shape == (0,) for filter_rows in FILTERS.values())


def test_each_filter_keeps_what_its_name_says() -> None:
    """Four rows by hand: confidences .9, .6, .8, .55, two per class; teacher and neighbors disagree on the third."""
    rows = filter_input(
        [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.45, 0.55]],
        agrees=[True, True, False, True],
        share=0.5,
        dropout_std=[0.0, 0.35, 0.1, 0.29],
    )
    assert kept("dropout_certainty", rows, 0.7) == [True, False, True, True]
    assert kept("all", rows, 0.7) == [True] * 4
    assert kept("confidence", rows, 0.7) == [True, False, True, False]
    assert kept("top_per_class", rows, 0.7) == [True, False, True, False]
    assert kept("agreement", rows, 0.7) == [True, True, False, True]
    assert kept("curriculum", rows, 0.7) == [True, False, True, False]
    unreliable = FilterInput(rows.probabilities, rows.agrees, 1.0, np.array([False, True]), rows.dropout_std)
    assert kept("without_unreliable_classes", unreliable, 0.7) == [True, True, False, False]


def test_a_class_is_unreliable_if_its_precision_is_significantly_below_a_half() -> None:
    """One of ten rows predicted as class 0 is correct: Wilson interval up to .40. None of two of class 1: up to .66."""
    predicted, truth = np.array([0] * 10 + [1] * 2), np.array([0] + [1] * 9 + [0] * 2)
    assert unreliable_classes(predicted, truth, 3).tolist() == [True, False, False]


def test_the_expected_gain_is_zero_for_random_labels() -> None:
    """With three classes one in three is correct: 1 × 1 − 2 × 1/2 = 0; all correct: 1; half of them kept: 0.5."""
    correct = np.array([True, False, False])
    assert expected_gain(np.ones(3, dtype=bool), correct, np.ones(3), 3) == 0.0
    assert expected_gain(np.ones(4, dtype=bool), np.ones(4, dtype=bool), np.ones(4), 3) == 1.0
    assert expected_gain(np.arange(4) < 2, np.ones(4, dtype=bool), np.ones(4), 3) == 0.5


def test_the_filter_comparison_keeps_all_unless_another_filter_is_significantly_better() -> None:
    """If all rows on which teacher and neighbors disagree are wrong, agreement wins; if they are correct, all."""
    truth, agrees = np.zeros(60, dtype=np.int64), np.arange(60) < 40
    wrong = FilterInput(
        np.where(agrees[:, None], [[0.9, 0.1]], [[0.1, 0.9]]), agrees, 1.0, np.zeros(2, dtype=bool), np.zeros(60)
    )
    name, table = compare_filters(wrong, truth, 0.5, np.random.default_rng(0))
    assert name == "agreement"
    assert {result.filter: result.kept for result in table}["agreement"] == 40
    correct = FilterInput(np.full((60, 2), [0.9, 0.1]), agrees, 1.0, np.zeros(2, dtype=bool), np.zeros(60))
    assert compare_filters(correct, truth, 0.5, np.random.default_rng(0))[0] == "all"


def test_the_queue_prefers_rows_that_are_uncertain_dense_and_of_rare_classes() -> None:
    """By hand: margins 0 and .8; a density twice as high; a class with a quarter of the pool has √3 the need."""
    probabilities = np.array([[0.5, 0.5], [0.9, 0.1]])
    scores = labeling_worth(probabilities, np.array([2.0, 1.0]))
    assert round(scores[0] / scores[1], 6) == 10.0
    rare = np.array([[0.75, 0.25]] * 3 + [[0.25, 0.75]])
    scores = labeling_worth(rare, np.ones(4))
    shares = rare.mean(axis=0)
    assert round(scores[3] / scores[0], 6) == round(float(np.sqrt(shares[0] / shares[1])), 6)


def test_a_picked_row_halves_the_worth_of_its_neighbors() -> None:
    """Worths 1, .9 and .6, the first two are neighbors: .9 becomes .45 once the first is picked."""
    graph = sparse.csr_matrix(np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=float))
    assert pick_rows(np.array([1.0, 0.9, 0.6]), graph, 0, 3).tolist() == [0, 2, 1]


def teacher_predictions(truth: np.ndarray) -> TeacherPredictions:
    rng = np.random.default_rng(4)
    n_labeled, pool = len(truth), 60
    logits = rng.normal(size=(3, pool, 2))
    return TeacherPredictions(
        labeled_ids=[f"l{n}" for n in range(n_labeled)],
        pool_ids=[f"p{n}" for n in range(pool)],
        half=np.zeros(pool, dtype=np.int64),
        labeled=np.full((n_labeled, 2), 0.5),
        pool=np.stack([softmax(of_fold) for of_fold in logits]),
        fold=np.arange(n_labeled) % 2,
        folds=[0, 1],
        truth=truth,
        weights=np.ones(n_labeled),
        human=np.ones(n_labeled, dtype=bool),
        repaired=np.zeros(n_labeled, dtype=bool),
        label_weights=np.ones((3, n_labeled)),
        labeled_std=np.zeros(n_labeled),
        pool_std=np.zeros((3, pool)),
    )


def test_a_folds_labels_do_not_reach_its_fold_model() -> None:
    """Flipping every label of fold 0 does not change the order of fold model 0's confidences in the pool."""
    features = np.random.default_rng(5).normal(size=(80, 4)).astype(np.float32)
    truth = np.random.default_rng(6).integers(0, 2, 20)
    flipped = np.where(np.arange(20) % 2 == 0, 1 - truth, truth)
    first, second = (
        refine(teacher_predictions(labels), features, PseudoLabelParams()).probabilities for labels in (truth, flipped)
    )
    odds = [
        np.log(by_fold[0][:, 0] / by_fold[0][:, 1]) for by_fold in (first, second)
    ]  # equal up to the shared temperature
    assert (np.argsort(odds[0]) == np.argsort(odds[1])).all()
    assert not np.allclose(first[1], second[1]), "fold model 1 does see fold 0"


def test_an_untested_teacher_weighs_less_than_the_labels() -> None:
    """Two clusters with one label each, and a teacher that is confident of the wrong class in all rows.

    With held-out rows it has the default weight; if it was trained on all rows, it is only a tie-breaker.
    """
    rng = np.random.default_rng(8)
    centers = np.array([[0.0, 0.0], [9.0, 9.0]])
    features = (centers[[0, 1] + [0] * 30 + [1] * 30] + rng.normal(size=(62, 2))).astype(np.float32)
    wrong = np.repeat(np.array([[0.0, 1.0], [1.0, 0.0]]), 30, axis=0)
    with_folds = dataclasses.replace(
        teacher_predictions(np.array([0, 1])),
        labeled=np.array([[0.0, 1.0], [1.0, 0.0]]),
        pool=np.stack([wrong] * 3),
        label_weights=np.ones((3, 2)),
    )
    without_folds = dataclasses.replace(
        with_folds, fold=np.array([-1, -1]), folds=[], pool=wrong[None], label_weights=np.ones((1, 2))
    )
    tested, untested = (
        refine(predictions, features, PseudoLabelParams()).probabilities[-1]
        for predictions in (with_folds, without_folds)
    )
    assert (tested.argmax(axis=1) == wrong.argmax(axis=1)).mean() > 0.8, "thirty predictions outweigh one label"
    assert (untested.argmax(axis=1) == wrong.argmin(axis=1)).all()


def test_a_teacher_that_is_wrong_on_held_out_rows_weighs_less() -> None:
    """A teacher that turns every fourth of eighty correct labels into a wrong one gets a weight at which it turns none.

    If it fixes every fourth label, or if only twenty rows show the harm, the default weight stays.
    """
    truth = np.zeros(80, dtype=np.int64)
    fourth = np.arange(80)[:, None] % 4 == 0
    correct, wrong = np.array([[0.7, -0.7]]), np.array([[-0.7, 0.7]])

    def chosen(labels: np.ndarray, teacher: np.ndarray, rows: int = 80) -> float:
        logits = [(labels + teacher * np.sqrt(weight / 0.1))[:rows] for weight in TEACHER_WEIGHTS]
        return choose_teacher_weight(logits, truth[:rows], np.random.default_rng(0))

    harmful, helpful = np.where(fourth, 3 * wrong, correct), np.where(fourth, 3 * correct, correct)
    clear = np.repeat(correct, 80, axis=0)
    assert chosen(clear, harmful) < 0.1
    assert chosen(np.where(fourth, wrong, correct), helpful) == 0.1
    assert chosen(clear, harmful, rows=20) == 0.1


def test_labels_outweigh_a_teacher_that_is_confident_and_wrong() -> None:
    """Two clusters of 200 rows, 80 of each labeled with weight .1; the teacher is confident of the wrong class.

    At .1, its 120 predictions would outweigh the labels. Held-out rows lower its weight in every fold model, and all
    labels of the pool are correct.
    """
    rng = np.random.default_rng(9)
    truth = np.arange(160) // 2 % 2  # both classes in both folds
    cluster = np.concatenate([truth, np.repeat([0, 1], 120)])
    features = (np.array([[0.0, 0.0], [9.0, 9.0]])[cluster] + rng.normal(size=(400, 2))).astype(np.float32)
    wrong = np.eye(2)[1 - cluster] * 0.998 + 0.001
    predictions = dataclasses.replace(
        teacher_predictions(truth),
        labeled=wrong[:160],
        pool_ids=[f"p{number}" for number in range(240)],
        pool=np.stack([wrong[160:]] * 3),
        pool_std=np.zeros((3, 240)),
        weights=np.full(160, 0.1),
    )
    labels = refine(predictions, features, PseudoLabelParams())
    assert labels.teacher_weight is not None
    assert labels.teacher_weight < 0.1
    assert (labels.probabilities.argmax(axis=2) == cluster[160:]).all()


def test_the_labels_of_a_fold_model_do_not_depend_on_other_fold_models() -> None:
    """With another final model, fold model 0's labels and weights of the pool are exactly the same."""
    predictions = teacher_predictions(np.arange(20) % 2)
    rows = pd.DataFrame(
        {
            "id": predictions.pool_ids,
            "origin": None,
            "license": None,
            "attribution": None,
            "group": predictions.pool_ids,
        }
    )
    other = predictions.pool.copy()
    other[-1] = other[-1][:, ::-1]
    both = [
        [
            (row.extra["pseudo_label_by_fold"][0], row.extra["pseudo_weight_by_fold"][0])
            for row, _ in _rows(
                rows,
                predictions,
                pseudo_labels(pool),
                np.ones(pool.shape[:2], dtype=bool),
                ["a", "b"],
                PseudoLabelParams(),
                1,
            )
        ]
        for pool in (predictions.pool, other)
    ]
    assert both[0] == both[1]
    assert len({weight for _, weight in both[0]}) > 10


def pseudo_labels(
    pool: np.ndarray, held_out: np.ndarray | None = None, truth: np.ndarray | None = None
) -> PseudoLabels:
    held_out = np.zeros((0, 2)) if held_out is None else held_out
    return PseudoLabels(
        probabilities=pool,
        agrees=np.ones(pool.shape[:2], dtype=bool),
        held_out=held_out,
        held_out_agrees=np.ones(len(held_out), dtype=bool),
        dropout_std=np.zeros(pool.shape[:2]),
        held_out_std=np.zeros(len(held_out)),
        truth=np.zeros(0, dtype=np.int64) if truth is None else truth,
        temperature=1.0,
        teacher_weight=None,
        graph=None,
        density=np.ones(pool.shape[1]),
    )


def test_the_audit_counts_what_the_filter_would_keep_in_total_and_per_class() -> None:
    """The mean is 0.85, so class_wise's limit is 0.765: three of four held-out rows are kept, two of them correct."""
    held_out = np.array([[0.95, 0.05], [0.95, 0.05], [0.95, 0.05], [0.55, 0.45]])
    labels = pseudo_labels(np.full((1, 5, 2), 0.5), held_out, np.array([0, 0, 1, 0]))
    _, name, table = choose_filter(labels, PseudoLabelParams(filter="class_wise"), 1.0, 0)
    results = audit(labels, name, table, ["a", "b"])
    assert (results.filter, results.rows, results.kept) == ("class_wise", 4, 3)
    precisions = [results.precision, results.classes["a"].precision]
    assert [precision and precision.value for precision in precisions] == [round(2 / 3, 6), 0.75]
    assert results.classes["b"] == ClassPrecision(rows=0, precision=None)
