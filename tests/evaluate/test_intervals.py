"""Intervals, slices and scope: against hand calculations, scipy, scikit-learn, and simulated rows of which the truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, f1_score, roc_auc_score, top_k_accuracy_score

from seedling.config.params import EvaluateParams
from seedling.evaluate import intervals
from seedling.evaluate.metrics import with_intervals
from seedling.evaluate.scope import operating_points, out_of_scope, risk_coverage_curve, threshold_for
from seedling.evaluate.slices import holm, slices
from seedling.stats.statistics import effective_rows, share, softmax

PARAMS = EvaluateParams(bootstrap_draws=500)
ALONE = np.arange(40).astype(str)


def rng() -> np.random.Generator:
    """The same draws each time."""
    return np.random.default_rng(0)


def test_a_share_of_single_rows_has_wilsons_interval() -> None:
    """37 of 40, as scipy has it."""
    hits = np.arange(40) < 37
    found = share(hits, ALONE, 0.95)
    expected = binomtest(37, 40).proportion_ci(method="wilson")
    assert (found.value, found.low, found.high) == pytest.approx((37 / 40, expected.low, expected.high))


def test_rows_of_a_group_that_are_alike_count_once() -> None:
    """Twenty pairs of the same answer are worth twenty rows; all right, they are worth as many."""
    pairs = np.repeat(np.arange(20), 2).astype(str)
    assert effective_rows(np.repeat(np.arange(20) < 15, 2).astype(float), pairs) == pytest.approx(20)
    assert effective_rows(np.ones(40), pairs) == pytest.approx(20)
    assert effective_rows((np.arange(40) < 30).astype(float), ALONE) == pytest.approx(40)


def test_an_interval_of_rows_that_are_all_right_has_a_width() -> None:
    """Forty right answers do not prove that none is ever wrong."""
    truth = np.tile([0, 1], 20)
    found = intervals.balanced_accuracy_and_macro_f1(truth, truth, ALONE, draws=500, confidence=0.95, rng=rng())
    for one in (*found.values(), share(truth == truth, ALONE, 0.95)):
        assert one.value == one.high == 1.0
        assert 0.85 < one.low < 0.99


def test_balanced_accuracy_and_macro_f1_are_those_of_scikit_learn() -> None:
    """Five classes, of which one is never said and one never true."""
    truth = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 3])
    said = np.array([0, 1, 0, 1, 1, 2, 0, 2, 4, 2])
    found = intervals.balanced_accuracy_and_macro_f1(
        said, truth, np.arange(10).astype(str), draws=200, confidence=0.95, rng=rng()
    )
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        balanced = balanced_accuracy_score(truth, said)
    assert found["balanced_accuracy"].value == pytest.approx(balanced)
    assert found["macro_f1"].value == pytest.approx(f1_score(truth, said, average="macro"))
    assert all(one.low < one.value < one.high for one in found.values())


def test_the_interval_of_a_mean_is_students_where_values_are_normal() -> None:
    """Two hundred normal values far from 0: within a tenth of the classical half width."""
    values = np.random.default_rng(3).normal(10, 1, size=200)
    settings = {"wrong": 10.0, "maximum": 20.0, "confidence": 0.95}
    found = intervals.mean(values, np.arange(200).astype(str), draws=4000, rng=rng(), **settings)
    half = 1.972 * values.std(ddof=1) / 200**0.5
    assert found.value == pytest.approx(values.mean())
    assert (found.high - found.value) == pytest.approx(half, rel=0.1)
    assert (found.value - found.low) == pytest.approx(half, rel=0.1)


def test_rows_that_are_all_right_do_not_prove_that_none_is_wrong() -> None:
    """Nine rows of .1, and one more that would have 3: the upper end is above .1, and nowhere beyond the most that there is."""
    settings: dict[str, Any] = {"draws": 500, "confidence": 0.95, "rng": rng()}
    found = intervals.mean(np.full(9, 0.1), np.arange(9).astype(str), wrong=3.0, maximum=5.0, **settings)
    assert found.value == pytest.approx(0.1)
    assert 0.39 < found.high <= 5.0  # beyond the mean with that row
    assert intervals.mean(np.full(9, 0.1), np.arange(9).astype(str), wrong=3.0, maximum=0.3, **settings).high == 0.3


def test_classes_that_are_only_said_do_not_widen_balanced_accuracy() -> None:
    """Ninety of a hundred rows right, the others taken for ten classes that no row is of: the interval is Wilson's of the one class."""
    truth, said = np.zeros(100, np.int64), np.r_[np.zeros(90), np.arange(1, 11)].astype(np.int64)
    found = intervals.balanced_accuracy_and_macro_f1(
        said, truth, np.arange(100).astype(str), draws=300, confidence=0.95, rng=rng()
    )
    expected = binomtest(90, 100).proportion_ci(method="wilson")
    one = found["balanced_accuracy"]
    assert (one.value, one.low, one.high) == pytest.approx((0.9, expected.low, expected.high), abs=0.01)


@pytest.mark.slow
def test_the_intervals_of_many_small_classes_cover() -> None:
    """Thirty classes of about four rows, right with .8 and else any other: balanced accuracy and macro-F1 hold .8 in nine of ten draws or more."""
    source, hits = np.random.default_rng(9), {"balanced_accuracy": 0, "macro_f1": 0}
    for _ in range(300):
        truth = source.integers(30, size=120)
        said = np.where(source.random(120) < 0.8, truth, (truth + source.integers(1, 30, size=120)) % 30)
        found = intervals.balanced_accuracy_and_macro_f1(
            said, truth, np.arange(120).astype(str), draws=300, confidence=0.95, rng=source
        )
        for name, one in found.items():
            hits[name] += one.low <= 0.8 <= one.high
    assert all(0.91 <= one / 300 <= 0.985 for one in hits.values()), hits


