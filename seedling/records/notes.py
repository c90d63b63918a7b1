"""Sentences about a stage's result for the terminal, the report and Prefect's UI: round decisions and gate warnings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seedling.config.params import MAX_ROUNDS
from seedling.records.candidates import CandidatesRecord
from seedling.records.decision import DecisionRecord
from seedling.records.gate import Check
from seedling.workspace import CANDIDATES, DECISION

REASON_WORDS = {  # what to do about a reason for rejection; other reasons explain themselves
    "no_label": "no label (held-out rows need one; leave their split empty to move them to the pool)",
}
SUBJECT_OF_COLUMN = {  # whose mean a gate checks
    "correct": "share of right predictions",
    "confidence": "mean confidence",
}


def reasons_phrase(reasons: Mapping[str, int]) -> str:
    """Number of rejected rows by reason, as in `6 exact duplicate, 2 too small`."""
    return ", ".join(
        f"{count:,} {REASON_WORDS.get(reason, reason.replace('_', ' '))}" for reason, count in reasons.items()
    )


def decision_note(
    round_number: int,
    decision: str,
    reason: str,
    compared: bool,
    accuracy: float | None = None,
) -> str:
    """A round's decision and its reason. It begins with `rejected` or `skipped` if the round was.

    compared: whether the round was compared with an earlier one; accuracy: the cross-validated accuracy of round 0, if
    it is known.
    """
    if decision != "accepted":
        return f"{decision}: {reason}"
    if round_number == 0 and not compared:
        measured = "" if accuracy is None else f" (cross-validated accuracy {accuracy:.3f})"
        rest = reason.partition("; ")[2]
        return f"round 0: the model to beat{measured}" + (f"; {rest}" if rest else "")
    return f"accepted: {reason}"


def round_note(model: Path) -> str:
    """The note of a round's folder; "" if there is no decision yet."""
    path = model / DECISION
    if not path.is_file():
        return ""
    decision = DecisionRecord.read(path)
    return decision_note(
        decision.round, decision.decision, decision.reason, decision.accuracy is not None, chosen_accuracy(model)
    )


def chosen_accuracy(model: Path) -> float | None:
    """The cross-validated accuracy of the chosen candidate of a round; None if it is unknown."""
    path = model / CANDIDATES
    return CandidatesRecord.read(path).chosen_accuracy if path.is_file() else None


def skipped_rounds_note(first_skipped: int, reason: str) -> str:
    """One line for all skipped rounds. reason: that of the first one, as in `the loop stopped after round 1`."""
    rounds = f"round {MAX_ROUNDS}" if first_skipped == MAX_ROUNDS else f"rounds {first_skipped} to {MAX_ROUNDS}"
    return f"{reason}; {rounds} skipped"


def warning_sentence(check: Check) -> str:
    """A failed check in words, as in `share of right predictions 0.487, gates.yaml expects at least 0.5`."""
    arguments, observed, column = check.arguments, check.observed, check.column
    if check.expectation == "expect_column_mean_to_be_between":
        subject = SUBJECT_OF_COLUMN.get(column or "", f"mean of {column}")
        return f"{subject} {_rounded(observed)}, gates.yaml expects {_range(arguments)}"
    limits = ", ".join(f"{name}={value}" for name, value in arguments.items() if name != "column" and value is not None)
    subject = check.expectation + (f" ({column})" if column else "")
    return f"{subject}: {observed}" + (f"; gates.yaml expects {limits}" if limits else "")


def _range(arguments: Mapping[str, Any]) -> str:
    low, high = arguments.get("min_value"), arguments.get("max_value")
    if low is not None and high is not None:
        return f"{low} to {high}"
    return f"at least {low}" if high is None else f"at most {high}"


def _rounded(observed: str) -> str:
    try:
        return f"{float(observed):.3g}"
    except ValueError:
        return observed
