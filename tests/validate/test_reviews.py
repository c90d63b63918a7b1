"""Decisions of reviewers in validate: they win over the data, and every row is accounted for."""

from __future__ import annotations

from pathlib import Path

import pytest

from seedling.dataset.generation import Row, identify
from seedling.errors import InputError
from seedling.review.decisions import Decision, Decisions
from seedling.validate.checks import CheckedRow
from seedling.validate.reviews import apply_decisions, copied_decisions, copy_log


def row(name: str, label: str | None, split: str = "train", source: str | None = "human") -> CheckedRow:
    """A row that is usable so far."""
    row_id = identify(name.encode())
    return CheckedRow(Row(row_id, split, label=label, label_source=source if label else None, weight=0.5), None)


def decided(checked: CheckedRow, kind: str, label: str | None = None, *rejected: str) -> Decisions:
    """One decision."""
    decision = Decision(checked.row.id, kind, label, rejected, ("anna",))  # type: ignore[arg-type]
    return Decisions(by_row={checked.row.id: decision})


def test_a_label_replaces_that_of_the_data_with_full_weight() -> None:
    """The label of a rule, with half its weight, becomes that of a person; the former label is kept."""
    checked = row("a", "cat", source="weak:tag")
    notes = apply_decisions([checked], decided(checked, "label", "dog"))
    assert (checked.row.label, checked.row.label_source, checked.row.weight) == ("dog", "review", 1.0)
    assert checked.original_label == "cat"
    assert notes is not None
    assert (notes.decisions, notes.changed_labels, notes.vanished) == ({"label": 1}, 1, 0)


def test_the_generation_keeps_the_lines_of_all_reviewers(tmp_path: Path) -> None:
    """Byte by byte, so that edited and damaged lines are found in the copy, too; without answers there is no folder."""
    log, output = tmp_path / "reviews", tmp_path / "generation"
    assert not copy_log(log, output).exists()
    log.mkdir()
    (log / "README.md").write_text("no answers", encoding="utf-8")
    assert not copy_log(log, output).exists()
    (log / "anna.jsonl").write_bytes(b'{"id": 1}\n{dam')
    assert {path.name: path.read_bytes() for path in copy_log(log, output).iterdir()} == {
        "anna.jsonl": b'{"id": 1}\n{dam'
    }


def test_a_labeled_row_of_the_pool_becomes_a_training_row() -> None:
    """It is not carved into the test split, which must not consist of rows that were selected because of doubt."""
    checked = row("a", None, "pool")
    apply_decisions([checked], decided(checked, "label", "dog"))
    assert (checked.row.split, checked.row.label, checked.is_labeled_by_review) == ("train", "dog", True)


def test_a_test_row_keeps_its_split() -> None:
    """The correction is counted, so that the report can state it."""
    checked = row("a", "cat", "test")
    notes = apply_decisions([checked], decided(checked, "label", "dog"))
    assert (checked.row.split, checked.row.label, checked.is_labeled_by_review) == ("test", "dog", False)
    assert notes is not None
    assert notes.changed_test_rows == 1


def test_bad_rows_and_copies_are_rejected_with_a_reason() -> None:
    """The reasons are counted in the manifest like others."""
    bad, copy = row("a", "cat"), row("b", None, "pool")
    apply_decisions([bad], decided(bad, "bad"))
    apply_decisions([copy], decided(copy, "duplicate"))
    assert (bad.reason, copy.reason) == ("review:bad", "review:duplicate")


def test_a_row_of_no_class_is_out_of_scope() -> None:
    """Models learn from it when to abstain."""
    checked = row("a", "cat")
    apply_decisions([checked], decided(checked, "none_of_these"))
    assert (checked.row.split, checked.row.label) == ("out_of_scope", None)


def test_a_row_whose_label_was_rejected_joins_the_pool() -> None:
    """A test row without its label cannot be evaluated, so it is rejected; another label is not affected."""
    training, held_out, other = row("a", "cat"), row("b", "cat", "test"), row("c", "dog")
    for checked in (training, held_out, other):
        apply_decisions([checked], decided(checked, "reject", None, "cat"))
    assert (training.row.split, training.row.label) == ("pool", None)
    assert held_out.reason == "review:rejected_label"
    assert (other.row.split, other.row.label) == ("train", "dog")


def test_decisions_on_rows_that_have_vanished_are_counted() -> None:
    """They stay in the log, and count again if the row returns."""
    present, vanished = row("a", "cat"), row("b", "cat")
    notes = apply_decisions([present], decided(vanished, "label", "dog"))
    assert notes is not None
    assert (notes.decisions, notes.vanished, present.row.label) == ({}, 1, "cat")


def test_without_reviews_nothing_is_noted() -> None:
    """The manifest stays as it was."""
    assert apply_decisions([row("a", "cat")], Decisions()) is None


def test_an_error_of_the_log_names_the_file_of_the_reviewer(tmp_path: Path) -> None:
    """And not the copy in the generation, which the next run overwrites."""
    log, output = tmp_path / "reviews", tmp_path / "generation"
    log.mkdir()
    (log / "anna.jsonl").write_text("<<<<<<< HEAD\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"reviews/anna\.jsonl has git's conflict markers"):
        copied_decisions(log, output)
    assert not output.exists()
