"""Who Seedling's own commits are by where git knows nobody: containers, service users, a machine that was just set up.

`seedling init` and `seedling run` use it: the first commit of a workspace, and the experiment of each run.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

FALLBACK_NAME, FALLBACK_EMAIL = "Seedling", "seedling@localhost"

# What `git rev-parse --local-env-vars` lists: git sets these for its hooks, and they would point Seedling's own calls of
# git and DVC at the repository whose hook started it. GIT_CONFIG_COUNT and GIT_CONFIG_PARAMETERS stay: containers pass
# safe.directory and the user's name in them.
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
    """Removes from this process's environment what git sets for its hooks, so that each call of git or DVC finds its own repository."""
    for name in HOOK_VARIABLES:
        os.environ.pop(name, None)


def identity_environment(workspace: Path) -> dict[str, str]:
    """The environment variables that a call of git needs besides the process's own; none where git knows who commits.

    Only what is missing is filled in: a name that is configured is kept beside a fallback address. Needs no HOME, and no
    entry of the user in the system's list of users.
    """
    configured = _configured(workspace)
    missing: dict[str, str] = {}
    for role in ("author", "committer"):
        for what, fallback in (("name", FALLBACK_NAME), ("email", FALLBACK_EMAIL)):
            variable = f"GIT_{role.upper()}_{what.upper()}"
            if os.environ.get(variable) or (what == "email" and os.environ.get("EMAIL")):
                continue
            if not (configured.get(f"{role}.{what}") or configured.get(f"user.{what}")):
                missing[variable] = fallback
    return missing


def identity_notice(environment: Mapping[str, str]) -> str | None:
    """The sentence to show where `identity_environment` filled anything in, else None."""
    if not environment:
        return None
    return (
        f"Git knows no name or address for this user, so what Seedling commits is by {FALLBACK_NAME} <{FALLBACK_EMAIL}>; "
        "`git config --global user.name NAME` and `git config --global user.email ADDRESS` change that."
    )


def _configured(workspace: Path) -> dict[str, str]:
    listed = subprocess.run(
        ["git", "config", "--null", "--get-regexp", r"^(user|author|committer)\.(name|email)$"],  # noqa: S607
        cwd=workspace,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    identity: dict[str, str] = {}
    for entry in listed.stdout.split("\0"):
        key, _, value = entry.partition("\n")
        if value.strip():
            identity[key.lower()] = value.strip()
    return identity
