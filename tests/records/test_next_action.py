"""The line that a run ends with: which page to open, and how many labels to check there."""

from __future__ import annotations

from pathlib import Path

import pytest
from manifests import label_issues, write_manifest

from seedling.records.manifest import LabelCount
from seedling.records.next_action import next_action
from seedling.records.stage_notes import NotEstimated, ValidateNotes


def write_notes(workspace: Path, notes: ValidateNotes) -> None:
    """The manifest of validate with these notes."""
    write_manifest(workspace / "generations" / "validate", "validate", notes)


@pytest.mark.parametrize(
    ("flagged", "errors"),
    [(1, "check 1 likely label error by keyboard"), (1_036, "check 1,036 likely label errors by keyboard")],
)
def test_likely_label_errors_lead_to_the_data_page(tmp_path: Path, flagged: int, errors: str) -> None:
    """The line counts them and names the page that lists them."""
    write_notes(tmp_path, ValidateNotes(label_issues=label_issues(flagged=flagged)))
    line = next_action(tmp_path)
    assert errors in line
    assert line.endswith(str(tmp_path / "reports" / "data.html"))


@pytest.mark.parametrize(
    "notes",
    [
        ValidateNotes(label_issues=label_issues(flagged=0)),
        ValidateNotes(label_issues=NotEstimated(not_estimated="too few rows")),
        ValidateNotes(),
    ],
)
def test_without_label_errors_the_report_is_next(tmp_path: Path, notes: ValidateNotes) -> None:
    """No label stands out, or none could be evaluated: the data page has nothing to check."""
    write_notes(tmp_path, notes)
    line = next_action(tmp_path)
    assert str(tmp_path / "reports" / "report.html") in line
    assert "data.html" not in line
    assert "seedling review" not in line


@pytest.mark.parametrize(
    ("rows", "words"), [(1, "the label of the unlabeled row"), (1_120, "labels of the 1,120 unlabeled rows")]
)
def test_rows_without_a_label_lead_to_the_review(tmp_path: Path, rows: int, words: str) -> None:
    """They are what the model can learn from next."""
    counts = [LabelCount(split="pool", label=None, label_source=None, rows=rows)]
    write_manifest(tmp_path / "generations" / "validate", "validate", counts=counts)
    assert next_action(tmp_path).endswith(f"`seedling review` asks for {words}.")
