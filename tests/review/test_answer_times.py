"""The seconds of an answer about labeled rows and about the pool."""

from __future__ import annotations

import numpy as np
from answers import AnswerMaker

from seedling.review.answer_times import seconds_per_row

IS_LABELED = np.array([True, False, True])


def answers_of(labeled: int, pool: int, count: int = 10) -> AnswerMaker:
    """`count` answers of each kind with these milliseconds, and one pause of each."""
    answer = AnswerMaker()
    for milliseconds, label in ((labeled, "cat"), (pool, None)):
        for row in range(count - 1):
            answer(row, "dog", milliseconds=milliseconds, previous_label=label)
        answer(99, "dog", milliseconds=60_000, previous_label=label)
    return answer


def test_the_seconds_of_each_kind_are_the_median_of_its_answers() -> None:
    """Nine answers of 0.6 s and one pause of a minute about labels; nine of 1.5 s and a pause about the pool."""
    seconds = seconds_per_row(answers_of(600, 1_500).lines, IS_LABELED)  # type: ignore[arg-type]
    assert seconds is not None
    np.testing.assert_allclose(seconds, [0.6, 1.5, 0.6])


def test_one_kind_counts_at_most_four_times_the_other() -> None:
    """A median of 20 s about labels beside 1 s about the pool counts as 4 s."""
    seconds = seconds_per_row(answers_of(20_000, 1_000).lines, IS_LABELED)  # type: ignore[arg-type]
    assert seconds is not None
    np.testing.assert_allclose(seconds, [4.0, 1.0, 4.0])


def test_the_seconds_are_unknown_before_ten_answers_of_both_kinds() -> None:
    """Grids, skipped rows, random rows and answers without a time do not count."""
    answer = answers_of(600, 1_500, count=9)
    for label in ("cat", None):
        answer(1, "dog", batch=f"{1:032x}", previous_label=label)
        answer(2, answer="skip", previous_label=label)
        answer(3, "dog", milliseconds=0, previous_label=label)
        answer(4, "dog", purpose="random", previous_label=label)
    assert seconds_per_row(answer.lines, IS_LABELED) is None  # type: ignore[arg-type]


def test_the_latest_answers_decide() -> None:
    """A reviewer who took 2 s for 600 answers and then 1 s for 500 takes 1 s."""
    answer = answers_of(1_000, 2_000, count=600)
    for row in range(500):
        answer(row, "dog", milliseconds=1_000, previous_label=None)
    seconds = seconds_per_row(answer.lines, IS_LABELED)  # type: ignore[arg-type]
    assert seconds is not None
    np.testing.assert_allclose(seconds, 1.0)
