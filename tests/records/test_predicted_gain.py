"""What the previous run expected of new or fixed labels, beside what they brought."""

from __future__ import annotations

import math
from typing import Any

import pytest
from evaluation_records import estimate

from seedling.records.evaluation import (
    EvaluationSummary,
    ExpectedAccuracyRecord,
    ExtrapolatedCurveRecord,
    MetricsSummary,
)
from seedling.records.intervals import EstimateRecord
from seedling.records.predicted_gain import predicted_gain
from seedling.records.run_records import LabelIssuesRecord, RunInputs, RunRecord

ROWS = 400


def interval(value: float, half: float = 0.04) -> EstimateRecord:
    """A share with a symmetric interval."""
    return estimate(value, value - half, value + half)


def record(
    name: str,
    labels: int,
    accuracy: float,
    *,
    doubled: float = 0.9,
    wrong: float = 20.0,
    data: str = "a",
    **changes: Any,
) -> RunRecord:
    """The record of a run on 400 test rows. doubled: the expected accuracy with twice as many labels."""
    results = {
        "test": MetricsSummary(accuracy=interval(accuracy), rows=ROWS),
        "test_digest": "t",
        "learning_curve": ExtrapolatedCurveRecord(
            labels=labels,
            points=(),
            expected=(ExpectedAccuracyRecord(times=2, labels=2 * labels, accuracy=interval(doubled, 0.01)),),
        ),
    }
    return RunRecord(
        name=name,
        ended="2026-11-28T18:03:00+00:00",
        metrics=EvaluationSummary(**{**results, **changes}),
        label_issues=LabelIssuesRecord(expected=wrong, labels=labels, flagged=3),
        inputs=RunInputs(data_digest=data),
    )


def test_twice_as_many_labels_are_expected_to_bring_what_the_curve_said() -> None:
    """The measured change is the difference of the two accuracies."""
    gain = predicted_gain([record("first", 100, 0.8), record("second", 200, 0.858)])
    assert gain is not None
    assert (gain.since, gain.new_labels, gain.fixed_labels) == ("first", 100, 0)
    assert gain.expected.value == pytest.approx(0.1)
    assert (gain.expected.low, gain.expected.high) == pytest.approx((0.09, 0.11))
    assert gain.measured.value == pytest.approx(0.058)
    half = math.hypot(0.04, 0.04)  # Newcombe: the root of the sum of the squared distances to the ends
    assert (gain.measured.low, gain.measured.high) == pytest.approx((0.058 - half, 0.058 + half))
    assert gain.agrees
    assert str(gain) == ("last time, +10.0 points were expected from 100 new labels; measured: +5.8 [+0.1, +11.5]")


def test_another_number_of_labels_follows_the_same_power_law() -> None:
    """Errors fall from 20 % to 10 % with twice as many labels, so b = 1, and to 5 % with four times as many."""
    gain = predicted_gain([record("first", 100, 0.8), record("second", 400, 0.8)])
    assert gain is not None
    assert gain.expected.value == pytest.approx(0.15)
    assert not gain.agrees  # +15 points were expected, and the interval of the change ends at +5.7


def test_fixed_labels_count_as_more_labels() -> None:
    """Of 100 labels, 20 are wrong, later 10: worth (90 / 80)^2 times as many labels, with errors as 1 / labels."""
    gain = predicted_gain([record("first", 100, 0.8), record("second", 100, 0.83, wrong=10.0, data="b")])
    assert gain is not None
    assert (gain.new_labels, gain.fixed_labels) == (0, 10)
    assert gain.expected.value == pytest.approx(0.2 * (1 - (80 / 90) ** 2))


@pytest.mark.parametrize(
    "runs",
    [
        [record("only", 100, 0.8)],
        [record("first", 100, 0.8), record("second", 100, 0.8, wrong=10.0)],  # the same data: nobody fixed a label
        [record("first", 100, 0.8), record("second", 100, 0.8, data="b")],  # as many wrong labels as before
        [record("first", 200, 0.8), record("second", 100, 0.8, data="b")],  # fewer labels
        [record("first", 100, 0.8, doubled=0.8), record("second", 200, 0.8)],  # no gain was expected
        [record("first", 100, 1.0, doubled=1.0), record("second", 200, 0.9)],  # there were no errors
        [record("first", 100, 0.8).model_copy(update={"metrics": None}), record("second", 200, 0.9)],
    ],
)
def test_nothing_is_claimed_without_an_expectation(runs: list[RunRecord]) -> None:
    """Not for a run alone, nor if the labels are the same or nothing was expected of them."""
    assert predicted_gain(runs) is None


def test_other_test_rows_are_not_compared() -> None:
    """Their accuracies differ for another reason."""
    assert predicted_gain([record("first", 100, 0.8), record("second", 200, 0.9, test_digest="other")]) is None


def test_without_a_test_split_nothing_is_compared() -> None:
    """Cross-validated rows differ from run to run once labels are added."""
    runs = [
        record(
            name,
            labels,
            accuracy,
            test=None,
            cross_validation=MetricsSummary(accuracy=interval(accuracy), rows=ROWS),
            test_digest=None,
        )
        for name, labels, accuracy in (("first", 100, 0.8), ("second", 200, 0.858))
    ]
    assert predicted_gain(runs) is None
