"""models/<round>/decision.json: whether the round's model is used, and why. train writes it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from seedling.records.intervals import DifferenceRecord, EstimateRecord
from seedling.records.record import Record


class ClassChangeRecord(DifferenceRecord):
    """A round's change of one class's recall.

    label: index of the class; rows: its evaluation rows; harmed: whether the recall is significantly lower.
    """

    label: int
    rows: int
    harmed: bool


class DecisionRecord(Record):
    """The decision on a round; the keys with a default may be missing in files of earlier versions.

    stop: whether no further round is trained; accepted_round: the round whose model is used from here on; rows: number
    of evaluation rows; accuracy, log_loss: this round minus the accepted one, None if they were not compared;
    worth_in_labels: how many labels the gain is worth, None if it cannot be estimated; seeds: in files of earlier
    versions, which compared several trainings per fold model.
    """

    round: int
    decision: Literal["accepted", "rejected", "skipped"]
    stop: bool
    reason: str
    accepted_round: int
    rows: int = 0
    accuracy: DifferenceRecord | None = None
    log_loss: DifferenceRecord | None = None
    classes: tuple[ClassChangeRecord, ...] = ()
    worth_in_labels: EstimateRecord | None = None
    seeds: int = Field(default=1, exclude=True)
