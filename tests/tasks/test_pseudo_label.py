"""pseudo_label: the filter by hand, and refinement that never uses what it is judged by."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from seedling.config.params import PseudoLabelParams
from seedling.pseudo_label import _rows, audit, choose_filter, difficulty_weights
from seedling.pseudo_label.filters import FILTERS, Seen, compare_filters, expected_gain, unreliable_classes
from seedling.pseudo_label.queue import pick, worth
from seedling.pseudo_label.teacher import TEACHER_WEIGHTS, Refined, Taught, refine, weight_of_teacher
from seedling.stats.statistics import softmax


def seen(
    chances: list[list[float]],
    agrees: list[bool] | None = None,
    share: float = 1.0,
    dropout_std: list[float] | None = None,
) -> Seen:
    rows = np.array(chances)
    agreed = np.array(agrees or [True] * len(rows))
    return Seen(rows, agreed, share, np.zeros(rows.shape[1], dtype=bool), np.array(dropout_std or [0.0] * len(rows)))


def kept(name: str, shown: Seen, threshold: float) -> list[bool]:
    return FILTERS[name](shown, threshold).tolist()


def test_each_class_has_a_limit_of_its_own() -> None:
    """Mean confidence 0.8 in all, 0.9 and 0.7 a class: the limits are 1.0 × 0.8 = 0.8 and 0.8 × 0.7 / 0.9 = 0.622."""
    chances = [[0.98, 0.02], [0.82, 0.18], [0.2, 0.8], [0.4, 0.6]]
    assert kept("class_wise", seen(chances), 1.0) == [True, True, True, False]


def test_a_model_that_is_unsure_of_everything_still_keeps_its_surer_rows() -> None:
    """After few labels no confidence is high: 0.6 and 0.4 of a mean of 0.5 are told apart all the same."""
    assert kept("class_wise", seen([[0.6, 0.2, 0.2], [0.4, 0.3, 0.3]]), 0.9) == [True, False]


def test_rows_of_a_hard_class_count_more() -> None:
    """Two rows of each class, mean confidences 0.9 and 0.6, 0.75 in all: factors (0.75 / 0.9)^2 and (0.75 / 0.6)^2 over
    their mean; at half strength each class's confidence times its factor is the same.
    """
    rows = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    plain = np.array([(0.75 / 0.9) ** 2, (0.75 / 0.6) ** 2])
    assert difficulty_weights(rows, 1.0)[[0, 2]] == pytest.approx(plain / plain.mean())
    even = difficulty_weights(rows, 0.5)
    assert 0.9 * even[0] == pytest.approx(0.6 * even[2])
    assert difficulty_weights(rows, 0.0).tolist() == [1, 1, 1, 1]


def test_no_rows_are_no_rows() -> None:
    """An empty pool is kept as it is, whatever the filter."""
    nothing = Seen(np.zeros((0, 3)), np.zeros(0, dtype=bool), 0.5, np.zeros(3, dtype=bool), np.zeros(0))
    assert all(judge(nothing, 0.9).shape == (0,) for judge in FILTERS.values())


def test_each_filter_keeps_what_its_name_says() -> None:
    """Four rows by hand: confidences .9, .6, .8, .55, two a class; teacher and neighbors disagree on the third."""
    shown = seen(
        [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.45, 0.55]],
        agrees=[True, True, False, True],
        share=0.5,
        dropout_std=[0.0, 0.35, 0.1, 0.29],
    )
    assert kept("dropout_certainty", shown, 0.7) == [True, False, True, True]
    assert kept("all", shown, 0.7) == [True] * 4
    assert kept("confidence", shown, 0.7) == [True, False, True, False]
    assert kept("top_per_class", shown, 0.7) == [True, False, True, False]
    assert kept("agreement", shown, 0.7) == [True, True, False, True]
    assert kept("curriculum", shown, 0.7) == [True, False, True, False]
    doubtful = Seen(shown.probabilities, shown.agrees, 1.0, np.array([False, True]), shown.dropout_std)
    assert kept("without_unreliable_classes", doubtful, 0.7) == [True, True, False, False]


def test_a_class_is_doubted_where_it_is_surely_more_often_wrong_than_right() -> None:
    """Of ten rows said to be a, one is: Wilson's interval ends at .40. Of two said to be b, none is: it ends at .66."""
    said, truth = np.array([0] * 10 + [1] * 2), np.array([0] + [1] * 9 + [0] * 2)
    assert unreliable_classes(said, truth, 3).tolist() == [True, False, False]


def test_the_expected_gain_is_zero_for_labels_at_random() -> None:
    """Of three classes one in three is right: 1 × 1 − 2 × 1/2 = 0; all right and sure: 1; half of them kept: 0.5."""
    right = np.array([True, False, False])
    assert expected_gain(np.ones(3, dtype=bool), right, np.ones(3), 3) == 0.0
    assert expected_gain(np.ones(4, dtype=bool), np.ones(4, dtype=bool), np.ones(4), 3) == 1.0
    assert expected_gain(np.arange(4) < 2, np.ones(4, dtype=bool), np.ones(4), 3) == 0.5


