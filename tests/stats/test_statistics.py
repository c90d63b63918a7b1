"""Intervals and comparisons, against hand calculations, scikit-learn and simulations."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import confusion_matrix, log_loss

from seedling.stats.statistics import (
    around_mean,
    bootstrap_t,
    briers,
    chances_if_wrong,
    confusion,
    difference_if_wrong,
    few_groups,
    fit_temperature,
    interval,
    log_loss_of_rows,
    log_losses,
    of_truth,
    paired_difference,
    resamples,
    softmax,
    wilson,
)

RNG = np.random.default_rng(3)
TRUTH = RNG.integers(0, 4, 200)
PROBABILITIES = softmax(RNG.normal(size=(200, 4)) + 2 * np.eye(4)[TRUTH])


def test_log_loss_and_confusion_are_those_of_scikit_learn() -> None:
    """An independent implementation gives the same values."""
    predicted = PROBABILITIES.argmax(axis=1)
    assert log_loss_of_rows(PROBABILITIES, TRUTH).mean() == pytest.approx(log_loss(TRUTH, PROBABILITIES))
    assert (confusion(predicted, TRUTH, 4) == confusion_matrix(TRUTH, predicted)).all()


def test_wilson_matches_a_hand_calculation() -> None:
    """8 of 10 at 95 %: 0.490 to 0.943, from Wilson's formula."""
    interval_of_eight = wilson(8, 10)
    assert (interval_of_eight.low, interval_of_eight.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_wilson_equals_that_of_scipy(confidence: float) -> None:
    """For every number of hits among 1, 7 and 200 rows. SciPy takes whole numbers only."""
    for rows in (1, 7, 200):
        for hits in range(rows + 1):
            estimate = wilson(hits, rows, confidence)
            expected = stats.binomtest(hits, rows).proportion_ci(confidence, method="wilson")
            assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def accuracy_of_rows(right: np.ndarray, rows: np.ndarray) -> float:
    """The share of these rows that are correct."""
    return float(right[rows].mean())


@pytest.mark.slow
def test_the_interval_of_an_accuracy_covers_the_truth() -> None:
    """In 300 draws of 80 rows with an accuracy of 0.8, the 95 % interval covers 0.8 in 91 to 98 % of the draws."""
    covered = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        right = rng.random(80) < 0.8
        accuracy_interval = interval(
            partial(accuracy_of_rows, right),
            np.arange(80).astype(str),
            draws=400,
            confidence=0.95,
            rng=rng,
        )
        covered += accuracy_interval.low <= 0.8 <= accuracy_interval.high
    assert 0.91 <= covered / 300 <= 0.98


def test_groups_are_drawn_whole() -> None:
    """A near-duplicate is in a resample as often as the row it resembles."""
    groups = np.array(["a", "b", "a", "c"])
    for rows in resamples(groups, 50, np.random.default_rng(0)):
        counts = np.bincount(rows, minlength=4)
        assert counts[0] == counts[2]


def test_the_paired_difference_detects_worse_scores() -> None:
    """Ten of a hundred rows lost are worse with a probability near 1; equal scores have a probability of 0."""
    old, new = np.ones(100), np.ones(100)
    new[:10] = 0
    groups, rng = np.arange(100).astype(str), np.random.default_rng(0)
    difference = paired_difference(old, new, groups, larger_is_better=True, draws=1000, rng=rng)
    assert difference.value == pytest.approx(-0.1)
    assert difference.high < 0
    assert difference.probability_worse > 0.99
    same = paired_difference(old, old, groups, larger_is_better=True, draws=1000, rng=rng)
    assert (same.value, same.probability_worse) == (0.0, 0.0)


def test_a_difference_is_the_same_whether_draws_are_vectorized_or_sequential() -> None:
    """The share of negative means is that of the sequential draws from `resamples`."""
    rng = np.random.default_rng(0)
    old, new = rng.random(40), rng.random(40)
    groups = rng.permutation(40).astype(str)
    difference = paired_difference(
        old, new, groups, larger_is_better=True, draws=300, rng=np.random.default_rng(9), confidence=0.9
    )
    means = np.array([(new - old)[rows].mean() for rows in resamples(groups, 300, np.random.default_rng(9))])
    assert difference.probability_worse == pytest.approx((means < 0).mean(), abs=1e-15)
    assert 0.05 < difference.probability_worse < 0.95


def test_the_bootstrap_t_interval_is_that_of_student_for_normal_values() -> None:
    """For 300 normal values, the ends agree with Student's within a tenth of the half-width.

    For skewed values, the interval is longer on the side of the long tail.
    """
    values = np.random.default_rng(3).normal(size=300)
    low, high = bootstrap_t(np.ones(300), values, draws=4000, confidence=0.95, rng=np.random.default_rng(0))
    ends = stats.t.interval(0.95, 299, values.mean(), stats.sem(values))
    half = (ends[1] - ends[0]) / 2
    assert [low, high] == pytest.approx(ends, abs=half / 10)
    skewed = np.random.default_rng(3).exponential(size=40)
    low, high = bootstrap_t(np.ones(40), skewed, draws=4000, confidence=0.95, rng=np.random.default_rng(0))
    assert high - skewed.mean() > 1.1 * (skewed.mean() - low)
    assert bootstrap_t(np.ones(5), np.full(5, 2.0), draws=200, confidence=0.95, rng=np.random.default_rng(0)) == (2, 2)


def test_the_interval_of_few_groups_is_that_of_student_over_their_means() -> None:
    """For five groups of twelve rows, the interval is Student's over five means.

    One group of 94 rows and six of one row are 1.13 effective groups.
    """
    values = np.random.default_rng(4).normal(size=60) + np.repeat([0.5, -1.0, 0.2, 2.0, 0.1], 12)
    sums = values.reshape(5, 12).sum(axis=1)
    means = sums / 12
    expected = stats.t.interval(0.95, 4, loc=means.mean(), scale=stats.sem(means))
    assert around_mean(np.full(5, 12.0), sums, 0.95) == pytest.approx(expected)
    assert few_groups(np.full(5, 12.0)) == pytest.approx(2.776445 / 1.959964 * np.sqrt(5 / 4), abs=1e-5)
    assert few_groups(np.array([94.0, *np.ones(6)])) == pytest.approx(
        12.7062 / 1.959964 * np.sqrt(1.13100 / 0.5), rel=1e-4
    )
    assert few_groups(np.ones(4)) == 1.0


@pytest.mark.slow
def test_the_interval_of_a_difference_over_few_groups_covers_the_truth() -> None:
    """With six groups of unequal size and effect, at least 90 % of 500 intervals cover the true difference.

    All intervals are within [-1, 1].
    """
    groups, hits = np.repeat(["a", "b", "c", "d", "e", "f"], [60, 30, 20, 15, 12, 10]), 0
    _, group_index = np.unique(groups, return_inverse=True)
    for seed in range(500):
        rng = np.random.default_rng(seed)
        gain = rng.choice([0.0, 0.2], size=6)[group_index]  # 0.1 on average
        drawn = rng.random(len(groups))
        difference = paired_difference(
            (drawn < 0.6).astype(float),
            (drawn < 0.6 + gain).astype(float),
            groups,
            larger_is_better=True,
            draws=200,
            rng=rng,
        )
        hits += difference.low <= 0.1 <= difference.high
        assert -1 <= difference.low <= difference.high <= 1
    assert hits >= 450


def test_the_score_difference_of_a_wrong_row_matches_a_hand_calculation() -> None:
    """Two rows predicted as the first class, wrong with .1 and .2 by the old model and .3 and .2 by the new one.

    The log loss of the second class differs by ln 3 on the first row, which is the wrong one with the probability
    ((.1 + .3) / 2) / .4, and by 0 on the other. Rows that hardly differ then have a wide interval.
    """
    old, new = np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([[0.7, 0.3], [0.8, 0.2]])
    assert chances_if_wrong(old) == pytest.approx(np.array([[0, 1 / 3], [0, 2 / 3]]))
    assert chances_if_wrong(np.eye(2)) == pytest.approx(np.array([[0, 0.5], [0.5, 0]])), "no prediction is ever wrong"
    both = np.array([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]])
    by_class = np.stack([((both - np.eye(3)[label]) ** 2).sum(axis=1) for label in range(3)], axis=1)
    assert briers(both) == pytest.approx(by_class)
    assert of_truth(log_losses(both), np.array([2, 0])) == pytest.approx(-np.log([0.7, 0.5]))
    score_difference = difference_if_wrong(old, new, log_losses)
    assert score_difference == pytest.approx(np.log(3) * np.sqrt(0.5))
    gaps, groups = np.linspace(-0.01, 0.01, 50), np.arange(50).astype(str)
    wide, narrow = (
        paired_difference(
            np.zeros(50), gaps, groups, larger_is_better=True, draws=500, rng=np.random.default_rng(0), wrong=wrong
        )
        for wrong in (score_difference, 0.0)
    )
    assert narrow.high < 0.005 < wide.high < score_difference


def test_the_interval_of_a_difference_stays_within_the_possible_values() -> None:
    """For rows that both models predict correctly, the interval is within one row lost and one row won."""
    for rows in (1, 3):
        difference = paired_difference(
            np.ones(rows),
            np.ones(rows),
            np.arange(rows).astype(str),
            larger_is_better=True,
            draws=200,
            rng=np.random.default_rng(0),
            wrong=1.0,
        )
        assert -1 <= difference.low < 0 < difference.high <= 1


def test_the_temperature_reverts_the_scaling_of_logits() -> None:
    """For labels drawn from softmax(z) and logits 3z, the fitted temperature is close to 3."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(4000, 5)) * 2
    truth = np.array([rng.choice(5, p=row) for row in softmax(logits)])
    assert fit_temperature(3 * logits, truth) == pytest.approx(3, rel=0.1)


def test_correct_rows_alone_do_not_make_a_model_certain() -> None:
    """After 50 correct predictions of 50, the confidence is 51/52, by the rule of succession."""
    logits = np.tile([5.0, 0.0], (50, 1))
    confidence = softmax(logits / fit_temperature(logits, np.zeros(50, dtype=np.int64))).max()
    assert confidence == pytest.approx(51 / 52, abs=0.002)
