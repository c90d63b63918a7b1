"""What to do after a run, as the last line that `seedling run` prints."""

from __future__ import annotations

from pathlib import Path

from seedling.records.manifest import Manifest, read_notes
from seedling.records.stage_notes import ValidateNotes
from seedling.workspace import MANIFEST, Workspace


def next_action(workspace: Path) -> str:
    """Name the page to open next, the data page if labels are likely wrong, else the report; and the rows to review."""
    validated = Workspace(workspace).generation("validate")
    label_issues = read_notes(validated, ValidateNotes).estimated_issues
    flagged = 0 if label_issues is None else label_issues.flagged
    if not flagged:
        sentence = f"Next: open {Workspace(workspace).report_page}, which lists what would improve the model most."
        pool = Manifest.read(validated / MANIFEST).rows_of("pool")
        rows = "the label of the unlabeled row" if pool == 1 else f"labels of the {pool:,} unlabeled rows"
        return f"{sentence} `seedling review` asks for {rows}." if pool else sentence
    errors = "1 likely label error" if flagged == 1 else f"{flagged:,} likely label errors"
    page = Workspace(workspace).data_page
    return f"Next: open the report, then check {errors} by keyboard with `seedling review`, or on {page}"
