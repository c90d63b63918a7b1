"""`seedling resolve`: resolves merge conflicts in dvc.lock, data.dvc and the log of test-set evaluations.

dvc.lock becomes the version of the current branch, which matches the folders in the workspace: DVC compares each
stage's inputs with it, so the next run executes the stages that the merge affects. data.dvc becomes a merge of the
files of both sides, and data/ is checked out. The log of test-set evaluations keeps the lines of both sides.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seedling.errors import InputError
from seedling.lock import workspace_lock
from seedling.records.test_evaluations import merge_lines
from seedling.versioning.git import git
from seedling.versioning.storage import merge_data
from seedling.workspace import DATA_POINTER, DVC_LOCK, TEST_EVALUATIONS

Side = Literal["ours", "theirs"]
CONFLICT = re.compile(
    r"^<<<<<<< .*?\n(.*?)^(?:\|\|\|\|\|\|\| .*?\n.*?^)?=======\n(.*?)^>>>>>>> .*?(?:\n|\Z)", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Sides:
    """A file's content in the common ancestor, on the current branch and on the merged one; None if it is missing."""

    base: str | None
    ours: str | None
    theirs: str | None


def resolve(workspace: Path, data: Side | None = None) -> list[str]:
    """Resolve dvc.lock, data.dvc and the log of test-set evaluations; return a sentence for each change.

    data: the side whose data is used instead of merging. Raises InputError if both sides changed the same file of data/
    and `data` is None, if data/ has uncommitted changes, or if other files have conflicts that the user must resolve.
    """
    with workspace_lock(workspace):
        unmerged = _unmerged(workspace)
        changes = []
        if sides := _sides(workspace, DATA_POINTER, unmerged):
            changes.append(_resolve_data(workspace, sides, data))
        if sides := _sides(workspace, DVC_LOCK, unmerged):
            content = sides.ours if sides.ours is not None else sides.theirs
            _write(workspace, DVC_LOCK, content or "")
            changes.append(
                "dvc.lock: the current branch's entries; `seedling run` executes the stages that the merge affects."
            )
        if sides := _sides(workspace, TEST_EVALUATIONS, unmerged):
            lines = merge_lines((content or "").splitlines() for content in (sides.ours, sides.theirs))
            _write(workspace, TEST_EVALUATIONS, "".join(f"{line}\n" for line in lines))
            changes.append(f"{TEST_EVALUATIONS}: the lines of both sides, {len(lines)} in total.")
        unresolved = sorted(set(unmerged) - {DATA_POINTER, DVC_LOCK, TEST_EVALUATIONS})
    if unresolved:
        remedy = "Edit them, `git add` them, then `git commit`."
        raise InputError(" ".join([*changes, f"Still in conflict: {', '.join(unresolved)}. {remedy}"]))
    return changes


def _resolve_data(workspace: Path, sides: Sides, prefer: Side | None) -> str:
    path = workspace / DATA_POINTER
    conflicting = path.read_text(encoding="utf-8") if path.is_file() else None
    if sides.ours is None or sides.theirs is None:
        raise InputError(
            f"{path} was removed on one side of the merge: run `git checkout --ours` or `--theirs` {DATA_POINTER}, "
            "then `dvc checkout`."
        )
    try:
        summary = merge_data(workspace, path, base=sides.base, ours=sides.ours, theirs=sides.theirs, prefer=prefer)
    except BaseException:
        if conflicting is not None:
            path.write_text(conflicting, encoding="utf-8")
        raise
    git(workspace, "add", "--", DATA_POINTER)
    return f"data.dvc: {summary}"


def _write(workspace: Path, name: str, content: str) -> None:
    (workspace / name).write_text(content, encoding="utf-8")
    git(workspace, "add", "--", name)


def _unmerged(workspace: Path) -> dict[str, dict[int, str]]:
    """Return path relative to the workspace → git's stage number (1 base, 2 ours, 3 theirs) → blob."""
    files: dict[str, dict[int, str]] = defaultdict(dict)
    for entry in git(workspace, "ls-files", "--unmerged", "-z").split("\0"):
        if entry:
            attributes, _, path = entry.partition("\t")
            _, blob, stage = attributes.split(" ")
            files[path][int(stage)] = blob
    return dict(files)


def _sides(workspace: Path, name: str, unmerged: dict[str, dict[int, str]]) -> Sides | None:
    """Return the file's sides from git's index, or else from its conflict markers; None if it has no conflict."""
    if name in unmerged:
        contents = {stage: git(workspace, "cat-file", "blob", blob) + "\n" for stage, blob in unmerged[name].items()}
        return Sides(contents.get(1), contents.get(2), contents.get(3))
    path = workspace / name
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if not CONFLICT.search(text):
        return None
    return Sides(None, CONFLICT.sub(r"\1", text), CONFLICT.sub(r"\2", text))
