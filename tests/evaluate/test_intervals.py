"""Intervals, slices and scope, compared with hand calculations, scipy, scikit-learn, and simulated rows with known
truth.
"""

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
    """A generator with the same seed on each call."""
    return np.random.default_rng(0)


def test_a_share_of_ungrouped_rows_has_the_wilson_interval() -> None:
    """37 of 40, as scipy computes it."""
    hits = np.arange(40) < 37
    interval = share(hits, ALONE, 0.95)
    expected = binomtest(37, 40).proportion_ci(method="wilson")
    assert (interval.value, interval.low, interval.high) == pytest.approx((37 / 40, expected.low, expected.high))


def test_identical_rows_of_a_group_count_once() -> None:
    """Twenty pairs with the same answer weigh as much as twenty rows, also if all are correct."""
    pairs = np.repeat(np.arange(20), 2).astype(str)
    assert effective_rows(np.repeat(np.arange(20) < 15, 2).astype(float), pairs) == pytest.approx(20)
    assert effective_rows(np.ones(40), pairs) == pytest.approx(20)
    assert effective_rows((np.arange(40) < 30).astype(float), ALONE) == pytest.approx(40)


def test_the_interval_of_rows_that_are_all_correct_has_a_width() -> None:
    """Forty correct answers do not prove that the error rate is zero."""
    truth = np.tile([0, 1], 20)
    intervals_by_metric = intervals.balanced_accuracy_and_macro_f1(
        truth, truth, ALONE, draws=500, confidence=0.95, rng=rng()
    )
    for interval in (*intervals_by_metric.values(), share(truth == truth, ALONE, 0.95)):
        assert interval.value == interval.high == 1.0
        assert 0.85 < interval.low < 0.99


def test_balanced_accuracy_and_macro_f1_are_those_of_scikit_learn() -> None:
    """Five classes, of which one is never predicted and one never true."""
    truth = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 3])
    predicted = np.array([0, 1, 0, 1, 1, 2, 0, 2, 4, 2])
    intervals_by_metric = intervals.balanced_accuracy_and_macro_f1(
        predicted, truth, np.arange(10).astype(str), draws=200, confidence=0.95, rng=rng()
    )
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        balanced = balanced_accuracy_score(truth, predicted)
    assert intervals_by_metric["balanced_accuracy"].value == pytest.approx(balanced)
    assert intervals_by_metric["macro_f1"].value == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert all(interval.low < interval.value < interval.high for interval in intervals_by_metric.values())


def test_the_interval_of_a_mean_of_normal_values_matches_students_t() -> None:
    """Two hundred normal values far from 0: within 10 % of the classical half-width."""
    values = np.random.default_rng(3).normal(10, 1, size=200)
    settings = {"wrong": 10.0, "maximum": 20.0, "confidence": 0.95}
    interval = intervals.mean(values, np.arange(200).astype(str), draws=4000, rng=rng(), **settings)
    half = 1.972 * values.std(ddof=1) / 200**0.5
    assert interval.value == pytest.approx(values.mean())
    assert (interval.high - interval.value) == pytest.approx(half, rel=0.1)
    assert (interval.value - interval.low) == pytest.approx(half, rel=0.1)


def test_rows_that_are_all_correct_do_not_prove_an_error_rate_of_zero() -> None:
    """Nine values of 0.1, and the possibility of one of 3.0: the upper end is above 0.1 and never above the maximum."""
    settings: dict[str, Any] = {"draws": 500, "confidence": 0.95, "rng": rng()}
    interval = intervals.mean(np.full(9, 0.1), np.arange(9).astype(str), wrong=3.0, maximum=5.0, **settings)
    assert interval.value == pytest.approx(0.1)
    assert 0.39 < interval.high <= 5.0  # beyond the mean with that row
    assert intervals.mean(np.full(9, 0.1), np.arange(9).astype(str), wrong=3.0, maximum=0.3, **settings).high == 0.3


def test_classes_that_are_only_predicted_do_not_widen_balanced_accuracy() -> None:
    """Ninety of a hundred rows are correct, the others predicted as ten classes without rows.

    The interval is the Wilson interval of the one class.
    """
    truth, predicted = np.zeros(100, np.int64), np.r_[np.zeros(90), np.arange(1, 11)].astype(np.int64)
    intervals_by_metric = intervals.balanced_accuracy_and_macro_f1(
        predicted, truth, np.arange(100).astype(str), draws=300, confidence=0.95, rng=rng()
    )
    expected = binomtest(90, 100).proportion_ci(method="wilson")
    interval = intervals_by_metric["balanced_accuracy"]
    assert (interval.value, interval.low, interval.high) == pytest.approx((0.9, expected.low, expected.high), abs=0.01)


@pytest.mark.slow
def test_the_intervals_of_many_small_classes_cover_the_true_value() -> None:
    """Thirty classes of about four rows, correct with probability 0.8.

    The intervals of balanced accuracy and macro-F1 contain 0.8 in at least nine of ten draws.
    """
    source, hits = np.random.default_rng(9), {"balanced_accuracy": 0, "macro_f1": 0}
    for _ in range(300):
        truth = source.integers(30, size=120)
        predicted = np.where(source.random(120) < 0.8, truth, (truth + source.integers(1, 30, size=120)) % 30)
        intervals_by_metric = intervals.balanced_accuracy_and_macro_f1(
            predicted, truth, np.arange(120).astype(str), draws=300, confidence=0.95, rng=source
        )
        for name, interval in intervals_by_metric.items():
            hits[name] += interval.low <= 0.8 <= interval.high
    assert all(0.91 <= hit_count / 300 <= 0.985 for hit_count in hits.values()), hits


