"""Next steps: gains from the learning curve, and which advice is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from manifests import label_issues
from round_records import difference, estimate

from seedling.evaluate.next_steps import Curve, LabelSource, errors_by_class, extrapolate, next_steps, without_reviewed
from seedling.records.candidates import LearningCurvePointRecord, LearningCurveRecord, StepContributionRecord
from seedling.records.evaluation import SliceRecord
from seedling.records.intervals import EstimateRecord
from seedling.records.stage_notes import ReviewTime


def falling(noise: float = 0.0) -> LearningCurveRecord:
    """Errors 0.4 / sqrt(labels / 25) on a million rows, with a share of wrong labels."""
    points = [
        LearningCurvePointRecord(labels=labels, accuracy=estimate(1 - noise - 0.4 / (labels / 25) ** 0.5))
        for labels in (25, 50, 75, 100)
    ]
    return LearningCurveRecord(labels=100, rows=1_000_000, points=tuple(points))


def test_the_gain_of_twice_the_labels_follows_the_power_law() -> None:
    """Errors of a tenth that fall as labels^-1/2: twice as many labels leave 0.1 / sqrt(2).

    The same holds after correction for a tenth of wrong evaluation labels.
    """
    for noise in (0.0, 0.1):
        curve = Curve.of(falling(noise), 0.1, 100_000, noise, 0)
        assert curve is not None
        twice, four = extrapolate(curve, 0.9)
        assert twice.accuracy.value == pytest.approx(1 - 0.1 / 2**0.5, abs=1e-3)
        assert four.labels == 400
        assert four.accuracy.value == pytest.approx(0.95, abs=1e-3)
    assert extrapolate(Curve.of(None, 0.1, 100, 0, 0), 0.9) == ()


def test_advice_is_ranked_by_its_expected_gain() -> None:
    """New labels, corrected labels and a harmful step by their gains.

    Advice without a number comes last: a class with half of the errors and a tenth of the labels, and a slice.
    """
    steps = next_steps(
        Curve.of(falling(), 0.2, 1000, 0, 0),
        rows={"pool": 500, "train": 100},
        label_issues=label_issues(
            expected=20.0,
            items_per_minute=10.0,
            budget=[
                ReviewTime(minutes=minutes, rows=10 * minutes, share=EstimateRecord(value=share, low=share, high=share))
                for minutes, share in ((2, 0.5), (5, 1.0))
            ],
        ),
        errors={"a": 10, "b": 6, "c": 4},
        labels={"a": 10, "b": 45, "c": 45},
        step_contributions=[
            StepContributionRecord(
                kind="recipe", step="augment", learners=("svm",), difference=difference(-0.03, -0.05, -0.01)
            )
        ],
        slices=[SliceRecord(column="words", value="over 9", rows=30, accuracy=estimate(0.5), worse=True)],
        has_queue=True,
        training_data={"augment"},
    )
    gains = {step.what: step.gain.value for step in reversed(steps) if step.gain}  # of the classes the best
    assert gains["label"] == pytest.approx(0.2 * (1 - 2**-0.5), abs=5e-3)
    assert gains["check_labels"] == pytest.approx(0.2 * (1 - (1 / 0.64) ** -0.5), abs=5e-3)  # a fifth wrong: (1 - .2)^2
    assert gains["leave_out"] == pytest.approx(0.03)
    gain_values = [step.gain.value for step in steps if step.gain]
    assert gain_values == sorted(gain_values, reverse=True)
    assert [step.what for step in steps[-2:]] == ["collect_class", "slice"]
    assert "“a”" in steps[-2].text
    minutes = {step.what: step.minutes for step in steps}
    assert (minutes["label"], minutes["check_labels"]) == (10, 5)  # at ten rows a minute
    assert any("augment.augmentations_per_row: 0" in step.how for step in steps)


def test_the_source_with_most_wrong_labels_is_to_be_fixed() -> None:
    """Thirty of a site's hundred labels are expected to be wrong, five of the folder's three hundred; fixing them
    leaves a share of 5/400 of 35/400.

    A rule with nine labels, all wrong, is too small; a rule with the same labels as the site is not listed; a site with
    all labels has no other source to compare.
    """
    arguments: dict[str, Any] = {
        "rows": {},
        "label_issues": None,
        "errors": {},
        "labels": {},
        "step_contributions": [],
        "slices": [],
        "has_queue": True,
        "training_data": set(),
    }
    curve = Curve.of(falling(), 0.2, 1000, 0, 0)
    labels = [
        LabelSource("source", "bad.example", 100, 30.0),
        LabelSource("source", "good", 300, 5.0),
        LabelSource("rule", "tag", 9, 9.0),
        LabelSource("rule", "alt", 100, 30.0),
    ]
    steps = [step for step in next_steps(curve, **arguments, label_sources=labels) if step.what == "fix_source"]
    assert [(step.text, step.minutes) for step in steps] == [("Fix the source bad.example", 2)]
    times = ((1 - 5 / 400) / (1 - 35 / 400)) ** 2
    assert steps[0].gain is not None
    assert steps[0].gain.value == pytest.approx(0.2 * (1 - times**-0.5), abs=2e-3)
    assert "30 of its 100" in steps[0].how
    alone = next_steps(curve, **arguments, label_sources=[LabelSource("source", "bad.example", 400, 90.0)])
    assert "fix_source" not in [step.what for step in alone]


def test_advice_on_photo_encoders_and_rare_classes_comes_first() -> None:
    """Three classes with 4, 2 and no labels lack one, three and five; the class without any is named first."""
    steps = next_steps(
        Curve.of(falling(), 0.2, 1000, 0, 0),
        rows={"pool": 500, "train": 100},
        label_issues=None,
        errors={},
        labels={"a": 94, "b": 4, "c": 2, "d": 0},
        step_contributions=[],
        slices=[],
        has_queue=True,
        training_data=set(),
        is_photographs_without_encoder=True,
    )
    assert [step.what for step in steps] == ["set_encoder", "label_classes", "label"]
    assert steps[1].text == "Label 9 more rows of the rarest classes"
    assert "Fewer than 5 labels: d (0), c (2), b (4)." in steps[1].how


def test_errors_are_counted_per_class() -> None:
    """Two rows of a are wrong, none of b."""
    assert errors_by_class(np.array([False, True, False]), np.array([0, 1, 0]), ["a", "b"]) == {"a": 2, "b": 0}


def test_only_labels_without_a_human_review_are_left_to_check() -> None:
    """Of 100 labels, three are not reviewed, with 1.5 expected errors, of which the first two rows have 1.4."""
    budget = [
        ReviewTime(minutes=minutes, rows=rows, share=EstimateRecord(value=1.0, low=1.0, high=1.0))
        for minutes, rows in ((5, 2), (10, 100))
    ]
    issues = label_issues(expected=20.0, budget=budget)
    left = without_reviewed(issues, [0.1, 0.9, 0.5])
    assert left is not None
    assert left.expected == pytest.approx(1.5)
    assert [review.rows for review in left.budget] == [2, 3]
    assert [review.share.value for review in left.budget] == pytest.approx([1.4 / 1.5, 1.0])
    assert without_reviewed(None, [0.5]) is None


def test_reviewed_labels_are_not_recommended_for_review() -> None:
    """All labels are reviewed, so the list of likely label errors is empty, and the advice to check it is not given."""
    curve = Curve.of(falling(), 0.2, 1000, 0, 0)
    budget = [ReviewTime(minutes=5, rows=100, share=EstimateRecord(value=1.0, low=1.0, high=1.0))]
    arguments: dict[str, Any] = {
        "rows": {"train": 100},
        "label_issues": label_issues(expected=20.0, budget=budget),
        "errors": {},
        "labels": {"a": 50, "b": 50},
        "step_contributions": [],
        "slices": [],
        "has_queue": False,
        "training_data": set(),
    }
    assert "check_labels" in {step.what for step in next_steps(curve, **arguments)}
    assert "check_labels" not in {step.what for step in next_steps(curve, **arguments, unreviewed=[])}
