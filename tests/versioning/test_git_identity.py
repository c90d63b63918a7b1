"""Workspaces of users whom git does not know, and commands that a git hook starts."""

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
    """Makes this process one of a service user: no HOME, no configuration of git."""
    for name in [one for one in os.environ if one.startswith(("GIT_", "XDG_"))] + ["HOME", "EMAIL"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


def git(folder: Path, *arguments: str, more: dict[str, str] | None = None) -> str:
    """A git command, as a user types it."""
    return subprocess.run(
        ["git", *arguments], cwd=folder, env={**os.environ, **(more or {})}, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.usefixtures("nobody")
def test_a_user_without_a_name_commits_as_seedling(tmp_path: Path) -> None:
    """Author and committer are the fallback, and one sentence says so."""
    git(tmp_path, "init", "-q")
    environment = identity_environment(tmp_path)
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "x", more=environment)
    who = git(tmp_path, "log", "-1", "--format=%an <%ae> %cn <%ce>")
    assert who == f"{FALLBACK_NAME} <{FALLBACK_EMAIL}> {FALLBACK_NAME} <{FALLBACK_EMAIL}>"
    notice = identity_notice(environment)
    assert notice is not None
    assert "git config --global user.name" in notice


@pytest.mark.usefixtures("nobody")
def test_what_git_knows_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name in the repository's configuration, an author in the environment: only the rest is filled in."""
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
def test_a_workspace_is_made_by_a_user_whom_git_does_not_know_also_in_a_hook_of_another_repository(
    tmp_path: Path, make_images: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git's hooks set GIT_DIR and GIT_INDEX_FILE: the other repository stays as it was, the workspace has its own commit."""
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
