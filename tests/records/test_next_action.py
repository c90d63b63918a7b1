"""The line that a run ends with: which page to open, and how many labels to check there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from seedling.records.next_action import next_action


def write_manifest(workspace: Path, notes: dict[str, Any]) -> None:
    """The manifest of validate with these notes."""
    folder = workspace / "generations" / "validate"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"notes": notes}), encoding="utf-8")


@pytest.mark.parametrize(
    ("flagged", "errors"), [(1, "check 1 likely label error,"), (1_036, "check 1,036 likely label errors,")]
)
def test_likely_label_errors_lead_to_the_data_page(tmp_path: Path, flagged: int, errors: str) -> None:
    """The line counts them and names the page that lists them."""
    write_manifest(tmp_path, {"label_issues": {"flagged": flagged}})
    line = next_action(tmp_path)
    assert errors in line
    assert line.endswith(str(tmp_path / "reports" / "data.html"))


@pytest.mark.parametrize(
    "notes", [{"label_issues": {"flagged": 0}}, {"label_issues": {"not_estimated": "too few rows"}}, {}]
)
def test_without_label_errors_the_report_is_next(tmp_path: Path, notes: dict[str, Any]) -> None:
    """No label stands out, or none could be evaluated: the data page has nothing to check."""
    write_manifest(tmp_path, notes)
    line = next_action(tmp_path)
    assert str(tmp_path / "reports" / "report.html") in line
    assert "data.html" not in line
