"""`make run` works in a workspace that git ignores, so that no machine's outputs change the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
COPIED = (
    *(".dvcignore", ".gitattributes", ".gitignore", "Makefile", "data.dvc", "dvc.lock", "dvc.yaml"),
    *("gates.yaml", "params.yaml", ".dvc/config", ".dvc/.gitignore", "examples/digits"),
)


def output_of(command: list[str], folder: Path) -> str:
    """What a command prints; it must succeed."""
    # The command line, which other tests import, sets PYTHONSAFEPATH: scripts then cannot import their neighbors.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def status(repository: Path) -> str:
    """What `git status` lists as changed or untracked."""
    return output_of(["git", "status", "--porcelain", "--untracked-files=all"], repository)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the repository's own workspace, with the digits workspace in it, as `make run` creates it."""
    clone = tmp_path_factory.mktemp("clone")
    for name in COPIED:
        target = clone / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (PROJECT / name).is_dir():
            shutil.copytree(PROJECT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(PROJECT / name, target)
    identity = ["-c", "user.name=Test", "-c", "user.email=test@localhost"]
    output_of(["git", "init", "--quiet"], clone)
    output_of(["git", "add", "--all"], clone)
    output_of(["git", *identity, "commit", "--quiet", "--no-gpg-sign", "--message", "Clone"], clone)
    output_of([sys.executable, "-B", "examples/digits/create_workspace.py", "digits"], clone)
    return clone


@pytest.mark.slow
def test_the_repository_is_clean_beside_a_run_of_another_machine(repository: Path) -> None:
    """Another machine's hashes in dvc.lock, and its models and reports: in digits/ git sees none of them.

    The same dvc.lock in the repository itself is a change.
    """
    assert status(repository) == ""
    workspace, recorded = repository / "digits", (repository / "dvc.lock").read_text(encoding="utf-8")
    (workspace / "dvc.lock").write_text(recorded.replace("md5: ", "md5: 0"), encoding="utf-8")
    for name in ("models/0/model.json", "reports/report.html", "generations/scrape/manifest.json"):
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).touch()
    assert status(repository) == ""
    try:
        shutil.copyfile(workspace / "dvc.lock", repository / "dvc.lock")
        assert status(repository).split() == ["M", "dvc.lock"]
    finally:
        (repository / "dvc.lock").write_text(recorded, encoding="utf-8")


@pytest.mark.slow
def test_the_example_is_a_workspace_with_the_inputs_of_the_repository(repository: Path) -> None:
    """The same params, gates, stages and data, by the hash of DVC; everything is committed in its own repository."""
    workspace = repository / "digits"
    for name in ("params.yaml", "gates.yaml", "dvc.yaml", "data.dvc"):
        assert (workspace / name).read_bytes() == (repository / name).read_bytes(), name
    assert output_of(["git", "rev-parse", "--show-toplevel"], workspace).strip() == str(workspace.resolve())
    assert "data.dvc" in output_of(["git", "ls-files"], workspace).split()


@pytest.mark.slow
def test_dvc_in_the_repository_does_not_see_the_example(repository: Path) -> None:
    """`dvc repro` in the repository runs the repository's own stages, each of them once."""
    listed = output_of([sys.executable, "-m", "dvc", "stage", "list", "--all", "--name-only"], repository).split()
    assert "evaluate" in listed
    assert [name for name in listed if "digits" in name] == []


def test_make_run_uses_the_example() -> None:
    """The last command of `make run` names the ignored folder."""
    printed = output_of(["make", "--no-print-directory", "--dry-run", "run"], PROJECT)  # also below `make test`
    assert printed.strip().splitlines()[-1].endswith("seedling run --workspace digits")
    assert output_of(["git", "check-ignore", "digits"], PROJECT).strip() == "digits"
