"""What a reviewer has answered, as the queue needs it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from seedling.review.decisions import ClassMap
from seedling.review.records import Answer

LEAVE_OPEN = frozenset({"skip", "flag", "keep"})  # a kept row of near-duplicates is still asked for its class


def closes_row(answer: Answer) -> bool:
    """Whether the row of the answer need not be asked again, unless its class is split later."""
    return answer.answer not in LEAVE_OPEN


def answered_rows(answers: Iterable[Answer], classes: ClassMap) -> set[str]:
    """The ids of the rows that need not be asked again: by the last closing answer about each row.

    answers: of one reviewer, the earliest first. A row whose last answer named a class that was split is asked again.
    """
    last = {answer.row_id: answer for answer in answers if closes_row(answer)}
    return {row_id for row_id, answer in last.items() if not classes.drops(answer)}


@dataclass
class ReviewerState:
    """What a reviewer has answered.

    random_rows: the rows of the random sample, in the order of the answers; repeated: those that were asked again;
    questions: the number of rows that the reviewer got, for the draw of purposes.
    """

    answered: set[str] = field(default_factory=set)
    skipped: list[str] = field(default_factory=list)
    random_rows: list[str] = field(default_factory=list)
    repeated: set[str] = field(default_factory=set)
    questions: int = 0

    def count(self, answer: Answer) -> None:
        """Count an answer."""
        if answer.answer == "skip":
            self.skipped.append(answer.row_id)
        elif answer.answer not in LEAVE_OPEN:
            self.answered.add(answer.row_id)
            if answer.purpose == "random":
                self.random_rows.append(answer.row_id)
            elif answer.purpose == "repeat":
                self.repeated.add(answer.row_id)
