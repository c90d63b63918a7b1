"""A workspace's files are committed whatever the user's git settings exclude, refuse or convert."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from seedling.init.create import make_workspace
from seedling.versioning.git_identity import HOOK_VARIABLES, drop_hook_variables

FILES = {
    *(".dvc/.gitignore", ".dvc/config", ".dvcignore", ".gitattributes", ".gitignore", "README.md", "data.dvc"),
    "reviews/README.md",
    *("dvc.yaml", "gates.yaml", "not_copied.csv", "params.yaml", "prefect.yaml", "test_evaluations.jsonl"),
}
IDENTITY = "[user]\n\tname = A\n\temail = a@example.org\n"
SETTINGS = {
    "ignores yaml": ("*.yaml\n!dvc.yaml\n", ""),
    "ignores data, locks and tables": ("data*\n*.lock\n*.csv\n", ""),
    "ignores hidden names": (".*\n", ""),
    "ignores everything": ("*\n", ""),
    "signs without a key": (
        "",
        "[commit]\n\tgpgsign = true\n[gpg]\n\tformat = ssh\n[user]\n\tsigningkey = /nowhere.pub\n",
    ),
    "has a hook that refuses": ("", "[core]\n\thooksPath = HOOKS\n"),
    "converts line ends": ("", "[core]\n\tautocrlf = true\n\tsafecrlf = true\n"),
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two texts, and a file that `init` does not copy."""
    for name in ("a/1.txt", "b/2.txt", ".hidden"):
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_text(f"text {name}")
    return tmp_path / "source"


def git(workspace: Path, *arguments: str) -> str:
    """Run git and return its output."""
    return subprocess.run(["git", *arguments], cwd=workspace, check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", SETTINGS)
def test_the_workspaces_files_are_committed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """By init, and later by a plain `git add --all`."""
    ignore, settings = SETTINGS[kind]
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "commit-msg").write_text("#!/bin/sh\necho 'the message must name a ticket' >&2; exit 1\n")
    (hooks / "commit-msg").chmod(0o755)
    (tmp_path / "ignore").write_text(ignore)
    excludes = f"[core]\n\texcludesFile = {tmp_path / 'ignore'}\n"
    (tmp_path / "gitconfig").write_text(IDENTITY + excludes + settings.replace("HOOKS", str(hooks)))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    workspace = make_workspace(tmp_path / "work", source, "text", encoder="none")
    assert set(git(workspace, "ls-files").split()) == FILES
    assert git(workspace, "status", "--short", "--untracked-files=all") == ""
    (workspace / "dvc.lock").write_text("schema: '2.0'\n")
    (workspace / "params.yaml").write_text((workspace / "params.yaml").read_text() + "# changed\n")
    assert git(workspace, "status", "--short").split() == ["M", "params.yaml", "??", "dvc.lock"]


def test_a_hooks_variables_do_not_reach_another_repository(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a git hook: the index, with a staged file, and the folder of the user's repository are unchanged."""
    user_repository = tmp_path / "mine"
    user_repository.mkdir()
    git(user_repository, "init", "--quiet")
    (user_repository / "notes.txt").write_text("draft")
    git(user_repository, "add", "notes.txt")
    before = (user_repository / ".git" / "index").read_bytes()
    monkeypatch.setenv("GIT_DIR", str(user_repository / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(user_repository))
    monkeypatch.setenv("GIT_INDEX_FILE", str(user_repository / ".git" / "index"))
    drop_hook_variables()
    assert not set(HOOK_VARIABLES) & set(os.environ)
    workspace = make_workspace(tmp_path / "work", source, "text", encoder="none")
    assert (user_repository / ".git" / "index").read_bytes() == before
    assert git(user_repository, "status", "--short") == "A  notes.txt\n"
    assert set(git(workspace, "ls-files").split()) == FILES