def test_the_bake_off_keeps_all_unless_another_filter_is_surely_better() -> None:
    """Rows on which teacher and neighbors disagree are all wrong: agreement wins. Where they are right: all."""
    truth, agrees = np.zeros(60, dtype=np.int64), np.arange(60) < 40
    wrong = Seen(
        np.where(agrees[:, None], [[0.9, 0.1]], [[0.1, 0.9]]), agrees, 1.0, np.zeros(2, dtype=bool), np.zeros(60)
    )
    name, table = compare_filters(wrong, truth, 0.5, np.random.default_rng(0))
    assert name == "agreement"
    assert {one.filter: one.kept for one in table}["agreement"] == 40
    fine = Seen(np.full((60, 2), [0.9, 0.1]), agrees, 1.0, np.zeros(2, dtype=bool), np.zeros(60))
    assert compare_filters(fine, truth, 0.5, np.random.default_rng(0))[0] == "all"


def test_the_queue_wants_what_is_unsure_and_stands_for_many_and_is_rare() -> None:
    """By hand: margins 0 and .8; a density twice as high; a class that holds a quarter of the pool needs √3 more."""
    chances = np.array([[0.5, 0.5], [0.9, 0.1]])
    scores = worth(chances, np.array([2.0, 1.0]))
    assert round(scores[0] / scores[1], 6) == 10.0
    rare = np.array([[0.75, 0.25]] * 3 + [[0.25, 0.75]])
    one = worth(rare, np.ones(4))
    shares = rare.mean(axis=0)
    assert round(one[3] / one[0], 6) == round(float(np.sqrt(shares[0] / shares[1])), 6)


def test_a_row_beside_a_picked_one_waits() -> None:
    """Scores 1, .9 and .6, the first two neighbors of each other: .9 counts .45 once the first is picked."""
    graph = sparse.csr_matrix(np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=float))
    assert pick(np.array([1.0, 0.9, 0.6]), graph, 0, 3).tolist() == [0, 2, 1]


def taught(truth: np.ndarray) -> Taught:
    rng = np.random.default_rng(4)
    many, pool = len(truth), 60
    logits = rng.normal(size=(3, pool, 2))
    return Taught(
        labeled_ids=[f"l{n}" for n in range(many)],
        pool_ids=[f"p{n}" for n in range(pool)],
        half=np.zeros(pool, dtype=np.int64),
        labeled=np.full((many, 2), 0.5),
        pool=np.stack([softmax(one) for one in logits]),
        fold=np.arange(many) % 2,
        folds=[0, 1],
        truth=truth,
        weights=np.ones(many),
        human=np.ones(many, dtype=bool),
        repaired=np.zeros(many, dtype=bool),
        trust=np.ones((3, many)),
        labeled_std=np.zeros(many),
        pool_std=np.zeros((3, pool)),
    )


def test_a_folds_labels_do_not_reach_its_own_lineage() -> None:
    """Flipping every label of fold 0 leaves what lineage 0 says of the pool in the same order of confidence."""
    features = np.random.default_rng(5).normal(size=(80, 4)).astype(np.float32)
    truth = np.random.default_rng(6).integers(0, 2, 20)
    flipped = np.where(np.arange(20) % 2 == 0, 1 - truth, truth)
    first, second = (refine(taught(one), features, PseudoLabelParams()).probabilities for one in (truth, flipped))
    odds = [np.log(one[0][:, 0] / one[0][:, 1]) for one in (first, second)]  # equal up to the shared temperature
    assert (np.argsort(odds[0]) == np.argsort(odds[1])).all()
    assert not np.allclose(first[1], second[1]), "lineage 1 does see fold 0"


def test_a_teacher_that_nothing_proves_gives_way_to_the_labels() -> None:
    """Two clusters with a label each, and a teacher that is sure of the other class everywhere: held to be right where rows
    were held out, and no more than a tie-breaker where every row was needed to teach it.
    """
    rng = np.random.default_rng(8)
    centers = np.array([[0.0, 0.0], [9.0, 9.0]])
    features = (centers[[0, 1] + [0] * 30 + [1] * 30] + rng.normal(size=(62, 2))).astype(np.float32)
    wrong = np.repeat(np.array([[0.0, 1.0], [1.0, 0.0]]), 30, axis=0)
    known = dataclasses.replace(
        taught(np.array([0, 1])),
        labeled=np.array([[0.0, 1.0], [1.0, 0.0]]),
        pool=np.stack([wrong] * 3),
        trust=np.ones((3, 2)),
    )
    alone = dataclasses.replace(known, fold=np.array([-1, -1]), folds=[], pool=wrong[None], trust=np.ones((1, 2)))
    proven, unproven = (refine(one, features, PseudoLabelParams()).probabilities[-1] for one in (known, alone))
    assert (proven.argmax(axis=1) == wrong.argmax(axis=1)).mean() > 0.8, "thirty opinions outweigh one label"
    assert (unproven.argmax(axis=1) == wrong.argmin(axis=1)).all()


