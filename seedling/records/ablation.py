"""reports/ablation.json: what each step of the pipeline contributes. `seedling ablate` writes it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator

from seedling.records.intervals import DifferenceRecord, EstimateRecord
from seedling.records.record import Record, RecordPart

BarKind = Literal["added", "left_out", "on_top"]


def _current_kind(kind: object) -> object:
    """Read the spelling of files without a version."""
    return "left_out" if kind == "left out" else kind


class BarRecord(RecordPart):
    """A step's contribution: the variant with it minus the variant without it, on the rows of both.

    kind: the step was added to the previous ones, left out of the full pipeline, or added on top of it; rows: number of
    compared rows; before, after: accuracy without and with the step.
    """

    step: str
    kind: Annotated[BarKind, BeforeValidator(_current_kind)]
    rows: int
    before: float
    after: float
    accuracy: DifferenceRecord
    log_loss: DifferenceRecord


class AblationRecord(Record):
    """The comparison of all variants that were run.

    start: name of the variant that the first step was added to, None if no step was added; accuracy_at_start: its
    accuracy, None if it was not run; not_tried: variants beyond the time limit; failed: error messages by variant;
    model: digest of the accepted model that the results are of.
    """

    start: str | None
    accuracy_at_start: EstimateRecord | None
    bars: tuple[BarRecord, ...]
    not_tried: tuple[str, ...]
    failed: dict[str, str]
    model: str
