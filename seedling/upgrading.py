"""Upgrades a workspace that an earlier Seedling made: what `seedling run` and `seedling stage` do first.

No stage is made anew, but evaluate, whose outputs have a file more.
"""

from __future__ import annotations

from pathlib import Path

from seedling.errors import InputError
from seedling.records.test_evaluations import bring_log_up_to_date
from seedling.workspace import EVALUATION, REPORTS, TEST_EVALUATIONS, Workspace

FORMER_OUTPUTS = "outs: [reports/predictions.parquet, reports/gate.json]"
OUTPUTS = "outs: [reports/evaluation.json, reports/predictions.parquet, reports/gate.json]"
UNION_MERGE = f"{TEST_EVALUATIONS} merge=union"


def upgrade_workspace(workspace: Path) -> list[str]:
    """Changes what an earlier version wrote otherwise; gives a sentence for each change.

    Raises InputError where dvc.yaml was edited so that it must be changed by hand.
    """
    changes = []
    if _upgrade_pipeline(Workspace(workspace).dvc_file):
        changes.append("dvc.yaml: evaluate writes reports/evaluation.json too; the stage runs once again.")
    if bring_log_up_to_date(workspace):
        changes.append(
            f"{TEST_EVALUATIONS}: the log of test-set evaluations was brought up to date; commit it with git."
        )
    if _add_line(Workspace(workspace).git_attributes, UNION_MERGE):
        changes.append(
            f".gitattributes: git merges the {TEST_EVALUATIONS} of two branches by keeping the lines of both."
        )
    return changes


def _upgrade_pipeline(path: Path) -> bool:
    if not path.is_file():
        return False  # said by whoever opens the workspace
    content = path.read_text(encoding="utf-8")
    if f"{REPORTS}/{EVALUATION}" in content:
        return False
    if FORMER_OUTPUTS not in content:
        raise InputError(
            f"{path}: the stage evaluate does not list reports/evaluation.json: add it to the stage's `outs`, then run "
            "again."
        )
    partial = path.with_name(f"{path.name}.new")
    partial.write_text(content.replace(FORMER_OUTPUTS, OUTPUTS), encoding="utf-8")
    partial.replace(path)
    return True


def _add_line(path: Path, line: str) -> bool:
    content = path.read_text(encoding="utf-8") if path.is_file() else ""
    if line in content.splitlines():
        return False
    separator = "" if not content or content.endswith("\n") else "\n"
    path.write_text(f"{content}{separator}{line}\n", encoding="utf-8")
    return True
