"""Answers of reviewers for tests, with ids and times that count up."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from seedling.review.log import Line, ReviewerFile
from seedling.review.records import Answer, ClassChange, Undo


class AnswerMaker:
    """Makes the lines of a review log. lines: all lines so far, in the order in which they were made."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def _next(self) -> dict[str, str]:
        number = len(self.lines) + 1
        return {"id": uuid.UUID(int=number).hex, "written_at": f"2026-01-01T00:00:{number:09d}"}

    def __call__(self, row: int, label: str | None = None, *, reviewer: str = "anna", **changes: Any) -> Answer:
        """Add an answer, `label` if a label is given, a second after the last line."""
        values: dict[str, Any] = {
            "question": "label",
            "answer": "label",
            "previous_label": "cat",
            "milliseconds": 1_000,
        }
        values |= {"row_id": row_id(row), "label": label, "reviewer": reviewer, **self._next(), **changes}
        answer = Answer.model_validate(values)
        self.lines.append(answer)
        return answer

    def undo(self, answers: Sequence[Answer], kind: str = "undo") -> None:
        """Take answers back, or restore them."""
        ids = tuple(answer.id for answer in answers)
        self.lines.append(
            Undo.model_validate({"kind": kind, "reviewer": answers[0].reviewer, "answer_ids": ids, **self._next()})
        )

    def change_classes(self, operation: str, old: Sequence[str], new: Sequence[str]) -> None:
        """Change the classes."""
        values = {"reviewer": "anna", "operation": operation, "old": tuple(old), "new": tuple(new), **self._next()}
        self.lines.append(ClassChange.model_validate(values))

    @property
    def files(self) -> dict[str, ReviewerFile]:
        """The lines by reviewer."""
        names = sorted({line.reviewer for line in self.lines})
        return {name: ReviewerFile(lines=[line for line in self.lines if line.reviewer == name]) for name in names}


def row_id(number: int) -> str:
    """The id of a row."""
    return uuid.UUID(int=number).hex
