"""DVC experiments of finished runs: commits below refs/exps/, as `dvc exp save` makes them.

The commit is built with git's plumbing from the run's snapshot. `dvc exp save` would commit whatever lies in the workspace
at that moment, files that were added during the run among them.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from flows.git_identity import HOOK_VARIABLES, identity_environment, identity_notice
from tasks.errors import SeedlingError
from tasks.notices import state_once

COMMIT_MESSAGE = "dvc: commit experiment {name}"


def save_experiment(workspace: Path, name: str, files: Mapping[str, Path]) -> str | None:
    """Saves the experiment `name` on top of HEAD and gives its commit; None where the repository has no commit yet.

    files: path relative to the workspace → the file whose content the experiment holds there. Everything else is as
    HEAD has it.
    """
    head = _git(workspace, "rev-parse", "--verify", "--quiet", "HEAD", check=False)
    if not head:
        return None
    prefix = _git(workspace, "rev-parse", "--show-prefix")
    with tempfile.TemporaryDirectory(prefix="seedling-index-") as scratch:
        index = {"GIT_INDEX_FILE": str(Path(scratch, "index"))}
        _git(workspace, "read-tree", head, environment=index)
        for path, source in files.items():
            blob = _git(workspace, "hash-object", "-w", "--no-filters", str(source))
            entry = f"100644,{blob},{prefix}{path}"
            _git(workspace, "update-index", "--add", "--cacheinfo", entry, environment=index)
        tree = _git(workspace, "write-tree", environment=index)
    message = COMMIT_MESSAGE.format(name=name)
    identity = identity_environment(workspace)
    if notice := identity_notice(identity):
        state_once(notice)
    commit = _git(workspace, "commit-tree", tree, "-p", head, "-m", message, environment=identity)
    _git(workspace, "update-ref", f"refs/exps/{head[:2]}/{head[2:]}/{reference_name(name)}", commit)
    return commit


def reference_name(name: str) -> str:
    """The name as git and DVC allow it in a reference: letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "run"


def _git(workspace: Path, *arguments: str, environment: Mapping[str, str] | None = None, check: bool = True) -> str:
    # A git hook that calls Seedling has set these for its own repository and index.
    surroundings = {name: value for name, value in os.environ.items() if name not in HOOK_VARIABLES}
    completed = subprocess.run(  # noqa: S603
        ["git", *arguments],  # noqa: S607
        cwd=workspace,
        env={**surroundings, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if completed.returncode and check:
        raise SeedlingError(
            f"The run is finished, but git could not record its experiment in {workspace}: "
            f"`git {arguments[0]}` failed: {completed.stderr.strip()}. Fix that, then run again."
        )
    return completed.stdout.strip() if not completed.returncode else ""
