"""What a run leaves to commit, in a real git repository."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from seedling.init.create import make_workspace
from seedling.versioning.uncommitted import commit_command, uncommitted_files


def status(folder: Path) -> str:
    """The output of git status."""
    return subprocess.run(
        ["git", "status", "--porcelain"], cwd=folder, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize("inside", [True, False])
def test_the_printed_command_leaves_git_clean(tmp_path: Path, make_images: Callable[..., Path], inside: bool) -> None:
    """A new dvc.lock and changed tracked files; from the workspace's folder, and from another one."""
    workspace = make_workspace(tmp_path / "my work", make_images(), "image")
    assert status(workspace) == ""
    assert commit_command(workspace, "20261129-grow", workspace) is None
    (workspace / "dvc.lock").write_text("schema: '2.0'\n")
    with (workspace / "params.yaml").open("a") as params:
        params.write("# a note\n")
    (workspace / "test_evaluations.jsonl").write_text("{}\n")
    (workspace / "notes.txt").write_text("mine")  # not part of a run
    assert uncommitted_files(workspace) == ["params.yaml", "dvc.lock", "test_evaluations.jsonl"]
    folder = workspace if inside else tmp_path
    command = commit_command(workspace, "20261129-grow", folder)
    assert command is not None
    identity = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    exports = " ".join(f"{name}={value}" for name, value in identity.items())
    subprocess.run(["sh", "-c", f"export {exports}; {command}"], cwd=folder, check=True, capture_output=True)
    assert status(workspace) == "?? notes.txt\n"


def test_a_workspace_in_a_folder_of_a_repository_names_its_own_files(tmp_path: Path) -> None:
    """Not those of the repository around it."""
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    workspace = tmp_path / "part"
    workspace.mkdir()
    for folder in (tmp_path, workspace):
        (folder / "dvc.lock").write_text("x")
    assert uncommitted_files(workspace) == ["dvc.lock"]


def test_without_a_git_repository_there_is_nothing_to_commit(tmp_path: Path) -> None:
    """The run ends as usual."""
    (tmp_path / "dvc.lock").write_text("x")
    assert commit_command(tmp_path, "run", tmp_path) is None
