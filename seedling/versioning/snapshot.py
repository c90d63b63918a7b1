"""The snapshot of a run's inputs at its start: params.yaml, gates.yaml, expectations.py, dvc.yaml, reviews/, data/.

A run reads its snapshot instead of the workspace's own files, so changes during a run take effect in the next run. The
files of data/ are linked from DVC's cache into the snapshot only when a stage reads them.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from seedling.errors import InputError
from seedling.files.data_files import NOT_REGULAR, OUTSIDE, fault_of
from seedling.files.ignored_files import LEFT_OUT_BY_DVC, is_utf8
from seedling.files.review_folder import create_review_folder
from seedling.workspace import (
    DATA_POINTER,
    DVC_IGNORE,
    DVC_YAML,
    EXPECTATIONS_FILE,
    GATES_FILE,
    PARAMS_FILE,
    REVIEWS,
    Workspace,
)

REQUIRED_FILES = (PARAMS_FILE, GATES_FILE, DVC_YAML, DATA_POINTER)
OPTIONAL_FILES = (EXPECTATIONS_FILE,)


@dataclass(frozen=True)
class Snapshot:
    """The inputs of a run.

    data_digest: DVC's hash of data/. directories, links: every folder below data/, and every link to a folder with its
    target, since DVC tracks neither empty folders nor the content of linked folders.
    """

    workspace: Path
    data_digest: str
    directories: tuple[str, ...]
    links: tuple[tuple[str, str], ...]

    @property
    def folder(self) -> Path:
        """The folder that holds the copied files and, once a stage needs it, data/."""
        return Workspace(self.workspace).snapshot

    def changed_files(self) -> list[str]:
        """Return the names of the copied files and folders that differ from the workspace's own."""
        changed = [
            name
            for name in (*REQUIRED_FILES, *OPTIONAL_FILES)
            if _content(self.folder / name) != _content(self.workspace / name)
        ]
        copies, reviews = Workspace(self.folder).reviews, Workspace(self.workspace).reviews
        return changed if _review_files(copies) == _review_files(reviews) else [*changed, f"{REVIEWS}/"]

    def link_data(self, files: Iterable[tuple[str, Path]]) -> None:
        """Fill the snapshot's data/ with hard links to the files in DVC's cache, or with copies if links fail.

        files: (path relative to data/, file in the cache). Raises InputError if a file is missing from the cache.
        """
        paths = Workspace(self.workspace)
        data, unfinished = Workspace(self.folder).data, paths.unfinished_snapshot_data
        if _content(paths.snapshot_digest) == self.data_digest.encode() and data.is_dir():
            return
        self.drop_data()
        unfinished.mkdir(parents=True)
        for directory in self.directories:
            (unfinished / directory).mkdir(parents=True, exist_ok=True)
        for name, cached in files:
            _link(cached, unfinished / name)
        for name, target in self.links:
            (unfinished / name).symlink_to(target)
        unfinished.replace(data)
        paths.snapshot_digest.write_text(self.data_digest, encoding="ascii")

    def drop_data(self) -> None:
        """Remove the snapshot's data/."""
        Workspace(self.workspace).snapshot_digest.unlink(missing_ok=True)
        for data in (Workspace(self.folder).data, Workspace(self.workspace).unfinished_snapshot_data):
            shutil.rmtree(data, ignore_errors=True)

    def with_workspace_paths(self, message: str) -> str:
        """Replace the snapshot's paths in a message with the workspace's paths."""
        return message.replace(str(self.folder), str(self.workspace))


def copy_inputs(workspace: Path, data_digest: str, listing: Listing) -> Snapshot:
    """Copy the workspace's files that a run reads, and return the snapshot. listing: the listing of data/."""
    snapshot = Snapshot(workspace, data_digest, listing.directories, listing.links)
    snapshot.folder.mkdir(parents=True, exist_ok=True)
    for name in REQUIRED_FILES:
        (snapshot.folder / name).write_bytes((workspace / name).read_bytes())
    _copy_reviews(Workspace(workspace).reviews, Workspace(snapshot.folder).reviews)
    for name in OPTIONAL_FILES:
        content = _content(workspace / name)
        if content is None:
            (snapshot.folder / name).unlink(missing_ok=True)
        else:
            (snapshot.folder / name).write_bytes(content)
    return snapshot


