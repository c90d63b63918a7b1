"""`seedling resolve`: resolves what git cannot merge of a workspace's own files, so that `seedling run` can go on.

dvc.lock becomes the current branch's, which fits the folders that lie in the workspace: DVC compares each stage's inputs with it, so the next run
makes anew what the merge changed. data.dvc becomes a merge of both sides' files, and data/ is brought to it. The log of test-set
evaluations keeps the lines of both sides.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seedling.errors import InputError
from seedling.lock import workspace_lock
from seedling.records.test_evaluations import LOG, merge_lines
from seedling.versioning.git import git
from seedling.versioning.storage import merge_data

Side = Literal["ours", "theirs"]
DVC_LOCK, DATA_POINTER = "dvc.lock", "data.dvc"
CONFLICT = re.compile(
    r"^<<<<<<< .*?\n(.*?)^(?:\|\|\|\|\|\|\| .*?\n.*?^)?=======\n(.*?)^>>>>>>> .*?(?:\n|\Z)", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Sides:
    """A file's content in the common ancestor, on the current branch and on the merged one; None where it is not there."""

    base: str | None
    ours: str | None
    theirs: str | None


def resolve(workspace: Path, data: Side | None = None) -> list[str]:
    """Resolves dvc.lock, data.dvc and the log; gives a sentence for each change.

    data: takes one side's data as a whole. Raises InputError where both sides changed a file of data/ and it is not said which counts, where
    data/ holds changes that were not committed, or where other files are left that a person must resolve.
    """
    with workspace_lock(workspace):
        unmerged = _unmerged(workspace)
        changes = []
        if sides := _sides(workspace, DATA_POINTER, unmerged):
            changes.append(_resolve_data(workspace, sides, data))
        if sides := _sides(workspace, DVC_LOCK, unmerged):
            content = sides.ours if sides.ours is not None else sides.theirs
            _write(workspace, DVC_LOCK, content or "")
            changes.append("dvc.lock: the current branch's entries; `seedling run` makes anew what the merge changed.")
        if sides := _sides(workspace, LOG, unmerged):
            lines = merge_lines((side or "").splitlines() for side in (sides.ours, sides.theirs))
            _write(workspace, LOG, "".join(f"{line}\n" for line in lines))
            changes.append(f"{LOG}: the lines of both sides, {len(lines)} in all.")
        left = sorted(set(unmerged) - {DATA_POINTER, DVC_LOCK, LOG})
    if left:
        raise InputError(
            " ".join([*changes, f"Left for you: {', '.join(left)}. Edit them, `git add` them, then `git commit`."])
        )
    return changes


def _resolve_data(workspace: Path, sides: Sides, prefer: Side | None) -> str:
    path = workspace / DATA_POINTER
    conflicting = path.read_text(encoding="utf-8") if path.is_file() else None
    if sides.ours is None or sides.theirs is None:
        raise InputError(
            f"{path} was removed on one side of the merge: `git checkout --ours` or `--theirs` {DATA_POINTER}, then `dvc checkout`."
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
    """Path relative to the workspace → git's stage (1 base, 2 ours, 3 theirs) → blob."""
    files: dict[str, dict[int, str]] = defaultdict(dict)
    for entry in git(workspace, "ls-files", "--unmerged", "-z").split("\0"):
        if entry:
            about, _, path = entry.partition("\t")
            _, blob, stage = about.split(" ")
            files[path][int(stage)] = blob
    return dict(files)


def _sides(workspace: Path, name: str, unmerged: dict[str, dict[int, str]]) -> Sides | None:
    """The file's sides as git's index has them, else as its conflict markers do; None where it is not in conflict."""
    if name in unmerged:
        contents = {stage: git(workspace, "cat-file", "blob", blob) + "\n" for stage, blob in unmerged[name].items()}
        return Sides(contents.get(1), contents.get(2), contents.get(3))
    path = workspace / name
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if not CONFLICT.search(text):
        return None
    return Sides(None, CONFLICT.sub(r"\1", text), CONFLICT.sub(r"\2", text))
