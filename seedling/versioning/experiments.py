"""DVC experiments of finished runs: commits below refs/exps/, as `dvc exp save` creates them.

The commit is created with git plumbing commands from the run's snapshot. `dvc exp save` would commit the current state
of the workspace, including files that were added during the run.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from seedling.terminal.notices import state_once
from seedling.versioning.git import git
from seedling.versioning.git_identity import identity_environment, identity_notice

COMMIT_MESSAGE = "dvc: commit experiment {name}"


def save_experiment(workspace: Path, name: str, files: Mapping[str, Path]) -> str | None:
    """Save the experiment `name` on top of HEAD and return its commit; None if the repository has no commit yet.

    files: path relative to the workspace → the file with the content to commit at that path. All other files are as in
    HEAD.
    """
    head = git(workspace, "rev-parse", "--verify", "--quiet", "HEAD", check=False)
    if not head:
        return None
    prefix = git(workspace, "rev-parse", "--show-prefix")
    with tempfile.TemporaryDirectory(prefix="seedling-index-") as temporary_folder:
        index_variable = {"GIT_INDEX_FILE": str(Path(temporary_folder, "index"))}
        git(workspace, "read-tree", head, environment=index_variable)
        for path, source in files.items():
            blob = git(workspace, "hash-object", "-w", "--no-filters", str(source))
            entry = f"100644,{blob},{prefix}{path}"
            git(workspace, "update-index", "--add", "--cacheinfo", entry, environment=index_variable)
        tree = git(workspace, "write-tree", environment=index_variable)
    message = COMMIT_MESSAGE.format(name=name)
    identity = identity_environment(workspace)
    if notice := identity_notice(identity):
        state_once(notice)
    commit = git(workspace, "commit-tree", tree, "-p", head, "-m", message, environment=identity)
    git(workspace, "update-ref", f"refs/exps/{head[:2]}/{head[2:]}/{reference_name(name)}", commit)
    return commit


def reference_name(name: str) -> str:
    """Convert a run's name to a valid git and DVC reference name: letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "run"
