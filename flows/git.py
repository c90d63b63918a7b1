"""Runs git in a workspace, for pushing, cleaning and resolving."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tasks.errors import SeedlingError

OF_ANOTHER_REPOSITORY = {
    "GIT_DIR",
    "GIT_INDEX_FILE",
    "GIT_WORK_TREE",
    "GIT_PREFIX",
}  # set where a git hook calls Seedling


def git(workspace: Path, *arguments: str, check: bool = True) -> str:
    """What git prints, without the last line break; "" where it fails and `check` is false. Raises SeedlingError with git's last line."""
    environment = {name: value for name, value in os.environ.items() if name not in OF_ANOTHER_REPOSITORY}
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=workspace, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode == 0:
        return done.stdout.rstrip("\n")
    if not check:
        return ""
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    raise SeedlingError(f"`git {arguments[0]}` failed in {workspace}: {lines[-1].rstrip('.')}.")
