"""Checks the folders that Seedling writes to: a link in one could make it overwrite or delete a file of the user."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from seedling.errors import InputError
from seedling.files.data_files import OF_DVC, real_path
from seedling.workspace import OWN_FOLDERS, REVIEWS

DVC_FOLDERS = (".dvc/tmp", ".dvc/cache/runs")


def check_own_folders(workspace: Path) -> None:
    """Raise InputError if a folder that Seedling writes to, or an entry in its first two levels, links elsewhere.

    Links into DVC's cache, which may be at any path, are allowed.
    """
    root = workspace.resolve()
    for path in _written(workspace):
        if path.is_symlink():
            target = real_path(path)
            if not target.is_relative_to(root) and OF_DVC.search(target.as_posix()) is None:
                raise InputError(
                    f"{path} is a link to {target}, outside of the workspace: nothing is written or removed there. "
                    "Remove the link."
                )


def _written(workspace: Path) -> Iterator[Path]:
    for name in (*OWN_FOLDERS, REVIEWS):
        yield workspace / name
        for entry in _entries(workspace / name):
            yield entry
            yield from _entries(entry)
    yield from (workspace / name for name in DVC_FOLDERS)


def _entries(folder: Path) -> Iterator[Path]:
    if folder.is_dir() and not folder.is_symlink():
        yield from folder.iterdir()
