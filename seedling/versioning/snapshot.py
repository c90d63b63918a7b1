"""The inputs of a run as they were when it began: params.yaml, gates.yaml, expectations.py, dvc.yaml and the digest of data/.

A run reads its snapshot and never the workspace's own files, so what a person adds or edits meanwhile belongs to the next
run. The files of data/ are linked from DVC's cache into the snapshot only when a stage has to read them.
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

FOLDER = Path(".seedling", "snapshot")
REQUIRED_FILES = ("params.yaml", "gates.yaml", "dvc.yaml", "data.dvc")
DVC_IGNORE = ".dvcignore"
OPTIONAL_FILES = ("expectations.py",)


@dataclass(frozen=True)
class Snapshot:
    """What a run works on.

    data_digest: DVC's hash of data/; directories, links: every folder below data/ and every link to one with its target,
    since DVC tracks neither empty folders nor what lies behind such links.
    """

    workspace: Path
    data_digest: str
    directories: tuple[str, ...]
    links: tuple[tuple[str, str], ...]

    @property
    def folder(self) -> Path:
        """The folder that holds the copied files and, once a stage needs it, data/."""
        return self.workspace / FOLDER

    def changed_files(self) -> list[str]:
        """The names of the copied files that no longer equal the workspace's own."""
        return [
            name
            for name in (*REQUIRED_FILES, *OPTIONAL_FILES)
            if _content(self.folder / name) != _content(self.workspace / name)
        ]

    def link_data(self, files: Iterable[tuple[str, Path]]) -> None:
        """Fills the snapshot's data/ with links to the files of DVC's cache, or copies where the disk cannot link.

        files: (path relative to data/, file in the cache). Raises InputError where the cache lacks one.
        """
        data, unfinished = self.folder / "data", self.folder / "data.unfinished"
        if _content(self.folder / "data.digest") == self.data_digest.encode() and data.is_dir():
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
        (self.folder / "data.digest").write_text(self.data_digest, encoding="ascii")

    def drop_data(self) -> None:
        """Removes the snapshot's data/."""
        (self.folder / "data.digest").unlink(missing_ok=True)
        for name in ("data", "data.unfinished"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def as_seen_by_user(self, message: str) -> str:
        """The message with paths of the snapshot replaced by the workspace's own."""
        return message.replace(str(self.folder), str(self.workspace))


def copy_inputs(workspace: Path, data_digest: str, listing: Listing) -> Snapshot:
    """Copies the files of the workspace that a run reads, and gives the snapshot of them. listing: of data/."""
    snapshot = Snapshot(workspace, data_digest, listing.directories, listing.links)
    snapshot.folder.mkdir(parents=True, exist_ok=True)
    for name in REQUIRED_FILES:
        (snapshot.folder / name).write_bytes((workspace / name).read_bytes())
    for name in OPTIONAL_FILES:
        content = _content(workspace / name)
        if content is None:
            (snapshot.folder / name).unlink(missing_ok=True)
        else:
            (snapshot.folder / name).write_bytes(content)
    return snapshot


@dataclass(frozen=True)
class Listing:
    """What lies in data/: the folders, links to folders with their targets, and of each file its size in bytes, its time of
    change in ns and its inode.
    """

    directories: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    files: dict[str, tuple[int, int, int]]

    def changed_since(self, earlier: Listing) -> list[str]:
        """The files that are new, gone or changed since an earlier listing, sorted."""
        names = self.files.keys() | earlier.files.keys()
        return sorted(name for name in names if self.files.get(name) != earlier.files.get(name))


def list_data(data: Path) -> Listing:
    """Lists data/ without following links to folders.

    Raises InputError for a .dvcignore, and for a file that DVC could not track as it is: it would wait forever for what a pipe holds, keep a copy of
    what a link outside data/ leads to, and stop at a link that leads nowhere.
    """
    directories, links, files, root = [], [], {}, data.resolve()
    for folder, names, file_names in os.walk(data, onerror=_raise):
        names[:] = [name for name in names if name not in LEFT_OUT_BY_DVC]
        inside = Path(folder).relative_to(data)
        for name in names:
            path = Path(folder, name)
            if path.is_symlink():
                links.append(((inside / name).as_posix(), _link_target(path, root)))
            else:
                directories.append((inside / name).as_posix())
        for name in [*names, *file_names]:
            if not is_utf8(name):
                raise InputError(
                    f"{str(Path(folder, name))!a}: the name is not UTF-8, so DVC cannot track it: rename it."
                )
        for name in file_names:
            if name == DVC_IGNORE:
                raise InputError(
                    f"{Path(folder, name)} would hide files of data/ from DVC, so that a run would not see them: move it out of data/."
                )
            try:
                status = Path(folder, name).lstat()
            except FileNotFoundError:  # removed since the folder was read
                continue
            if not stat.S_ISREG(status.st_mode):
                _check_link(Path(folder, name), root)
            files[(inside / name).as_posix()] = (status.st_size, status.st_mtime_ns, status.st_ino)
    return Listing(tuple(sorted(directories)), tuple(sorted(links)), files)


def _raise(error: OSError) -> None:
    """A folder that cannot be read would otherwise be passed over, as if its rows had been removed."""
    if not isinstance(error, FileNotFoundError):  # removed since its parent was read
        raise error


def _link_target(link: Path, root: Path) -> str:
    """The link's target, relative to its own folder where it lies in data/, so that it means the same in the snapshot."""
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
            f"{path} is a link to a file outside data/ ({path.resolve()}), of which DVC would keep a copy: copy the file "
            "into data/ yourself, or remove the link."
        )
    if fault is not None:
        raise InputError(f"{path} is a link that leads nowhere: correct it, or remove it.")


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _link(cached: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(cached)
    except FileNotFoundError as error:
        raise InputError(
            f"DVC's cache has no copy of data/ ({cached} is missing): `dvc pull` brings it, or `dvc add --force data`."
        ) from error
    except OSError:  # another disk, or one without hard links
        shutil.copyfile(cached, target)