def test_all_measures_are_those_of_scikit_learn() -> None:
    """Eight classes: Brier's score, the three likeliest; steps in the order that is given, by hand."""
    source = np.random.default_rng(2)
    chances = softmax(source.normal(size=(60, 8)))
    truth, groups = source.integers(8, size=60), np.arange(60).astype(str)
    ranks = np.arange(8)[::-1]
    found = with_intervals(chances, truth, groups, PARAMS, 0, ranks)
    values = {name: one.value for name, one in found.items() if one}
    assert values["brier"] == pytest.approx(
        brier_score_loss(truth, chances, labels=range(8), scale_by_half=False), abs=1e-6
    )
    assert values["top_3_accuracy"] == pytest.approx(top_k_accuracy_score(truth, chances, k=3), abs=1e-6)
    assert values["steps_off"] == pytest.approx(np.abs(chances.argmax(axis=1) - truth).mean(), abs=1e-6)
    assert "steps_off" not in with_intervals(chances, truth, groups, PARAMS, 0)
    assert set(with_intervals(chances[:0], truth[:0], groups[:0], PARAMS, 0).values()) == {None}


def test_auroc_is_scikit_learns_and_perfect_separation_keeps_a_width() -> None:
    """With ties; and where every inner row is surer than every outer one."""
    inside, outside = np.array([0.9, 0.8, 0.8, 0.4]), np.array([0.8, 0.3, 0.2])
    found = intervals.auroc(inside, outside, draws=300, confidence=0.95, rng=rng())
    assert found.value == pytest.approx(roc_auc_score([1] * 4 + [0] * 3, np.concatenate([inside, outside])))
    apart = intervals.auroc(np.ones(10), np.zeros(10), draws=100, confidence=0.95, rng=rng())
    assert (apart.value, apart.high) == (1.0, 1.0)
    assert apart.low < 1.0


def test_a_part_of_the_rows_that_is_worse_is_named() -> None:
    """Half of the long texts are wrong, none of the others; a column of one value is not cut."""
    words = np.repeat([5, 50], 60)
    right = np.array([True] * 60 + [True, False] * 30)
    rows = pd.DataFrame({"words": words, "language": "en", "origin": "x"})
    found = slices(rows, right, np.arange(120).astype(str), PARAMS)
    assert [(one.column, one.value, one.rows, one.worse) for one in found] == [
        ("words", "5", 60, False),
        ("words", "50", 60, True),
    ]
    thirds = slices(pd.DataFrame({"brightness": np.arange(120.0)}), right, np.arange(120).astype(str), PARAMS)
    assert [one.rows for one in thirds] == [40, 40, 40]
    assert [one.worse for one in thirds] == [False, False, True]


def test_near_duplicates_that_are_wrong_make_no_slice_surely_worse() -> None:
    """Twelve copies of one image, all wrong, are one row."""
    groups = np.array(["one"] * 12 + [str(place) for place in range(188)])
    rows = pd.DataFrame({"language": ["xx"] * 12 + ["en"] * 188})
    right = np.array([False] * 12 + [True] * 180 + [False] * 8)
    assert [one.worse for one in slices(rows, right, groups, PARAMS)] == [False, False]
    alone = np.arange(200).astype(str)
    assert True in [one.worse for one in slices(rows, right, alone, PARAMS)]


def test_holm_by_hand() -> None:
    """Of four: .01 <= .05/4, .014 <= .05/3, .03 > .05/2, so the third and the last stand."""
    assert holm([0.03, 0.01, 0.2, 0.014], 0.05) == [False, True, False, True]


def test_limits_and_coverage_by_hand() -> None:
    """Five rows, the two least sure wrong: a limit of 0 errors answers three; one in four wrong answers four; equally sure rows go together."""
    sure, right = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([True, True, True, False, False])
    assert threshold_for(sure, right, 0.0) == 0.7
    assert threshold_for(sure, right, 0.25) == 0.6
    assert threshold_for(sure, right, 0.4) == 0.0
    assert threshold_for(sure, ~right, 0.1) is None
    assert threshold_for(np.array([0.9, 0.9]), np.array([True, False]), 0.1) is None
    assert [one["error"] for one in risk_coverage_curve(sure, right)] == [0, 0, 0, 0.25, 0.4]
    points = operating_points((sure, right), (sure, right, np.arange(5).astype(str)), PARAMS)
    assert [one.coverage and one.coverage.value for one in points] == [0.6] * 4


def test_rows_of_no_class_are_counted_where_they_would_be_answered() -> None:
    """Two of four are surer than the limit; nothing is said without them; taken for `nothing`, they are not answered."""

    def of(*sure: float) -> np.ndarray:
        return np.array([[one, (1 - one) / 2, (1 - one) / 2] for one in sure])

    found = out_of_scope(of(0.9, 0.95), of(0.4, 0.41, 0.6, 0.97), 0.5, PARAMS, 0)
    assert found is not None
    assert (found.rows, found.coverage.value, found.auroc.value) == (4, 0.5, 0.75)
    assert out_of_scope(of(0.9), np.zeros((0, 3)), 0.5, PARAMS, 0) is None
    known = out_of_scope(of(0.9, 0.95), of(0.99, 0.98)[:, [1, 2, 0]], 0.5, PARAMS, 0, background_class=2)
    assert known is not None
    assert (known.coverage.value, known.auroc.value) == (0.0, 1.0)
