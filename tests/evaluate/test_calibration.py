"""The calibration error and its interval, compared with hand calculations and draws with known truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from seedling.evaluate.calibration import Bins, calibration_error
from seedling.stats.statistics import softmax


def rng() -> np.random.Generator:
    """A generator with the same seed on each call."""
    return np.random.default_rng(0)


def test_the_plain_calibration_error_matches_a_hand_calculation() -> None:
    """Two rows at 0.9, one correct: |0.9 - 0.5|; two at 0.6, both correct: |0.6 - 1|; the mean is 0.4."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    bins = Bins.of(probabilities, np.array([0, 1, 0, 0]), 10)
    assert float(bins.plain_error(bins.gaps)) == pytest.approx(0.4)


def test_the_interval_of_a_calibrated_models_error_begins_at_zero() -> None:
    """For labels drawn from the predicted probabilities, the plain error is 0.04 and the interval begins at 0.

    The interval of a model that is overconfident by a tenth does not.
    """
    source = np.random.default_rng(5)
    chances = softmax(source.normal(size=(600, 3)) * 2)
    truth = np.array([source.choice(3, p=probabilities) for probabilities in chances])
    groups = np.arange(600).astype(str)
    settings: dict[str, Any] = {"bins": 10, "draws": 2000, "confidence": 0.95}
    calibrated = calibration_error(chances, truth, groups, **settings, rng=rng())
    assert calibrated.low == 0.0
    assert calibrated.value < 0.03
    right = source.random(600) < 0.8
    sure = np.where(right[:, None], [0.9, 0.05, 0.05], [0.9, 0.05, 0.05])
    interval = calibration_error(sure, np.where(right, 0, 1), groups, **settings, rng=rng())
    assert interval.low < 0.1 < interval.high
    assert interval.low > 0.05


def test_few_rows_or_groups_give_a_wide_interval_of_the_calibration_error() -> None:
    """Thirty rows, all correct at a confidence of 0.999: with an accuracy of 88.4 % this has a probability of one in
    forty (0.025^(1/30)), so an error up to 0.11 is not rejected.

    For two groups of twenty partly correct rows, 0.1 is not rejected either; for 27 rows in one group and three others,
    hardly any value is.
    """
    settings: dict[str, Any] = {"bins": 10, "draws": 2000, "confidence": 0.95}
    sure = np.tile([0.999, 0.001], (30, 1))
    interval = calibration_error(sure, np.zeros(30, np.int64), np.arange(30).astype(str), **settings, rng=rng())
    assert interval.low == 0.0
    assert interval.value == pytest.approx(0.001, abs=0.001)
    assert interval.high == pytest.approx(0.999 - 0.025 ** (1 / 30), abs=0.02)
    chances = np.tile([0.8, 0.2], (40, 1))
    truth = np.array([0] * 16 + [1] * 4 + [0] * 15 + [1] * 5)
    two = calibration_error(chances, truth, np.repeat(["a", "b"], 20), **settings, rng=rng())
    assert (two.low, two.high > 0.1) == (0.0, True)
    groups = np.array(["a"] * 27 + ["b", "c", "d"])
    large = calibration_error(chances[:30], np.array([0] * 27 + [1] * 3), groups, **settings, rng=rng())
    assert (large.low, large.high > 0.3) == (0.0, True)


@pytest.mark.slow
def test_groups_of_unequal_sizes_do_not_reject_a_calibrated_model() -> None:
    """Forty groups of one to twenty-two equal rows, calibrated: at most one in ten intervals excludes 0."""
    groups, excluding_zero = np.repeat(np.arange(40), np.arange(40) % 22 + 1), 0
    for seed in range(150):
        source = np.random.default_rng(seed)
        right = (source.random(40) < 0.8)[groups]
        chances = np.tile([0.8, 0.2], (len(groups), 1))
        interval = calibration_error(
            chances,
            np.where(right, 0, 1),
            groups.astype(str),
            bins=10,
            draws=300,
            confidence=0.95,
            rng=source,
        )
        excluding_zero += interval.low > 0
    assert excluding_zero <= 15


@pytest.mark.parametrize(
    ("splits", "tolerance"),  # two standard errors of a share of .95 in 100 splits, three in 400
    [pytest.param(100, 0.045, marks=pytest.mark.slow), pytest.param(400, 0.03, marks=pytest.mark.soak)],
)
def test_the_interval_of_the_calibration_error_has_its_nominal_coverage(splits: int, tolerance: float) -> None:
    """In splits of 120 rows in equal pairs, 95 % of the intervals contain the true error: 0 for labels drawn from the
    probabilities, and 0.1 for a model that is overconfident by a tenth.
    """
    source, kept = np.random.default_rng(8), {0.0: 0, 0.1: 0}
    for _ in range(splits):
        surest = np.repeat(source.uniform(0.55, 0.95, size=60), 2)
        drawn = np.repeat(source.random(60), 2)
        for gap in kept:
            interval = calibration_error(
                np.stack([surest, 1 - surest], axis=1),
                np.where(drawn < surest - gap, 0, 1),
                np.repeat(np.arange(60), 2).astype(str),
                bins=5,
                draws=400,
                confidence=0.95,
                rng=source,
            )
            kept[gap] += interval.low <= gap <= interval.high
    assert all(abs(hits / splits - 0.95) <= tolerance for hits in kept.values()), kept
