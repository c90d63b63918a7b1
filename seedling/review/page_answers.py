"""What a page or a terminal sends: answers, and changes of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from seedling.errors import InputError
from seedling.review.decisions import ClassMap
from seedling.review.records import ClassChange, Question


@dataclass(frozen=True)
class AnswerFromPage:
    """An answer as the page sends it; the queue adds what the lease says. id: made by the page."""

    id: str
    row_id: str
    question: Question
    answer: str
    label: str | None = None
    asked_label: str | None = None
    suggestion_shown: bool = False
    shown_at: int = 0
    answered_at: int = 0
    milliseconds: int = 0
    note: str | None = None
    batch: str | None = None

    def present_values(self, classes: Sequence[str], class_map: ClassMap) -> dict[str, Any]:
        """The values that the page sent, with the present names of classes that were changed since it was loaded.

        An answer about a class that was split is a skip, so that its row is asked again. classes: the present ones.
        """
        values = {name: value for name, value in vars(self).items() if value is not None}
        gone = {name for name in ("label", "asked_label") if values.get(name, "") not in ("", *classes)}
        for name in gone:
            values[name] = class_map.present_label(values[name])
        if values.get("label", "") is None or (values["answer"] == "reject" and values.get("asked_label", "") is None):
            values |= {"answer": "skip", "label": None}
        return values


def check_change(line: ClassChange, classes: Sequence[str]) -> None:
    """Raise InputError for a class that is gone, and for a new name that is a class already."""
    present = set(classes)
    gone = [label for label in line.old if label not in present]
    if gone:
        raise InputError(f"There is no class '{gone[0][:50]}' any more: load the page again.")
    if line.operation == "rename" and line.new[0] in present:
        raise InputError(f"'{line.new[0][:50]}' is a class already: merge both classes, or enter another name.")
    if line.operation == "add" and present.issuperset(line.new):
        raise InputError(f"'{line.new[0][:50]}' is a class already: enter another name.")
    if line.operation == "split" and len(set(line.new)) < 2:
        raise InputError("A split needs two different new classes.")
