"""Decides which files of a folder of data are read: regular files inside it, and links to such files.

A folder may come from anybody. A link that leads out of it could bring any file of this machine into an exported dataset, and
opening a named pipe or a device could wait forever. In a DVC workspace data/ may consist of links into DVC's cache
(`cache.type = symlink`); those are followed.
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

BROKEN_LINK, OUTSIDE, NOT_REGULAR = "broken_link", "link_outside_data", "not_a_regular_file"
LOOP, READ_BEFORE = "link_loop", "link_to_a_folder_read_before"
OF_DVC = re.compile(r"/files/md5/[0-9a-f]{2}/[0-9a-f]{30}$")  # a file in DVC's cache, wherever the cache lies


BYTE_ORDER_MARKS = (  # UTF-32's first: in little-endian order it begins as UTF-16's does
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class NotRead(OSError):
    """A file that is not read; the reason is its text."""


def inside(data: Path, relative: str) -> Path:
    """The path below data/, absolute. Raises InputError for one that leads out of it, itself or by a link."""
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
    """Why the file is not read; None where it is a regular file inside `root`, or a link to one. root: resolved."""
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
    """The path with links resolved as far as they lead anywhere; `Path.resolve` raises an error for a link to itself."""
    return Path(os.path.realpath(path))


def read_bytes(path: Path, root: Path | None = None, max_bytes: int | None = None) -> bytes:
    """The file's bytes; a pipe or a device is never waited for.

    root: the folder, resolved, that it must lie in; None: wherever it lies, as for a path that the user wrote. Raises NotRead.
    """
    with _opened(path, root) as file:
        if max_bytes is None:
            return file.read()
        content = file.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise NotRead("too_many_bytes")
        return content


def read_first_bytes(path: Path, byte_count: int, root: Path | None = None) -> bytes:
    """The file's first bytes, at most so many; as `read_bytes` otherwise."""
    with _opened(path, root) as file:
        return file.read(byte_count)


def _opened(path: Path, root: Path | None) -> BinaryIO:
    if root is not None and (fault := fault_of(path, root)) is not None:
        raise NotRead(fault)
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(opened, "rb")
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        file.close()
        raise NotRead(NOT_REGULAR)
    return file


def read_text(path: Path, root: Path | None = None) -> str:
    """The file's text, in UTF-8 or what its byte order mark says, with line ends as newlines. Raises NotRead, UnicodeDecodeError."""
    return decode_text(read_bytes(path, root)).replace("\r\n", "\n").replace("\r", "\n")


def decode_text(encoded: bytes) -> str:
    """The text of bytes in UTF-8, or in UTF-16 or UTF-32 where they begin with its byte order mark. Raises UnicodeDecodeError."""
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if encoded.startswith(mark)), "utf-8-sig")
    return encoded.decode(encoding)


def files_below(
    top: Path, root: Path, enter: Callable[[Path], bool] = lambda _: True
) -> Iterator[tuple[Path, str | None]]:
    """Each file below `top`, with the reason for which it is not read, if any; those of a folder in the order of their names, then its folders'.

    Links to folders inside `root` are followed, each folder once and never to one that the link lies in, so that links upon
    links neither loop nor multiply the files; a link that is not followed is listed with its reason. enter: whether a folder
    is looked into.
    """
    for folder, names, faults in _folders(top, root, enter, set(), frozenset()):
        for name in names:
            path = folder / name
            yield path, fault_of(path, root) if path.is_symlink() or not path.is_file() else None
        yield from faults


def folders_below(top: Path, root: Path) -> Iterator[Path]:
    """Each folder that `files_below` looks into, `top` and empty ones too."""
    for folder, _, _ in _folders(top, root, lambda _: True, set(), frozenset()):
        yield folder


Visited = tuple[
    Path, list[str], list[tuple[Path, str]]
]  # a folder, its files' names, and its folders that are not looked into


def _folders(
    folder: Path, root: Path, enter: Callable[[Path], bool], followed: set[Path], around: frozenset[Path]
) -> Iterator[Visited]:
    try:
        names = sorted(path.name for path in folder.iterdir())
        folders = [name for name in names if (folder / name).is_dir()]
        resolved = folder.resolve()
    except OSError:
        yield folder, [], [(folder, "unreadable_folder")]
        return
    around |= {resolved}
    below, faults = [], []
    for path in (folder / name for name in folders):
        if enter(path):
            fault = _fault_of_folder(path, root, followed, around)
            if fault is None:
                below.append(path)
            else:
                faults.append((path, fault))
    apart = set(folders)
    yield folder, [name for name in names if name not in apart], faults
    for path in below:
        yield from _folders(path, root, enter, followed, around)


def _fault_of_folder(path: Path, root: Path, followed: set[Path], around: frozenset[Path]) -> str | None:
    if not path.is_symlink():
        return None
    resolved = path.resolve()
    if not resolved.is_relative_to(root):
        return OUTSIDE
    if resolved in around:
        return LOOP
    if resolved in followed:
        return READ_BEFORE
    followed.add(resolved)
    return None


def leads_out(folder: Path, root: Path) -> bool:
    """Whether the folder is a link, or lies behind one, that leads out of `root`."""
    return not folder.resolve().is_relative_to(root)


def _in_cache(resolved: Path, root: Path) -> bool:
    """Whether a link from data/ of a DVC workspace ends in DVC's cache, which may be shared and lie anywhere."""
    return (root.parent / ".dvc").is_dir() and OF_DVC.search(resolved.as_posix()) is not None
