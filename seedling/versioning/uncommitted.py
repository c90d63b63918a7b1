"""The workspace's files that git tracks and that differ from the last commit, and the command that commits them."""

from __future__ import annotations

import shlex
from pathlib import Path

from seedling.errors import SeedlingError
from seedling.versioning.git import git
from seedling.workspace import (
    DATA_POINTER,
    DVC_IGNORE,
    DVC_LOCK,
    DVC_YAML,
    EXPECTATIONS_FILE,
    GATES_FILE,
    GIT_IGNORE,
    NOT_COPIED,
    PARAMS_FILE,
    PREFECT_FILE,
    REVIEWS,
    TEST_EVALUATIONS,
)

RECORD_FILES = (  # describe a run: its inputs, its outputs, and the logs of test-set evaluations and of reviewers
    PARAMS_FILE,
    GATES_FILE,
    EXPECTATIONS_FILE,
    PREFECT_FILE,
    DVC_YAML,
    DATA_POINTER,
    DVC_LOCK,
    TEST_EVALUATIONS,
    REVIEWS,
    GIT_IGNORE,
    DVC_IGNORE,
    NOT_COPIED,
)


def uncommitted_files(workspace: Path) -> list[str]:
    """The entries of RECORD_FILES that are new, changed or deleted; empty if there is no git repository."""
    try:
        status = git(workspace, "status", "--porcelain", "-z", "--no-renames", "--", *RECORD_FILES)
        prefix = git(workspace, "rev-parse", "--show-prefix").strip()
    except (SeedlingError, OSError):
        return []
    changed = {entry[3:].removeprefix(prefix) for entry in status.split("\0") if entry}
    changed |= {path.partition("/")[0] for path in changed}  # files of reviews/
    return [name for name in RECORD_FILES if name in changed]


def commit_command(workspace: Path, run_name: str, folder: Path | None = None) -> str | None:
    """The shell command that commits a run's files; None if nothing has changed.

    folder: the shell's working folder; the command names the workspace if it is another one.
    """
    names = uncommitted_files(workspace)
    if not names:
        return None
    program = "git" if folder == workspace else f"git -C {shlex.quote(str(workspace))}"
    return f"{program} add {' '.join(names)} && {program} commit -m {shlex.quote(f'Run {run_name}')}"
