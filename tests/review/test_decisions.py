"""From answers to one decision per row: the latest answer, undo, changes of classes, and several reviewers."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from seedling.review.decisions import ClassMap, Decisions, decide
from seedling.review.log import Line, ReviewerFile
from seedling.review.records import Answer, ClassChange, Undo

ROWS = [f"{number:032x}" for number in range(10)]


def answer(row: int, kind: str = "label", label: str | None = None, *, at: int = 1, **values: object) -> Answer:
    """An answer about a row, written at a second."""
    fields = {"id": uuid.uuid4().hex, "reviewer": "anna", "question": "label", "answer": kind, "label": label}
    return Answer.model_validate(fields | {"row_id": ROWS[row], "written_at": f"2026-01-01T00:00:{at:02d}"} | values)


def undo(*answers: Answer, kind: str = "undo") -> Undo:
    """A line that takes answers back, or restores them."""
    ids = [line.id for line in answers]
    return Undo.model_validate({"kind": kind, "id": uuid.uuid4().hex, "reviewer": "anna", "answer_ids": ids})


def change(operation: str, old: Sequence[str], new: Sequence[str], *, at: int) -> ClassChange:
    """A change of the classes."""
    fields = {"id": uuid.uuid4().hex, "reviewer": "anna", "operation": operation, "old": old, "new": new}
    return ClassChange.model_validate(fields | {"written_at": f"2026-01-01T00:00:{at:02d}"})


def decisions(*lines: Line, **others: Sequence[Line]) -> Decisions:
    """The decisions of anna's lines and of other reviewers' lines."""
    files = {"anna": lines, **others}
    return decide({name: ReviewerFile(lines=list(of_reviewer)) for name, of_reviewer in files.items()})


def labels(result: Decisions) -> dict[int, str | None]:
    """Row → label of the decision, or its kind."""
    return {ROWS.index(row_id): item.label or item.kind for row_id, item in result.by_row.items()}


def test_the_latest_answer_counts() -> None:
    """Skip, unsure and flag decide nothing."""
    result = decisions(
        answer(0, label="cat"),
        answer(0, label="dog"),
        answer(1, "skip"),
        answer(2, "unsure"),
        answer(3, "flag", note="x"),
    )
    assert labels(result) == {0: "dog"}


def test_an_undone_answer_does_not_count_until_it_is_restored() -> None:
    """The answer before it counts again."""
    first, second = answer(0, label="cat"), answer(0, label="dog")
    assert labels(decisions(first, second, undo(second))) == {0: "cat"}
    assert labels(decisions(first, second, undo(second), undo(second, kind="redo"))) == {0: "dog"}
    assert labels(decisions(first, second, undo(first, second))) == {}


def test_the_kinds_of_decisions() -> None:
    """A rejected label, unusable content, no class, and a copy."""
    result = decisions(
        answer(0, "reject", asked_label="cat"), answer(1, "bad"), answer(2, "none_of_these"), answer(3, "duplicate")
    )
    assert labels(result) == {0: "reject", 1: "bad", 2: "none_of_these", 3: "duplicate"}
    assert result.by_row[ROWS[0]].rejected_labels == ("cat",)


def test_rejected_labels_add_up_until_the_row_gets_a_label() -> None:
    """First not a cat, then not a dog, then a horse."""
    not_cat, not_dog = answer(0, "reject", asked_label="cat"), answer(0, "reject", asked_label="dog")
    assert decisions(not_cat, not_dog).by_row[ROWS[0]].rejected_labels == ("cat", "dog")
    assert labels(decisions(not_cat, not_dog, answer(0, label="horse"))) == {0: "horse"}


def test_a_kept_row_of_duplicates_has_its_label_again() -> None:
    """The row was marked as a copy by mistake."""
    result = decisions(answer(0, label="cat"), answer(0, "duplicate"), answer(0, "keep"))
    assert labels(result) == {0: "cat"}


def test_a_majority_of_reviewers_decides_and_the_row_is_listed() -> None:
    """Two say dog, one says cat."""
    result = decisions(answer(0, label="cat"), ben=[answer(0, label="dog")], eva=[answer(0, label="dog")])
    assert labels(result) == {0: "dog"}
    (disagreement,) = result.disagreements
    assert disagreement.row_id == ROWS[0]
    assert disagreement.decision is not None


def test_a_tie_of_reviewers_who_are_equally_good_decides_nothing() -> None:
    """One row alone says nothing about who errs."""
    result = decisions(answer(0, label="cat"), ben=[answer(0, label="dog")])
    assert labels(result) == {}
    assert [item.decision for item in result.disagreements] == [None]


def test_a_tie_is_decided_for_the_reviewers_who_agree_with_others() -> None:
    """Anna and ben agree on nine rows, eva contradicts both on all of them; ben and eva differ on the last row.

    With two against two votes, Dawid and Skene's model trusts anna and ben.
    """
    truth = ["cat" if row % 2 else "dog" for row in range(10)]
    wrong = ["dog" if row % 2 else "cat" for row in range(10)]
    right = [answer(row, label=truth[row]) for row in range(9)]
    also_right = [answer(row, label=truth[row]) for row in range(10)]
    contradicting = [answer(row, label=wrong[row]) for row in range(10)]
    result = decisions(*right, ben=also_right, eva=contradicting)
    assert labels(result)[9] == truth[9]


def test_classes_that_were_renamed_or_merged_map_earlier_answers_only() -> None:
    """An answer after the change keeps its label, also if it has the former name."""
    result = decisions(
        answer(0, label="cat", at=1),
        change("rename", ["cat"], ["feline"], at=2),
        answer(1, label="cat", at=3),
        answer(2, label="dog", at=3),
        answer(3, label="wolf", at=3),
        change("merge", ["dog", "wolf"], ["canine"], at=4),
    )
    assert labels(result) == {0: "feline", 1: "cat", 2: "canine", 3: "canine"}


def test_answers_of_a_split_class_are_dropped() -> None:
    """Their rows are asked again."""
    result = decisions(answer(0, label="dog", at=1), change("split", ["dog"], ["poodle", "wolf"], at=2))
    assert labels(result) == {}
    assert result.classes.added() == ["poodle", "wolf"]


def test_a_class_that_is_renamed_twice_has_its_last_name() -> None:
    """The changes are applied in their order."""
    changes = [change("rename", ["b"], ["c"], at=2), change("rename", ["a"], ["b"], at=1)]
    assert ClassMap(changes).present_label("a") == "c"
    assert ClassMap(changes).present_label("other") == "other"
