"""The results of a stage's gate: gate.json in its output, and one line per run in the history of all gates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field

from seedling.records.record import Record, RecordPart

RELATIVE = ("rows_change", "class_share_change", "label_flipped", "drift_p_value")
"""Columns that compare with the previous generation that passed. Without one, they have the value for no change."""


class Check(RecordPart):
    """The result of one expectation.

    arguments: as in gates.yaml; severity: `critical` or `warning`; rows: up to five ids of unexpected rows; source: a
    hash of the user's file if the expectation is defined there; meaning: a description of the user's own expectation,
    in the history only.
    """

    expectation: str
    arguments: dict[str, Any]
    severity: str
    passed: bool
    observed: str
    rows: tuple[str, ...] = ()
    source: str | None = None
    meaning: str | None = Field(default=None, exclude_if=lambda meaning: meaning is None)

    @property
    def stops(self) -> bool:
        """Whether it stops the pipeline."""
        return not self.passed and self.severity == "critical"

    @property
    def column(self) -> str | None:
        """The column that it checks; None if it checks several columns or the table."""
        column = self.arguments.get("column")
        return None if column is None else str(column)

    @property
    def is_relative(self) -> bool:
        """Whether it compares with the previous generation."""
        return self.column in RELATIVE

    @property
    def limit(self) -> str:
        """The expected values: the arguments as text."""
        return ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())


class GateResult(Record):
    """All checks of a stage's gate that are a function of its inputs, or all that compare with earlier rows."""

    checks: tuple[Check, ...]

    @classmethod
    def of_json(cls, value: object) -> Self:
        """Return the record of a parsed file. Earlier versions wrote the list of checks alone."""
        return super().of_json({"checks": value} if isinstance(value, list) else value)


class GateRecord(Record):
    """One run of a stage's gate. time: its end, in ISO 8601 with the offset from UTC."""

    stage: str
    time: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no critical expectation failed."""
        return not any(check.stops for check in self.checks)

    def line(self) -> str:
        """The record as one line of JSON."""
        return json.dumps(self.as_json(), ensure_ascii=False, sort_keys=True) + "\n"


def described(check: Check, meanings: Mapping[str, str]) -> Check:
    """The check with its meaning. meanings: name → description of the user's own expectations."""
    return check.model_copy(update={"meaning": meanings.get(check.expectation) or None})
