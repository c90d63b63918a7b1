"""The author of Seedling's commits if git has no identity: in containers, for service users, on new machines.

`seedling init` uses it for the first commit of a workspace, and `seedling run` for the experiment of each run.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

FALLBACK_NAME, FALLBACK_EMAIL = "Seedling", "seedling@localhost"

# The variables that `git rev-parse --local-env-vars` lists. Git sets them for its hooks; they would make Seedling's
# calls of git and DVC use the repository of the hook that started it. GIT_CONFIG_COUNT and GIT_CONFIG_PARAMETERS are
# kept, since containers pass safe.directory and the user's name in them.
HOOK_VARIABLES = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
)


def drop_hook_variables() -> None:
    """Remove git's hook variables from the environment, so that git and DVC use the workspace's repository."""
    for name in HOOK_VARIABLES:
        os.environ.pop(name, None)


def identity_environment(workspace: Path) -> dict[str, str]:
    """Return environment variables for the parts of the git identity that are not configured; {} if none is missing.

    A configured name is kept even if the address is missing, and vice versa. This needs neither HOME nor an entry of
    the user in the system's user database.
    """
    configured = _configured_identity(workspace)
    missing: dict[str, str] = {}
    for role in ("author", "committer"):
        for field, fallback in (("name", FALLBACK_NAME), ("email", FALLBACK_EMAIL)):
            variable = f"GIT_{role.upper()}_{field.upper()}"
            if os.environ.get(variable) or (field == "email" and os.environ.get("EMAIL")):
                continue
            if not (configured.get(f"{role}.{field}") or configured.get(f"user.{field}")):
                missing[variable] = fallback
    return missing


def identity_notice(environment: Mapping[str, str]) -> str | None:
    """Return a notice about the fallback identity; None if `environment` is empty."""
    if not environment:
        return None
    return (
        f"Git has no name or address for this user, so Seedling commits as {FALLBACK_NAME} <{FALLBACK_EMAIL}>; set "
        "them with `git config --global user.name NAME` and `git config --global user.email ADDRESS`."
    )


def _configured_identity(workspace: Path) -> dict[str, str]:
    completed = subprocess.run(
        ["git", "config", "--null", "--get-regexp", r"^(user|author|committer)\.(name|email)$"],  # noqa: S607
        cwd=workspace,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    identity: dict[str, str] = {}
    for entry in completed.stdout.split("\0"):
        key, _, value = entry.partition("\n")
        if value.strip():
            identity[key.lower()] = value.strip()
    return identity