def _copy_reviews(reviews: Path, copies: Path) -> None:
    """Copy the review log. Reviewers may add lines at the same time: each copy is a file as it was at one moment."""
    create_review_folder(reviews)
    shutil.rmtree(copies, ignore_errors=True)
    copies.mkdir()
    for name, content in _review_files(reviews).items():
        (copies / name).write_bytes(content)


def _review_files(reviews: Path) -> dict[str, bytes]:
    """The content of each file, without links, which could lead out of the workspace."""
    files = sorted(path for path in reviews.glob("*") if path.is_file() and not path.is_symlink())
    return {file.name: file.read_bytes() for file in files}


@dataclass(frozen=True)
class Listing:
    """The content of data/.

    directories: every folder. links: links to folders with their targets. files: path → size in bytes, modification
    time in ns, inode.
    """

    directories: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    files: dict[str, tuple[int, int, int]]

    def changed_since(self, earlier: Listing) -> list[str]:
        """Return the files that were added, removed or changed since an earlier listing, sorted."""
        names = self.files.keys() | earlier.files.keys()
        return sorted(name for name in names if self.files.get(name) != earlier.files.get(name))


def list_data(data: Path) -> Listing:
    """List data/ without following links to folders.

    Raises InputError for a .dvcignore, for a name that is not UTF-8, and for a file that DVC cannot track: it would
    wait forever for a pipe, copy the target of a link to a file outside data/, and fail at a broken link.
    """
    directories, links, files, root = [], [], {}, data.resolve()
    for folder, folder_names, file_names in os.walk(data, onerror=_raise):
        folder_names[:] = [name for name in folder_names if name not in LEFT_OUT_BY_DVC]
        relative_folder = Path(folder).relative_to(data)
        _check_names(Path(folder), folder_names, file_names)
        for name in folder_names:
            path = Path(folder, name)
            if path.is_symlink():
                links.append(((relative_folder / name).as_posix(), _link_target(path, root)))
            else:
                directories.append((relative_folder / name).as_posix())
        for name in file_names:
            try:
                status = Path(folder, name).lstat()
            except FileNotFoundError:  # removed since the folder was listed
                continue
            if not stat.S_ISREG(status.st_mode):
                _check_link(Path(folder, name), root)
            files[(relative_folder / name).as_posix()] = (status.st_size, status.st_mtime_ns, status.st_ino)
    return Listing(tuple(sorted(directories)), tuple(sorted(links)), files)


def _check_names(folder: Path, folder_names: list[str], file_names: list[str]) -> None:
    for name in [*folder_names, *file_names]:
        if not is_utf8(name):
            raise InputError(f"{str(folder / name)!a}: the name is not UTF-8, so DVC cannot track it: rename it.")
    if DVC_IGNORE in file_names:
        raise InputError(
            f"{folder / DVC_IGNORE} would hide files of data/ from DVC, so that a run would not read them: move it out "
            "of data/."
        )


def _raise(error: OSError) -> None:
    """Raise the error of `os.walk`, which would otherwise skip an unreadable folder as if its rows had been removed."""
    if not isinstance(error, FileNotFoundError):  # removed since its parent was read
        raise error


def _link_target(link: Path, root: Path) -> str:
    """Return the link's target; relative to the link if it is in data/, so that the link also works in the snapshot."""
    target = link.resolve()
    return os.path.relpath(target, link.parent.resolve()) if target.is_relative_to(root) else str(target)


def _check_link(path: Path, root: Path) -> None:
    fault = fault_of(path, root)
    if fault == NOT_REGULAR:
        raise InputError(
            f"{path} is not a regular file but a pipe, a socket or a device, which cannot be data: remove it."
        )
    if fault == OUTSIDE:
        raise InputError(
            f"{path} is a link to a file outside data/ ({path.resolve()}), and DVC would store a copy of it: copy the "
            "file into data/ yourself, or remove the link."
        )
    if fault is not None:
        raise InputError(f"{path} is a broken link: correct it, or remove it.")


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _link(cached: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(cached)
    except FileNotFoundError as error:
        raise InputError(
            f"DVC's cache has no copy of data/ ({cached} is missing): run `dvc pull` or `dvc add --force data`."
        ) from error
    except OSError:  # the cache is on another disk, or the disk has no hard links
        shutil.copyfile(cached, target)
