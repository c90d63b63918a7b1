"""The live panel: its numbers by hand, its JSON, and when it says enough."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from answers import AnswerMaker

from seedling.review.panel import ReviewProgress, expected_gain, panel, stop_rule
from seedling.review.tally import ReviewTally

PROGRESS = ReviewProgress(classes=3, remaining=80, labeled=100, pool=50)


def power_law(labels_before: float, exponent: float, scale: float = 2.0) -> list[tuple[int, float]]:
    """Refits whose error is exactly scale · (labels_before + answers)^-exponent."""
    return [(answers, 1 - scale * (labels_before + answers) ** -exponent) for answers in range(20, 320, 20)]


def test_the_json_has_the_keys_of_the_page() -> None:
    """As in the API of the server."""
    answer = AnswerMaker()
    for row in range(5):
        answer(row, "dog", purpose="random")
    values = panel(ReviewTally(answer.files), "anna", PROGRESS).model_dump(mode="json")
    assert set(values) >= {
        *("answers", "answers_per_hour", "remaining", "reversals", "errors_left", "error_rate", "accuracy"),
        *("accuracy_history", "expected_gain", "enough", "reason", "queue_version", "refitting"),
    }
    assert set(values["error_rate"]) >= {"value", "low", "high", "rows"} and values["error_rate"]["rows"] == 5


def test_answers_and_speed_are_of_the_reviewer_and_rates_of_all() -> None:
    """Anna undid one of two answers, each of half a minute; Ben's random rows count for the rate."""
    answer = AnswerMaker()
    answer(1, "cat", milliseconds=30_000)
    answer.undo([answer(2, "cat", milliseconds=30_000)])
    for row in range(3, 8):
        answer(row, "dog", purpose="random", reviewer="ben")
    of_anna = panel(ReviewTally(answer.files), "anna", PROGRESS)
    assert (of_anna.answers, of_anna.answers_per_hour, of_anna.reversals) == (1, 120, 1)
    assert of_anna.error_rate is not None and of_anna.error_rate.of == "labels"
    assert panel(ReviewTally(answer.files), "ben", PROGRESS).answers_per_hour is None  # of five seconds
    assert panel(ReviewTally(), "cleo", PROGRESS).answers_per_hour is None


def test_the_chart_has_the_last_refit_of_each_number_of_answers() -> None:
    """After undone answers, a refit has fewer answers than the one before it; the curve never runs backward."""
    accuracies = [(40, 0.6, 0.5, 0.7), (60, 0.7, 0.6, 0.8), (40, 0.65, 0.55, 0.75)]
    values = panel(ReviewTally(), "anna", replace(PROGRESS, accuracies=accuracies))
    assert values.accuracy_history == ((40, 0.65), (60, 0.7))
    assert values.accuracy is not None and values.accuracy.value == 0.65
    assert values.expected_gain is None and "there have been 2." in values.reason


def test_pseudo_labels_are_rated_if_no_label_is() -> None:
    """At a start without labels."""
    answer = AnswerMaker()
    for row in range(5):
        answer(row, "dog", purpose="random", previous_label=None, suggestion="cat")
    rate = panel(ReviewTally(answer.files), "anna", PROGRESS).error_rate
    assert rate is not None and rate.of == "pseudo_labels" and not rate.is_corrected


def test_the_gain_of_an_exact_power_law_is_that_of_the_law() -> None:
    """The error 2 (200 + 300)^-.5 = .0894 falls to 2 · 600^-.5 = .0816."""
    gain = expected_gain(power_law(200, 0.5), 200)
    assert gain == pytest.approx(2 * 500**-0.5 - 2 * 600**-0.5, abs=1e-9)


def test_labels_that_count_less_than_answers_are_recognized() -> None:
    """5,000 labels that are worth a tenth each: 2 (500 + 300)^-.5 - 2 · 900^-.5."""
    gain = expected_gain(power_law(500, 0.5), 5_000)
    assert gain == pytest.approx(2 * 800**-0.5 - 2 * 900**-0.5, abs=1e-6)


def test_accuracy_that_does_not_rise_has_hardly_a_gain() -> None:
    """The smallest plausible exponent is .05: an error of .2 at 1,300 labels falls by less than .1 points."""
    rng = np.random.default_rng(0)
    flat = [(20 * number, 0.8 + float(rng.normal(0, 0.002))) for number in range(1, 16)]
    gain = expected_gain(flat, 1_000)
    assert gain is not None and 0 < gain < 0.001


def test_two_refits_are_too_few() -> None:
    """Three refits after the same number of answers are one point of the curve."""
    assert expected_gain([(20, 0.5), (40, 0.6)], 0) is None
    assert expected_gain([(20, 0.5), (20, 0.55), (20, 0.6)], 0) is None


@pytest.mark.parametrize(
    ("gain", "remaining", "is_enough", "words"),
    [
        (0.0123, 10, False, "raise the accuracy by 1.2 points."),
        (0.0012, 10, True, "by 0.1 points, less than 0.5 points (review.enough_gain)"),
        (None, 10, False, "there has been 1"),
        (0.02, 0, True, "Every row has been answered."),
    ],
)
def test_the_stop_rule_says_why(gain: float | None, remaining: int, is_enough: bool, words: str) -> None:
    """It is enough below the set gain, or if no row is left."""
    enough, reason = stop_rule(gain, 0.005, 1, remaining)
    assert enough is is_enough and words in reason


def test_a_gain_is_not_larger_than_the_error_that_is_left() -> None:
    """After a steep start, the fitted curve is above the last error of 5 %."""
    steep = [(10, 0.2), (20, 0.4), (30, 0.7), (40, 0.95)]
    gain = expected_gain(steep, 0)
    assert gain is not None and 0 < gain < 0.05


def test_few_random_rows_are_not_shown_as_a_rate() -> None:
    """An interval of four rows covers nearly everything."""
    answer = AnswerMaker()
    for row in range(4):
        answer(row, "dog", purpose="random")
    result = panel(ReviewTally(answer.files), "anna", PROGRESS)
    assert result.error_rate is None and result.errors_left is None
