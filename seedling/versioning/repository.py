"""The DVC repository of a workspace: opens and creates it, and explains its errors."""

from __future__ import annotations

import io
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo

from seedling.errors import InputError, SeedlingError, WorkspaceBusy
from seedling.faults import explain
from seedling.versioning.cache_repair import renew_links
from seedling.versioning.tracked_files import check_tracked_files, explain_dvc
from seedling.versioning.yaml_limits import limit_yaml
from seedling.workspace import DATA, Workspace


def open_repository(workspace: Path) -> Repo:
    """Open the workspace's DVC repository. Raises InputError if it is none, or if a file that DVC reads is damaged."""
    if not Workspace(workspace).dvc_folder.is_dir():
        raise InputError(
            f"{workspace} is not a Seedling workspace (it has no .dvc): create one with "
            "`seedling init DIR --images PATH`, or name another with --workspace."
        )
    check_tracked_files(workspace)
    limit_yaml()
    try:
        repo = Repo(str(workspace), _wait_for_lock=True)
    except DvcException as error:
        raise InputError(f"DVC cannot open {workspace}: {error}. Is its .git still there?") from error
    _check_cache_path(repo)
    return repo


def _check_cache_path(repo: Repo) -> None:
    """Raise InputError if the cache's path has braces, since every DVC command interprets them as a placeholder."""
    path = str(repo.cache.local.path)
    if "{" in path or "}" in path:
        raise InputError(
            f"DVC cannot use a cache whose path has braces, {path}: rename the folder, or set another one with "
            "`dvc cache dir --global`."
        )


def create_repository(folder: Path) -> None:
    """Run `dvc init` and `dvc add data`. Raises InputError if DVC fails."""
    logging.getLogger("dvc").setLevel(logging.ERROR)
    limit_yaml()
    try:
        with redirect_stdout(io.StringIO()):  # hides DVC's hints
            Repo.init(str(folder)).close()
            with Repo(str(folder)) as repo, working_in(folder):
                _check_cache_path(repo)
                repo.add([DATA])
    except DvcException as error:
        raise InputError(f"DVC cannot create a repository in {folder}: {error}") from error


def renew_workspace_links(folder: Path) -> None:
    """Renew the links of a workspace that was moved, see `renew_links`. Raises InputError if DVC cannot open it."""
    try:
        with Repo(str(folder)) as repo:
            renew_links(repo)
    except DvcException as error:
        raise InputError(f"DVC cannot open {folder}: {error}") from error


@contextmanager
def working_in(workspace: Path) -> Iterator[None]:
    """Change the working directory to the workspace, since DVC resolves relative paths against it."""
    previous_folder = Path.cwd()
    os.chdir(workspace)
    try:
        yield
    finally:
        os.chdir(previous_folder)


@contextmanager
def replaced_lock(workspace: Path) -> Iterator[Path]:
    """Yield a copy of dvc.lock to change, then rename it: DVC writes in place, and a kill would leave half a file."""
    lock, draft = Workspace(workspace).dvc_lock, Workspace(workspace).dvc_lock_draft
    draft.unlink(missing_ok=True)
    if lock.is_file():
        shutil.copyfile(lock, draft)
    yield draft
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.replace(lock)


@contextmanager
def explained_errors(workspace: Path) -> Iterator[None]:
    """Raise errors of DVC as errors of Seedling, which name the remedy."""
    try:
        yield
    except LockError as error:
        raise WorkspaceBusy(f"Another dvc command is running in {workspace}: wait for it, then run again.") from error
    except DvcException as error:
        message = str(error).rstrip(".")
        if "are missing from" in message:
            raise InputError(
                f"{message}: restore it; a section may be empty (`validate: {{}}`, `validate: []`), a key may be "
                "null (`encoder: null`)."
            ) from error
        seedling_error = explain(error) or explain_dvc(message, workspace)
        if seedling_error is not None:
            raise seedling_error from error
        raise SeedlingError(f"DVC: {message}. Run `dvc status` and `dvc doctor` for details.") from error
