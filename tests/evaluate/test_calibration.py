"""The calibration error and its interval, against hand calculations and draws of which the truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from seedling.evaluate.calibration import Bins, calibration_error
from seedling.stats.statistics import softmax


def rng() -> np.random.Generator:
    """The same draws each time."""
    return np.random.default_rng(0)


def test_the_plain_calibration_error_by_hand() -> None:
    """Two rows at 0.9, one correct: |0.9 - 0.5|; two at 0.6, both correct: |0.6 - 1|; the mean is 0.4."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    bins = Bins.of(probabilities, np.array([0, 1, 0, 0]), 10)
    assert float(bins.plain_error(bins.gaps)) == pytest.approx(0.4)


def test_the_calibration_error_of_a_calibrated_model_may_be_zero() -> None:
    """Labels drawn from the very probabilities: the interval begins at 0, where the plain sum is .04; a model that is too sure by
    a tenth is said to be so.
    """
    source = np.random.default_rng(5)
    chances = softmax(source.normal(size=(600, 3)) * 2)
    truth = np.array([source.choice(3, p=one) for one in chances])
    groups = np.arange(600).astype(str)
    settings: dict[str, Any] = {"bins": 10, "draws": 2000, "confidence": 0.95}
    calibrated = calibration_error(chances, truth, groups, **settings, rng=rng())
    assert calibrated.low == 0.0
    assert calibrated.value < 0.03
    right = source.random(600) < 0.8
    sure = np.where(right[:, None], [0.9, 0.05, 0.05], [0.9, 0.05, 0.05])
    found = calibration_error(sure, np.where(right, 0, 1), groups, **settings, rng=rng())
    assert found.low < 0.1 < found.high
    assert found.low > 0.05


def test_few_rows_or_groups_leave_the_calibration_error_open() -> None:
    """Thirty rows, all right at a confidence of .999: an accuracy of 88.4 % leaves that a chance of one in forty (.025^(1/30)), so an error up to
    .11 is not refused. Of two groups of twenty, each partly right, .1 is not either; of 27 rows in one group and three others hardly
    anything is.
    """
    settings: dict[str, Any] = {"bins": 10, "draws": 2000, "confidence": 0.95}
    sure = np.tile([0.999, 0.001], (30, 1))
    found = calibration_error(sure, np.zeros(30, np.int64), np.arange(30).astype(str), **settings, rng=rng())
    assert found.low == 0.0
    assert found.value == pytest.approx(0.001, abs=0.001)
    assert found.high == pytest.approx(0.999 - 0.025 ** (1 / 30), abs=0.02)
    chances = np.tile([0.8, 0.2], (40, 1))
    truth = np.array([0] * 16 + [1] * 4 + [0] * 15 + [1] * 5)
    two = calibration_error(chances, truth, np.repeat(["a", "b"], 20), **settings, rng=rng())
    assert (two.low, two.high > 0.1) == (0.0, True)
    groups = np.array(["a"] * 27 + ["b", "c", "d"])
    large = calibration_error(chances[:30], np.array([0] * 27 + [1] * 3), groups, **settings, rng=rng())
    assert (large.low, large.high > 0.3) == (0.0, True)


@pytest.mark.slow
def test_groups_of_many_sizes_find_no_error_where_there_is_none() -> None:
    """Forty groups of one to twenty-two rows that are alike, right as often as the model says: 0 is left out in one of ten draws at most."""
    groups, found = np.repeat(np.arange(40), np.arange(40) % 22 + 1), 0
    for seed in range(150):
        source = np.random.default_rng(seed)
        right = (source.random(40) < 0.8)[groups]
        chances = np.tile([0.8, 0.2], (len(groups), 1))
        one = calibration_error(
            chances,
            np.where(right, 0, 1),
            groups.astype(str),
            bins=10,
            draws=300,
            confidence=0.95,
            rng=source,
        )
        found += one.low > 0
    assert found <= 15


@pytest.mark.parametrize(
    ("splits", "tolerance"),  # two standard errors of a share of .95 in 100 splits, three in 400
    [pytest.param(100, 0.045, marks=pytest.mark.slow), pytest.param(400, 0.03, marks=pytest.mark.soak)],
)
def test_the_interval_of_a_calibrated_models_error_leaves_zero_out_as_often_as_it_says(
    splits: int, tolerance: float
) -> None:
    """Of the splits of 120 rows, labels drawn from the probabilities, one in twenty; and where the model is too sure by a tenth, the interval holds
    a tenth as often. With pairs that are alike, too.
    """
    source, kept = np.random.default_rng(8), {0.0: 0, 0.1: 0}
    for _ in range(splits):
        surest = np.repeat(source.uniform(0.55, 0.95, size=60), 2)
        drawn = np.repeat(source.random(60), 2)
        for gap in kept:
            found = calibration_error(
                np.stack([surest, 1 - surest], axis=1),
                np.where(drawn < surest - gap, 0, 1),
                np.repeat(np.arange(60), 2).astype(str),
                bins=5,
                draws=400,
                confidence=0.95,
                rng=source,
            )
            kept[gap] += found.low <= gap <= found.high
    assert all(abs(hits / splits - 0.95) <= tolerance for hits in kept.values()), kept
