"""The lines of the review log: answers, undone answers, and changes of classes."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, TypeAdapter, model_validator

from seedling.records.record import RecordPart

LOG_VERSION = 1
MAX_NAME_CHARACTERS = 64
MAX_LABEL_CHARACTERS = 1_000
MAX_NOTE_CHARACTERS = 2_000
REVIEWER_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"  # it is also the name of the reviewer's file

Question = Literal["verify", "label", "grid", "duplicates"]
AnswerKind = Literal[
    "label",  # the row's class is `label`
    "reject",  # the row's class is not `asked_label`
    "none_of_these",  # the row belongs to none of the classes
    "bad",  # the row's content is unusable
    "duplicate",  # the row is a copy of a row that is kept
    "keep",  # of near-duplicates, this one is kept
    "unsure",  # the reviewer cannot tell
    "skip",  # asked again later
    "flag",  # marked with a note, without a decision
]
Purpose = Literal["queue", "random", "gold", "repeat", "overlap", "imported"]
DECISIVE: frozenset[str] = frozenset({"label", "reject", "none_of_these", "bad", "duplicate", "keep"})

LineId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
ReviewerName = Annotated[str, StringConstraints(max_length=MAX_NAME_CHARACTERS, pattern=REVIEWER_PATTERN)]
Label = Annotated[str, StringConstraints(min_length=1, max_length=MAX_LABEL_CHARACTERS)]


class Answer(RecordPart):
    """A reviewer's answer about one row.

    id: made by the browser, so that an answer that is sent twice is stored once. batch: the same for all answers of
    one key press in a grid. asked_label: the class that verify and grid ask about. label: the class of an answer
    `label`. previous_label, previous_source: the row's label and its source when it was shown. suggestion: the model's
    likeliest class; suggestion_shown: whether the reviewer saw it. shown_at, answered_at: milliseconds since 1970, by
    the browser's clock. milliseconds: how long the row was on the screen. round: of the model that suggested.
    position: of the row in the queue. written_at: ISO 8601, by the server's clock; it never decreases within a file.
    """

    kind: Literal["answer"] = "answer"
    version: int = LOG_VERSION
    id: LineId
    reviewer: ReviewerName
    row_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    question: Question
    answer: AnswerKind
    label: Label | None = None
    asked_label: Label | None = None
    previous_label: str | None = None
    previous_source: str | None = None
    suggestion: str | None = None
    suggestion_shown: bool = False
    purpose: Purpose = "queue"
    order: str = ""
    position: int | None = None
    round: int | None = None
    batch: LineId | None = None
    note: Annotated[str, StringConstraints(max_length=MAX_NOTE_CHARACTERS)] | None = None
    shown_at: int = 0
    answered_at: int = 0
    milliseconds: Annotated[int, Field(ge=0)] = 0
    written_at: str = ""

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        if (self.answer == "label") != (self.label is not None):
            raise ValueError("an answer has a label if and only if it is of the kind `label`")
        if self.answer == "reject" and self.asked_label is None:
            raise ValueError("an answer `reject` needs `asked_label`, the class that the row does not have")
        return self

    @property
    def is_decisive(self) -> bool:
        """Whether the answer decides about the row."""
        return self.answer in DECISIVE


class Undo(RecordPart):
    """The reviewer takes answers back; kind `redo`: the reviewer restores answers that were taken back."""

    kind: Literal["undo", "redo"]
    version: int = LOG_VERSION
    id: LineId
    reviewer: ReviewerName
    answer_ids: tuple[LineId, ...] = Field(min_length=1)
    written_at: str = ""


class ClassChange(RecordPart):
    """A change of the classes, which maps all earlier labels and answers.

    rename and merge: rows of the classes `old` get the class `new[0]`; split: labels and answers of the class `old[0]`
    are dropped, so that its rows are asked again with the classes `new`; add: `new` are further classes.
    """

    kind: Literal["classes"] = "classes"
    version: int = LOG_VERSION
    id: LineId
    reviewer: ReviewerName
    operation: Literal["add", "rename", "merge", "split"]
    old: tuple[Label, ...] = ()
    new: tuple[Label, ...] = Field(min_length=1)
    written_at: str = ""

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        expected = {"add": self.old == (), "rename": len(self.old) == 1, "merge": len(self.old) > 1}
        if not expected.get(self.operation, len(self.old) == 1 and len(self.new) > 1):
            raise ValueError(f"`{self.operation}` does not fit {len(self.old)} old and {len(self.new)} new classes")
        if self.operation in {"rename", "merge"} and len(self.new) != 1:
            raise ValueError(f"`{self.operation}` needs one new class")
        return self


LogLine = Annotated[Answer | Undo | ClassChange, Field(discriminator="kind")]
LOG_LINE: TypeAdapter[Answer | Undo | ClassChange] = TypeAdapter(LogLine)
