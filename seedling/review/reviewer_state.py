"""What a reviewer has answered, as the queue needs it."""

from __future__ import annotations

from dataclasses import dataclass, field

from seedling.review.decisions import ClassMap
from seedling.review.records import Answer

LEAVE_OPEN = frozenset({"skip", "flag", "keep"})  # a kept row of near-duplicates is still asked for its class


def closes_row(answer: Answer, classes: ClassMap) -> bool:
    """Whether the row of the answer need not be asked again."""
    return answer.answer not in LEAVE_OPEN and not classes.drops(answer)


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
