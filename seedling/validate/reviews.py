"""Apply the decisions of reviewers to the collected rows, before any other check that depends on labels."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

from seedling.dataset.schema import REVIEW_SOURCE
from seedling.records.stage_notes import ReviewNotes
from seedling.review.decisions import ClassMap, Decision, Decisions, read_decisions
from seedling.validate.checks import CheckedRow
from seedling.workspace import REVIEW_FILES, REVIEWS

HELD_OUT = ("test", "validation")


def copy_log(reviews: Path, output: Path) -> Path:
    """Copy the reviewers' files into the generation, so that reports count the answers that its rows have.

    The workspace's log grows while people review. Returns the folder of the copy, which is missing without answers.
    """
    copy = output / REVIEWS
    for path in sorted(reviews.glob(REVIEW_FILES)):
        copy.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy / path.name)
    return copy


def apply_decisions(checked_rows: list[CheckedRow], decisions: Decisions) -> ReviewNotes | None:
    """Replace the labels that reviewers decided, and reject the rows that they found unusable.

    A reviewed label has the source `review` and weight 1, and wins over weak labels. A row without its former label
    joins the pool. Rows of the test split are changed like others; the row keeps its split. Returns None without
    reviews.
    """
    if not decisions:
        return None
    _map_classes(checked_rows, decisions.classes)
    applied: Counter[str] = Counter()
    changed_labels, changed_test_rows, row_ids = 0, 0, set()
    for checked in checked_rows:
        decision = decisions.by_row.get(checked.row.id)
        if decision is None or checked.row.split == "mixin":
            continue
        before = checked.row
        _apply(checked, decision)
        if checked.row.id not in row_ids:
            row_ids.add(checked.row.id)
            applied[decision.kind] += 1
            is_changed = checked.reason is not None or checked.row.label != before.label
            changed_labels += before.label is not None and checked.row.label not in {None, before.label}
            changed_test_rows += before.split == "test" and is_changed
    return ReviewNotes(
        decisions=dict(sorted(applied.items())),
        changed_labels=changed_labels,
        changed_test_rows=changed_test_rows,
        vanished=len(decisions.by_row) - len(row_ids),
        disagreements=len(decisions.disagreements),
        damaged_lines=len(decisions.damaged),
        edited_lines=len(decisions.edited),
    )


def with_test_rows(notes: ReviewNotes | None, carved: list[CheckedRow]) -> ReviewNotes | None:
    """The notes with the number of carved test rows that only reviewers had labeled."""
    if notes is None:
        return None
    return notes.model_copy(update={"test_rows": sum(checked.is_labeled_by_review for checked in carved)})


def _map_classes(checked_rows: list[CheckedRow], classes: ClassMap) -> None:
    """Give the labels of the data the present names of their classes; rows of a split class lose their label."""
    if not classes:
        return
    for checked in checked_rows:
        label = checked.row.label
        if label is None or checked.row.split == "mixin":
            continue
        present = classes.present_label(label)
        if present is None:
            _remove_label(checked, "review:class_was_split")
        elif present != label:
            checked.row = replace(checked.row, label=present)


def _apply(checked: CheckedRow, decision: Decision) -> None:
    row = checked.row
    if decision.kind == "label":
        if checked.reason is None:
            checked.original_label = row.label
            checked.is_labeled_by_review = row.label_source != "human"
            split = "train" if row.split in {"pool", "out_of_scope"} else row.split
            certain = replace(row, label_probs=None, weight=1.0, confidence=1.0, split=split)
            checked.row = replace(certain, label=decision.label, label_source=REVIEW_SOURCE)
    elif decision.kind in {"bad", "duplicate"}:
        checked.reason = checked.reason or f"review:{decision.kind}"
    elif decision.kind == "none_of_these":
        checked.original_label = row.label
        checked.row = replace(row, label=None, label_source=None, label_probs=None, split="out_of_scope", fold=None)
    elif row.label in decision.rejected_labels:
        checked.original_label = row.label
        _remove_label(checked, "review:rejected_label")


def _remove_label(checked: CheckedRow, reason: str) -> None:
    """Move the row to the pool; a held-out row without a label cannot be evaluated, so it is rejected."""
    if checked.row.split in HELD_OUT:
        checked.reason = checked.reason or reason
    else:
        checked.row = replace(checked.row, label=None, label_source=None, label_probs=None, split="pool", weight=1.0)


def copied_decisions(log: Path, output: Path) -> Decisions:
    """Copy the review log into the generation, and return its decisions. Raises InputError for a log with conflicts."""
    read_decisions(log)  # so that an error names the reviewers' file, and not the copy
    return read_decisions(copy_log(log, output))
