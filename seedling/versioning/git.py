"""Runs git in a workspace, for experiments, pushing, cleaning and resolving."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from seedling.errors import SeedlingError


def git(workspace: Path, *arguments: str, environment: Mapping[str, str] | None = None, check: bool = True) -> str:
    """Run git and return its output without trailing line breaks; "" if it fails and `check` is false.

    environment: variables in addition to the process's own. Raises SeedlingError with the last line of git's message if
    it fails and `check` is true.
    """
    completed = subprocess.run(  # noqa: S603
        ["git", *arguments],  # noqa: S607
        cwd=workspace,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if completed.returncode == 0:
        return completed.stdout.rstrip("\n")
    if not check:
        return ""
    lines = completed.stderr.strip().splitlines() or [f"exit code {completed.returncode}"]
    raise SeedlingError(f"`git {arguments[0]}` failed in {workspace}: {lines[-1].rstrip('.')}.")
