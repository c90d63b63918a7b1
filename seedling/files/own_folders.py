"""The folders of a workspace that Seedling writes to: a link in their place could lead a write, or a removal, to a file of the user's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from seedling.errors import InputError
from seedling.files.data_files import OF_DVC, real_path

OWN_FOLDERS = (".seedling", "generations", "models", "quarantine", "reports")
DVC_FOLDERS = (".dvc/tmp", ".dvc/cache/runs")


def check_own_folders(workspace: Path) -> None:
    """Raises InputError where a folder that Seedling writes to, or something in its first two levels, is a link out of the workspace.

    Links into DVC's cache are its way to store files, wherever that lies.
    """
    root = workspace.resolve()
    for path in _written(workspace):
        if path.is_symlink():
            target = real_path(path)
            if not target.is_relative_to(root) and OF_DVC.search(target.as_posix()) is None:
                raise InputError(
                    f"{path} is a link to {target}, outside of the workspace: nothing is written or removed behind it. Remove the link."
                )


def _written(workspace: Path) -> Iterator[Path]:
    for name in OWN_FOLDERS:
        yield workspace / name
        for entry in _entries(workspace / name):
            yield entry
            yield from _entries(entry)
    yield from (workspace / name for name in DVC_FOLDERS)


def _entries(folder: Path) -> Iterator[Path]:
    if folder.is_dir() and not folder.is_symlink():
        yield from folder.iterdir()
