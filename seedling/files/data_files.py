"""Decides which files of a data folder are read: regular files inside it, and links to such files.

A folder may come from an untrusted source. A link out of it could copy any file of this machine into an exported
dataset, and opening a named pipe or a device could block forever. In a DVC workspace, data/ may consist of links into
DVC's cache (`cache.type = symlink`), which are followed.
"""

from __future__ import annotations

import codecs
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from seedling.errors import InputError
from seedling.workspace import DVC_FOLDER

BROKEN_LINK, OUTSIDE, NOT_REGULAR = "broken_link", "link_outside_data", "not_a_regular_file"
LOOP, READ_BEFORE = "link_loop", "link_to_a_folder_read_before"
OF_DVC = re.compile(r"/files/md5/[0-9a-f]{2}/[0-9a-f]{30}$")  # a file in DVC's cache, which may be at any path
# UTF-32 first: its little-endian mark begins with UTF-16's.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class NotRead(OSError):
    """A file that is not read; the message is the reason code."""


def inside(data: Path, relative: str) -> Path:
    """Return the absolute path below data/. Raises InputError if the path, or a link in it, leads out of data/."""
    root = data.resolve()
    path = Path(os.path.normpath(root / relative))
    resolved = path.resolve()
    if resolved.is_relative_to(root) and path.is_relative_to(root):
        return resolved
    if not path.is_relative_to(root) or not _in_cache(resolved, root):
        raise InputError(
            f"params.yaml: '{relative}' leads out of {data}: copy it into data/ and name it relative to data/."
        )
    return path


def fault_of(path: Path, root: Path) -> str | None:
    """Why the file is not read; None for a regular file inside `root`, or a link to one. root: resolved."""
    try:
        resolved = path.resolve(strict=True)
    except RuntimeError:
        return LOOP
    except OSError as error:
        return LOOP if error.errno == 40 else BROKEN_LINK  # ELOOP
    if not resolved.is_relative_to(root) and not _in_cache(resolved, root):
        return OUTSIDE
    return None if stat.S_ISREG(resolved.stat().st_mode) else NOT_REGULAR


def real_path(path: Path) -> Path:
    """Return the path with its links resolved; `Path.resolve` raises an error for a link to itself."""
    return Path(os.path.realpath(path))


def read_bytes(path: Path, root: Path | None = None, max_bytes: int | None = None) -> bytes:
    """Return the file's bytes, without waiting for a pipe or a device.

    root: the resolved folder that must contain it; None: any path, as for a path that the user wrote. Raises NotRead.
    """
    with _opened(path, root) as file:
        if max_bytes is None:
            return file.read()
        content = file.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise NotRead("too_many_bytes")
        return content


def read_first_bytes(path: Path, byte_count: int, root: Path | None = None) -> bytes:
    """Return at most the first `byte_count` bytes of the file, as `read_bytes` does."""
    with _opened(path, root) as file:
        return file.read(byte_count)


def _opened(path: Path, root: Path | None) -> BinaryIO:
    if root is not None and (fault := fault_of(path, root)) is not None:
        raise NotRead(fault)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise NotRead(NOT_REGULAR)
    return file


def read_text(path: Path, root: Path | None = None) -> str:
    r"""Return the file's text as `decode_text` does, with line ends as \n. Raises NotRead and UnicodeDecodeError."""
    return decode_text(read_bytes(path, root)).replace("\r\n", "\n").replace("\r", "\n")


def decode_text(encoded: bytes) -> str:
    """Decode UTF-8, or UTF-16 or UTF-32 with a byte order mark. Raises UnicodeDecodeError."""
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if encoded.startswith(mark)), "utf-8-sig")
    return encoded.decode(encoding)


def files_below(
    top: Path, root: Path, enter: Callable[[Path], bool] = lambda _: True
) -> Iterator[tuple[Path, str | None]]:
    """Yield each file below `top` with the reason why it is not read, or None.

    A folder's files come first, by name, then the files of its folders. A link to a folder inside `root` is followed
    once, and never to a folder that contains the link, so that links cannot loop or multiply the files; a link that is
    not followed is yielded with its reason. enter: whether to enter a folder.
    """
    for folder, names, faults in _folders(top, root, enter, set(), frozenset()):
        for name in names:
            path = folder / name
            yield path, fault_of(path, root) if path.is_symlink() or not path.is_file() else None
        yield from faults


def folders_below(top: Path, root: Path) -> Iterator[Path]:
    """Yield each folder that `files_below` enters, including `top` and empty folders."""
    for folder, _, _ in _folders(top, root, lambda _: True, set(), frozenset()):
        yield folder


Visited = tuple[Path, list[str], list[tuple[Path, str]]]  # a folder, its files' names, its folders that are not entered


def _folders(
    folder: Path, root: Path, enter: Callable[[Path], bool], followed: set[Path], parents: frozenset[Path]
) -> Iterator[Visited]:
    try:
        names = sorted(path.name for path in folder.iterdir())
        folders = [name for name in names if (folder / name).is_dir()]
        resolved = folder.resolve()
    except OSError:
        yield folder, [], [(folder, "unreadable_folder")]
        return
    parents |= {resolved}
    entered, faults = [], []
    for path in (folder / name for name in folders):
        if enter(path):
            fault = _fault_of_folder(path, root, followed, parents)
            if fault is None:
                entered.append(path)
            else:
                faults.append((path, fault))
    folder_names = set(folders)
    yield folder, [name for name in names if name not in folder_names], faults
    for path in entered:
        yield from _folders(path, root, enter, followed, parents)


def _fault_of_folder(path: Path, root: Path, followed: set[Path], parents: frozenset[Path]) -> str | None:
    if not path.is_symlink():
        return None
    resolved = path.resolve()
    if not resolved.is_relative_to(root):
        return OUTSIDE
    if resolved in parents:
        return LOOP
    if resolved in followed:
        return READ_BEFORE
    followed.add(resolved)
    return None


def leads_out(folder: Path, root: Path) -> bool:
    """Whether the folder is a link, or is below a link, that leads out of `root`."""
    return not folder.resolve().is_relative_to(root)


def _in_cache(resolved: Path, root: Path) -> bool:
    """Whether a link from data/ of a DVC workspace ends in DVC's cache, which may be shared and at any path."""
    return (root.parent / DVC_FOLDER).is_dir() and OF_DVC.search(resolved.as_posix()) is not None
