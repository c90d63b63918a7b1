"""Sentences about round decisions and gate warnings, as a user reads them on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from round_records import candidate, candidates_record, estimate

from seedling.records.gate import Check
from seedling.records.notes import (
    chosen_accuracy,
    decision_note,
    reasons_phrase,
    skipped_rounds_note,
    warning_sentence,
)


@pytest.mark.parametrize(
    ("round_number", "decision", "reason", "compared", "accuracy", "note"),
    [
        (
            0,
            "accepted",
            "the start, cross-validated",
            False,
            0.857,
            "round 0: the model to beat (cross-validated accuracy 0.857)",
        ),
        (
            0,
            "accepted",
            "the start, cross-validated; the pool is empty, so there is nothing to pseudo-label",
            False,
            0.9,
            "round 0: the model to beat (cross-validated accuracy 0.900); the pool is empty, so there is nothing to "
            "pseudo-label",
        ),
        (
            0,
            "accepted",
            "the start; no labeled row can be held out",
            False,
            None,
            "round 0: the model to beat; no labeled row can be held out",
        ),
        (1, "accepted", "R", True, None, "accepted: R"),
        (1, "rejected", "R", True, None, "rejected: R"),
        (1, "skipped", "R", False, None, "skipped: R"),
    ],
)
def test_the_note_of_a_decision_says_why(
    round_number: int, decision: str, reason: str, compared: bool, accuracy: float | None, note: str
) -> None:
    """The reason holds the probability that the rule compares with its limit."""
    assert decision_note(round_number, decision, reason, compared, accuracy) == note


def test_the_accuracy_of_a_round_is_that_of_the_chosen_vote(tmp_path: Path) -> None:
    """Without a vote, it is that of the one chosen candidate; of several chosen ones, it is unknown."""
    svm = candidate("svm", chosen=True, accuracy=estimate(0.8))
    forest = candidate("random_forest", accuracy=estimate(0.7))
    vote = candidate("ensemble", accuracy=estimate(0.9))
    for candidates, expected in (
        ([svm, forest], 0.8),
        ([svm, forest, vote], 0.9),
        ([svm, forest.model_copy(update={"chosen": True})], None),
        ([svm.model_copy(update={"accuracy": None})], None),
    ):
        candidates_record(*candidates).write(tmp_path / "candidates.json")
        assert chosen_accuracy(tmp_path) == expected
    assert chosen_accuracy(tmp_path / "missing") is None


def test_reasons_say_what_to_do_where_their_name_does_not() -> None:
    """A held-out row without a label can become a pool row."""
    assert reasons_phrase({"exact_duplicate": 1_200, "no_label": 540}) == (
        "1,200 exact duplicate, 540 no label (held-out rows need one; leave their split empty to move them to the pool)"
    )
    assert reasons_phrase({}) == ""


def test_skipped_rounds_are_one_line() -> None:
    """With the reason of the first one; the last of three rounds is named alone."""
    assert skipped_rounds_note(2, "the loop stopped after round 1") == (
        "the loop stopped after round 1; rounds 2 to 3 skipped"
    )
    assert skipped_rounds_note(3, "no pseudo-label was kept") == "no pseudo-label was kept; round 3 skipped"


def test_a_gate_warning_says_what_was_measured_and_what_was_expected() -> None:
    """The mean of `correct` is a share of rows; other checks keep the name of their expectation."""
    mean = "expect_column_mean_to_be_between"
    assert warning_sentence(failed(mean, "0.486667", column="correct", min_value=0.5)) == (
        "share of right predictions 0.487, gates.yaml expects at least 0.5"
    )
    assert warning_sentence(failed(mean, "0.486667", column="width", min_value=8, max_value=64)) == (
        "mean of width 0.487, gates.yaml expects 8 to 64"
    )
    other = failed("expect_column_distinct_values_to_contain_set", "['train']", column="split", value_set=["test"])
    assert warning_sentence(other) == (
        "expect_column_distinct_values_to_contain_set (split): ['train']; gates.yaml expects value_set=['test']"
    )


def failed(expectation: str, observed: str, **arguments: Any) -> Check:
    """A failed check with these arguments."""
    return Check(expectation=expectation, arguments=arguments, severity="warning", passed=False, observed=observed)
