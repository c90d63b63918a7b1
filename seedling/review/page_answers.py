"""What a page or a terminal sends: answers, and changes of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from seedling.errors import InputError
from seedling.review.decisions import ClassMap
from seedling.review.records import AnswerKind, ClassChange, Question


class AnswerFromPage(BaseModel):
    """An answer as the page sends it; the queue adds what the lease says.

    id: made by the page; class_change_count: the changes of the classes that the page knew, None if it does not say.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    row_id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    question: Question
    answer: AnswerKind
    label: str | None = None
    asked_label: str | None = None
    suggestion_shown: bool = False
    shown_at: int = 0
    answered_at: int = 0
    milliseconds: Annotated[int, Field(ge=0)] = 0
    note: str | None = None
    batch: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] | None = None
    class_change_count: Annotated[int, Field(ge=0)] | None = None

    def present_values(self, classes: Sequence[str], class_map: ClassMap) -> dict[str, Any]:
        """The values that the page sent, with the present names of classes that were changed since it was loaded.

        If the page does not say which changes it knew, only names that are gone are mapped. An answer about a class
        that was split is a skip, so that its row is asked again. classes: the present ones.
        """
        values = self.model_dump(exclude_none=True, exclude={"class_change_count"})
        later_changes = ClassMap(class_map.changes[self.class_change_count :])
        for name in ("label", "asked_label"):
            if name in values and (self.class_change_count is not None or values[name] not in classes):
                values[name] = later_changes.present_label(values[name])
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
