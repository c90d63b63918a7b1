"""What to do after a run, as the last line that `seedling run` prints."""

from __future__ import annotations

from pathlib import Path

from seedling.files.reading import read_json
from seedling.workspace import MANIFEST, Workspace


def next_action(workspace: Path) -> str:
    """Name the page to open next: the data page if labels are likely wrong, else the report."""
    manifest_path = Workspace(workspace).generation("validate") / MANIFEST
    manifest = read_json(manifest_path) if manifest_path.is_file() else {}
    flagged = ((manifest.get("notes") or {}).get("label_issues") or {}).get("flagged", 0)
    if not flagged:
        return f"Next: open {Workspace(workspace).report_page}, which lists what would improve the model most."
    errors = "1 likely label error" if flagged == 1 else f"{flagged:,} likely label errors"
    return f"Next: open the report, then check {errors}, each with a suggested label: {Workspace(workspace).data_page}"
