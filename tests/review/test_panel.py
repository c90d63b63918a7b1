"""The live panel: its numbers by hand, its JSON, its speed, and when it says enough."""

from __future__ import annotations

import statistics
import time

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
    answer(1, "dog", purpose="random")
    values = panel(ReviewTally(answer.files), "anna", PROGRESS).model_dump(mode="json")
    assert set(values) >= {
        *("answers", "answers_per_hour", "remaining", "reversals", "errors_left", "error_rate", "accuracy"),
        *("accuracy_history", "expected_gain", "enough", "reason", "queue_version", "refitting"),
    }
    assert set(values["error_rate"]) >= {"value", "low", "high", "rows"} and values["error_rate"]["rows"] == 1


def test_answers_and_speed_are_of_the_reviewer_and_rates_of_all() -> None:
    """Anna undid one of two answers, each of a second; Ben's random row counts for the rate."""
    answer = AnswerMaker()
    answer(1, "cat")
    answer.undo([answer(2, "cat")])
    answer(3, "dog", purpose="random", reviewer="ben")
    of_anna = panel(ReviewTally(answer.files), "anna", PROGRESS)
    assert (of_anna.answers, of_anna.answers_per_hour, of_anna.reversals) == (1, 3600, 1)
    assert of_anna.error_rate is not None and of_anna.error_rate.of == "labels"
    assert panel(ReviewTally(), "cleo", PROGRESS).answers_per_hour is None


def test_pseudo_labels_are_rated_if_no_label_is() -> None:
    """At a start without labels."""
    answer = AnswerMaker()
    answer(1, "dog", purpose="random", previous_label=None, suggestion="cat")
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
        (0.0123, 10, False, "raise the accuracy by 1.23 points."),
        (0.0012, 10, True, "by 0.12 points, less than 0.5 points (review.enough_gain)"),
        (None, 10, False, "there has been 1"),
        (0.02, 0, True, "Every row has been answered."),
    ],
)
def test_the_stop_rule_says_why(gain: float | None, remaining: int, is_enough: bool, words: str) -> None:
    """It is enough below the set gain, or if no row is left."""
    enough, reason = stop_rule(gain, 0.005, 1, remaining)
    assert enough is is_enough and words in reason


@pytest.mark.slow
def test_the_panel_takes_milliseconds_after_100_000_answers() -> None:
    """An answer and the panel after it, in the median of 51, most of which change no rate: below 20 ms."""
    rng, answer = np.random.default_rng(0), AnswerMaker()
    for row in range(100_000):
        purpose = "random" if row % 10 == 0 else "queue"
        label = "dog" if rng.random() < 0.1 else "cat"
        answer(row, label, purpose=purpose, suggestion_shown=purpose == "queue", suggestion="cat")
    tally = ReviewTally(answer.files)
    progress = ReviewProgress(
        classes=3,
        remaining=10,
        labeled=200_000,
        pool=0,
        accuracies=[(answers, accuracy, 0.0, 1.0) for answers, accuracy in power_law(200, 0.5)],
    )
    seconds = []
    for row in range(51):
        start = time.perf_counter()
        tally.add([answer(200_000 + row, "cat", purpose="random" if row % 10 == 0 else "queue")])
        panel(tally, "anna", progress)
        seconds.append(time.perf_counter() - start)
    assert statistics.median(seconds) < 0.02