def test_a_teacher_that_held_out_rows_speak_against_counts_less() -> None:
    """Eighty rows. Where the teacher turns every fourth right label into a wrong one, it is put down to a weight at which it
    turns none; where it mends every fourth, or only twenty rows speak against it, the usual weight stands.
    """
    truth = np.zeros(80, dtype=np.int64)
    fourth = np.arange(80)[:, None] % 4 == 0
    right, wrong = np.array([[0.7, -0.7]]), np.array([[-0.7, 0.7]])

    def chosen(labels: np.ndarray, opinion: np.ndarray, rows: int = 80) -> float:
        said = [(labels + opinion * np.sqrt(weight / 0.1))[:rows] for weight in TEACHER_WEIGHTS]
        return weight_of_teacher(said, truth[:rows], np.random.default_rng(0))

    harmful, helpful = np.where(fourth, 3 * wrong, right), np.where(fourth, 3 * right, right)
    clear = np.repeat(right, 80, axis=0)
    assert chosen(clear, harmful) < 0.1
    assert chosen(np.where(fourth, wrong, right), helpful) == 0.1
    assert chosen(clear, harmful, rows=20) == 0.1


def test_labels_win_over_a_teacher_that_is_sure_and_wrong_and_each_lineage_learns_it_from_others_folds() -> None:
    """Two clusters of two hundred rows, eighty of each labeled at a tenth of a row's weight; the teacher is sure of the other
    class everywhere. At .1 its 120 opinions would outweigh the labels around; held-out rows put it down, and the pool is right.
    """
    rng = np.random.default_rng(9)
    truth = np.arange(160) // 2 % 2  # both classes in both folds
    where = np.concatenate([truth, np.repeat([0, 1], 120)])
    features = (np.array([[0.0, 0.0], [9.0, 9.0]])[where] + rng.normal(size=(400, 2))).astype(np.float32)
    wrong = np.eye(2)[1 - where] * 0.998 + 0.001
    known = dataclasses.replace(
        taught(truth),
        labeled=wrong[:160],
        pool_ids=[f"p{number}" for number in range(240)],
        pool=np.stack([wrong[160:]] * 3),
        pool_std=np.zeros((3, 240)),
        weights=np.full(160, 0.1),
    )
    found = refine(known, features, PseudoLabelParams())
    assert found.teacher_weight is not None
    assert found.teacher_weight < 0.1
    assert (found.probabilities.argmax(axis=2) == where[160:]).all()


def test_what_a_lineage_learns_from_does_not_depend_on_the_others() -> None:
    """With another final lineage, lineage 0's labels and weights of the pool are the same to the bit."""
    known = taught(np.arange(20) % 2)
    rows = pd.DataFrame(
        {"id": known.pool_ids, "origin": None, "license": None, "attribution": None, "group": known.pool_ids}
    )
    other = known.pool.copy()
    other[-1] = other[-1][:, ::-1]
    both = [
        [
            (row.extra["pseudo_label_by_fold"][0], row.extra["pseudo_weight_by_fold"][0])
            for row, _ in _rows(
                rows,
                known,
                refined(chances),
                np.ones(chances.shape[:2], dtype=bool),
                ["a", "b"],
                PseudoLabelParams(),
                1,
            )
        ]
        for chances in (known.pool, other)
    ]
    assert both[0] == both[1]
    assert len({weight for _, weight in both[0]}) > 10


def refined(pool: np.ndarray, held_out: np.ndarray | None = None, truth: np.ndarray | None = None) -> Refined:
    shown = np.zeros((0, 2)) if held_out is None else held_out
    return Refined(
        probabilities=pool,
        agrees=np.ones(pool.shape[:2], dtype=bool),
        held_out=shown,
        held_agrees=np.ones(len(shown), dtype=bool),
        dropout_std=np.zeros(pool.shape[:2]),
        held_out_std=np.zeros(len(shown)),
        truth=np.zeros(0, dtype=np.int64) if truth is None else truth,
        temperature=1.0,
        teacher_weight=None,
        graph=None,
        density=np.ones(pool.shape[1]),
    )


def test_the_audit_counts_what_the_filter_would_keep_in_all_and_by_class() -> None:
    """The mean is 0.85, so class_wise's limit is 0.765: three of four held-out rows are kept, two of them right."""
    shown = np.array([[0.95, 0.05], [0.95, 0.05], [0.95, 0.05], [0.55, 0.45]])
    known = refined(np.full((1, 5, 2), 0.5), shown, np.array([0, 0, 1, 0]))
    _, name, table = choose_filter(known, PseudoLabelParams(filter="class_wise"), 1.0, 0)
    found = audit(known, name, table, ["a", "b"])
    assert (found["filter"], found["rows"], found["kept"]) == ("class_wise", 4, 3)
    assert found["precision"]["value"] == round(2 / 3, 6)
    assert found["classes"]["a"]["precision"]["value"] == 0.75
    assert found["classes"]["b"] == {"rows": 0, "precision": None}
