"""Upgrades a workspace that an earlier Seedling made: what `seedling run` and `seedling stage` do first.

Only evaluate and validate run again: evaluate has a further output, and validate a further input.
"""

from __future__ import annotations

from pathlib import Path

from seedling.errors import InputError
from seedling.files.review_folder import create_review_folder
from seedling.records.test_evaluations import bring_log_up_to_date
from seedling.workspace import EVALUATION, REPORTS, REVIEW_FILES, REVIEWS, TEST_EVALUATIONS, Workspace

COLLECTED = Workspace(Path()).generation("scrape").as_posix()
FORMER_OUTPUTS = "outs: [reports/predictions.parquet, reports/gate.json]"
OUTPUTS = "outs: [reports/evaluation.json, reports/predictions.parquet, reports/gate.json]"
UNION_MERGES = tuple(f"{files} merge=union" for files in (TEST_EVALUATIONS, f"{REVIEWS}/{REVIEW_FILES}"))
FORMER_INPUTS = f"deps: [{COLLECTED}]\n"  # of validate, the only stage with this input alone
INPUTS = f"deps: [{COLLECTED}, {REVIEWS}]\n"


def upgrade_workspace(workspace: Path) -> list[str]:
    """Changes what an earlier version wrote otherwise; gives a sentence for each change.

    Raises InputError where dvc.yaml was edited so that it must be changed by hand.
    """
    changes = []
    if _upgrade_pipeline(Workspace(workspace).dvc_file):
        changes.append("dvc.yaml: evaluate writes reports/evaluation.json too; the stage runs once again.")
    if _add_reviews(Workspace(workspace)):
        changes.append("dvc.yaml: validate reads reviews/, the answers of reviewers; the stage runs once again.")
    if bring_log_up_to_date(workspace):
        changes.append(
            f"{TEST_EVALUATIONS}: the log of test-set evaluations was brought up to date; commit it with git."
        )
    changes += [
        f".gitattributes: git merges the {line.split()[0]} of two branches by keeping the lines of both."
        for line in UNION_MERGES
        if _add_line(Workspace(workspace).git_attributes, line)
    ]
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


def _add_reviews(paths: Workspace) -> bool:
    """Make reviews/ an input of validate, and create the folder."""
    if not paths.dvc_file.is_file():
        return False
    create_review_folder(paths.reviews)
    content = paths.dvc_file.read_text(encoding="utf-8")
    if INPUTS in content:
        return False
    if FORMER_INPUTS not in content:
        raise InputError(
            f"{paths.dvc_file}: the stage validate does not list {REVIEWS}: add it to the stage's `deps`, then run "
            "again."
        )
    partial = paths.dvc_file.with_name(f"{paths.dvc_file.name}.new")
    partial.write_text(content.replace(FORMER_INPUTS, INPUTS), encoding="utf-8")
    partial.replace(paths.dvc_file)
    return True


def _add_line(path: Path, line: str) -> bool:
    content = path.read_text(encoding="utf-8") if path.is_file() else ""
    if line in content.splitlines():
        return False
    separator = "" if not content or content.endswith("\n") else "\n"
    path.write_text(f"{content}{separator}{line}\n", encoding="utf-8")
    return True
