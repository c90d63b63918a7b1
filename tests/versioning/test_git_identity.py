"""Workspaces of users without a git identity, and commands that a git hook starts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from seedling.versioning.git_identity import FALLBACK_EMAIL, FALLBACK_NAME, identity_environment, identity_notice


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run this process as a service user without HOME and git configuration."""
    for name in [
        name_of_variable for name_of_variable in os.environ if name_of_variable.startswith(("GIT_", "XDG_"))
    ] + ["HOME", "EMAIL"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


def git(folder: Path, *arguments: str, more: dict[str, str] | None = None) -> str:
    """Run a git command, as a user types it."""
    return subprocess.run(
        ["git", *arguments], cwd=folder, env={**os.environ, **(more or {})}, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.usefixtures("nobody")
def test_a_user_without_a_name_commits_as_seedling(tmp_path: Path) -> None:
    """Author and committer are the fallback, and one message reports it."""
    git(tmp_path, "init", "-q")
    environment = identity_environment(tmp_path)
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "x", more=environment)
    who = git(tmp_path, "log", "-1", "--format=%an <%ae> %cn <%ce>")
    assert who == f"{FALLBACK_NAME} <{FALLBACK_EMAIL}> {FALLBACK_NAME} <{FALLBACK_EMAIL}>"
    notice = identity_notice(environment)
    assert notice is not None
    assert "git config --global user.name" in notice


@pytest.mark.usefixtures("nobody")
def test_an_existing_git_identity_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name in the repository's configuration or an author in the environment is used, and only the rest is filled in."""
    git(tmp_path, "init", "-q")
    git(tmp_path, "config", "user.name", "Ada")
    monkeypatch.setenv("GIT_AUTHOR_EMAIL", "ada@example.com")
    environment = identity_environment(tmp_path)
    assert environment == {"GIT_COMMITTER_EMAIL": FALLBACK_EMAIL}
    git(tmp_path, "config", "user.email", "ada@example.com")
    assert identity_environment(tmp_path) == {}
    assert identity_notice({}) is None


@pytest.mark.slow
@pytest.mark.usefixtures("nobody")
def test_a_user_without_a_git_identity_can_create_a_workspace_also_in_a_hook(
    tmp_path: Path, make_images: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git's hooks set GIT_DIR and GIT_INDEX_FILE: the other repository is unchanged, and the workspace has a commit of
    its own.
    """
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git/index"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    command = [sys.executable, "-m", "seedling.cli.main", "init", str(tmp_path / "w"), "--images", str(make_images())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"):
        monkeypatch.delenv(name)
    assert git(tmp_path / "w", "log", "--format=%an") == FALLBACK_NAME
    assert git(tmp_path / "w", "status", "--porcelain") == ""
    assert git(other, "for-each-ref") == ""
    assert git(other, "ls-files") == ""