def test_all_metrics_are_those_of_scikit_learn() -> None:
    """Eight classes: the Brier score, top-3 accuracy, and steps off in the order of `ranks`, computed by hand."""
    source = np.random.default_rng(2)
    chances = softmax(source.normal(size=(60, 8)))
    truth, groups = source.integers(8, size=60), np.arange(60).astype(str)
    ranks = np.arange(8)[::-1]
    intervals_by_metric = with_intervals(chances, truth, groups, PARAMS, 0, ranks)
    values = {name: interval.value for name, interval in intervals_by_metric.items() if interval}
    assert values["brier"] == pytest.approx(
        brier_score_loss(truth, chances, labels=range(8), scale_by_half=False), abs=1e-6
    )
    assert values["top_3_accuracy"] == pytest.approx(top_k_accuracy_score(truth, chances, k=3), abs=1e-6)
    assert values["steps_off"] == pytest.approx(np.abs(chances.argmax(axis=1) - truth).mean(), abs=1e-6)
    assert "steps_off" not in with_intervals(chances, truth, groups, PARAMS, 0)
    assert set(with_intervals(chances[:0], truth[:0], groups[:0], PARAMS, 0).values()) == {None}


def test_auroc_is_that_of_scikit_learn_and_perfect_separation_keeps_a_width() -> None:
    """With ties; and where every row in scope has a higher confidence than every row out of scope."""
    inside, outside = np.array([0.9, 0.8, 0.8, 0.4]), np.array([0.8, 0.3, 0.2])
    interval = intervals.auroc(inside, outside, draws=300, confidence=0.95, rng=rng())
    assert interval.value == pytest.approx(roc_auc_score([1] * 4 + [0] * 3, np.concatenate([inside, outside])))
    separated = intervals.auroc(np.ones(10), np.zeros(10), draws=100, confidence=0.95, rng=rng())
    assert (separated.value, separated.high) == (1.0, 1.0)
    assert separated.low < 1.0


def test_a_slice_with_a_lower_accuracy_is_marked_as_worse() -> None:
    """Half of the long texts are wrong, none of the others; a column with one value has no slices."""
    words = np.repeat([5, 50], 60)
    right = np.array([True] * 60 + [True, False] * 30)
    rows = pd.DataFrame({"words": words, "language": "en", "origin": "x"})
    slice_results = slices(rows, right, np.arange(120).astype(str), PARAMS)
    assert [
        (slice_result.column, slice_result.value, slice_result.rows, slice_result.worse)
        for slice_result in slice_results
    ] == [
        ("words", "5", 60, False),
        ("words", "50", 60, True),
    ]
    thirds = slices(pd.DataFrame({"brightness": np.arange(120.0)}), right, np.arange(120).astype(str), PARAMS)
    assert [slice_result.rows for slice_result in thirds] == [40, 40, 40]
    assert [slice_result.worse for slice_result in thirds] == [False, False, True]


def test_wrong_near_duplicates_do_not_make_a_slice_significantly_worse() -> None:
    """Twelve copies of one image, all wrong, count as one row."""
    groups = np.array(["one"] * 12 + [str(index) for index in range(188)])
    rows = pd.DataFrame({"language": ["xx"] * 12 + ["en"] * 188})
    right = np.array([False] * 12 + [True] * 180 + [False] * 8)
    assert [slice_result.worse for slice_result in slices(rows, right, groups, PARAMS)] == [False, False]
    alone = np.arange(200).astype(str)
    assert True in [slice_result.worse for slice_result in slices(rows, right, alone, PARAMS)]


def test_holm_matches_a_hand_calculation() -> None:
    """Of four: 0.01 <= 0.05/4, 0.014 <= 0.05/3, 0.03 > 0.05/2, so the third and the last are not rejected."""
    assert holm([0.03, 0.01, 0.2, 0.014], 0.05) == [False, True, False, True]


def test_thresholds_and_coverage_match_a_hand_calculation() -> None:
    """Five rows, of which the two least confident are wrong.

    An error limit of 0 answers three rows, 0.25 answers four; rows with equal confidence are answered together.
    """
    sure, right = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([True, True, True, False, False])
    assert threshold_for(sure, right, 0.0) == 0.7
    assert threshold_for(sure, right, 0.25) == 0.6
    assert threshold_for(sure, right, 0.4) == 0.0
    assert threshold_for(sure, ~right, 0.1) is None
    assert threshold_for(np.array([0.9, 0.9]), np.array([True, False]), 0.1) is None
    assert [point["error"] for point in risk_coverage_curve(sure, right)] == [0, 0, 0, 0.25, 0.4]
    points = operating_points((sure, right), (sure, right, np.arange(5).astype(str)), PARAMS)
    assert [point.coverage and point.coverage.value for point in points] == [0.6] * 4


def test_out_of_scope_rows_above_the_threshold_are_counted() -> None:
    """Two of four rows exceed the threshold.

    Without such rows the result is None; rows predicted as the background class are not answered.
    """

    def probabilities(*sure: float) -> np.ndarray:
        return np.array([[confidence, (1 - confidence) / 2, (1 - confidence) / 2] for confidence in sure])

    result = out_of_scope(probabilities(0.9, 0.95), probabilities(0.4, 0.41, 0.6, 0.97), 0.5, PARAMS, 0)
    assert result is not None
    assert (result.rows, result.coverage.value, result.auroc.value) == (4, 0.5, 0.75)
    assert out_of_scope(probabilities(0.9), np.zeros((0, 3)), 0.5, PARAMS, 0) is None
    with_background = out_of_scope(
        probabilities(0.9, 0.95), probabilities(0.99, 0.98)[:, [1, 2, 0]], 0.5, PARAMS, 0, background_class=2
    )
    assert with_background is not None
    assert (with_background.coverage.value, with_background.auroc.value) == (0.0, 1.0)
