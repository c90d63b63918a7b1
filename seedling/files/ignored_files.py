"""Accounts for each file of data/: a source reads it, or it is listed in `ignored.csv` with the reason."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from seedling.config.sources import CrawlSource, HuggingFaceSource, Source, TableSource
from seedling.dataset.spreadsheet import write_list
from seedling.errors import InputError
from seedling.files.data_files import files_below, inside, real_path
from seedling.plugins import is_code
from seedling.workspace import Workspace

HIDDEN, SYSTEM_FILE, PLACEHOLDER, VERSION_CONTROL = "hidden", "system_file", "placeholder", "version_control"
NAME_NOT_UTF8 = "name_not_utf8"
UNREAD_NAMES = frozenset({HIDDEN, SYSTEM_FILE, VERSION_CONTROL, NAME_NOT_UTF8})  # reasons that depend on the name alone
NO_SOURCE_READS_IT, READ_ELSEWHERE, CODE = "no_source_reads_it", "link_to_a_file_that_is_read", "code"
LEFT_OUT_BY_DVC = frozenset({".git", ".hg", ".dvc"})  # folders in data/ that DVC does not track
REPOSITORY_NAMES = frozenset(
    {".git", ".hg", ".svn", ".dvc", ".gitignore", ".gitattributes", ".gitmodules", ".dvcignore"}
)
PLACEHOLDERS = frozenset({".keep", ".gitkeep"})  # keep empty folders in git
SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r"})
SYSTEM_FOLDERS = frozenset({"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"})


@dataclass(frozen=True)
class FileCounts:
    """File counts of data/: `total` = `read` + number of `ignored`, (path relative to data/, reason), sorted."""

    total: int
    read: int
    ignored: tuple[tuple[str, str], ...]

    def reasons(self) -> dict[str, int]:
        """Return reason → number of ignored files."""
        return dict(sorted(Counter(reason for _, reason in self.ignored).items()))


def is_hidden(name: str) -> bool:
    """Whether sources ignore a file or folder of this name: it begins with a dot, or the system creates it."""
    return name.startswith(".") or name.casefold() in SYSTEM_FILES or name.casefold() in SYSTEM_FOLDERS


def is_utf8(name: str) -> bool:
    """Whether the name of a file or folder is UTF-8, as DVC and Parquet require."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_ignored(name: str) -> bool:
    """Whether sources ignore a file or folder of this name: it is hidden, or not UTF-8."""
    return is_hidden(name) or not is_utf8(name)


def is_ignored_folder(path: Path) -> bool:
    """Whether sources ignore the folder because of its name."""
    return is_ignored(path.name)


def hidden_files(folder: Path) -> list[tuple[str, str]]:
    """Return the files with an ignored name in their path: (path relative to `folder`, reason), sorted."""
    hidden = []
    for path, _ in files_below(folder, folder.resolve()):
        relative = path.relative_to(folder)
        if (reason := reason_of(relative)) in UNREAD_NAMES:
            hidden.append((relative.as_posix(), reason))
    return sorted(hidden)


def count_files(data: Path, sources: Sequence[Source], read: frozenset[str]) -> FileCounts:
    """Count the files of data/ that are read and that are ignored.

    read: the files that are rows, or that tables name, relative to data/.
    """
    root = data.resolve()
    tables, folders = _used_by(sources, data)
    total, ignored = 0, []
    for path, fault in files_below(data, root, lambda folder: folder.name not in LEFT_OUT_BY_DVC):
        if path.name in LEFT_OUT_BY_DVC:
            continue
        total += 1
        relative = path.relative_to(data)
        resolved = real_path(path)
        if relative.as_posix() in read or resolved in tables or any(resolved.is_relative_to(top) for top in folders):
            continue
        reason = fault or reason_of(relative)
        if reason == NO_SOURCE_READS_IT and resolved.is_relative_to(root):
            reason = READ_ELSEWHERE if resolved.relative_to(root).as_posix() in read else reason
        ignored.append((relative.as_posix(), reason))
    return FileCounts(total, total - len(ignored), tuple(sorted(ignored)))


def reason_of(relative: PurePath) -> str:
    """Return why a file that no source reads is ignored. relative: to data/."""
    if not is_utf8(str(relative)):
        return NAME_NOT_UTF8
    if relative.name in PLACEHOLDERS:
        return PLACEHOLDER
    if any(part in REPOSITORY_NAMES for part in relative.parts):
        return VERSION_CONTROL
    if any(part.startswith(".") for part in relative.parts):
        return HIDDEN
    if any(is_hidden(part) for part in relative.parts):
        return SYSTEM_FILE
    return CODE if is_code(Path(relative)) else NO_SOURCE_READS_IT


def _used_by(sources: Sequence[Source], data: Path) -> tuple[frozenset[Path], list[Path]]:
    """Return the files that are tables, and the folders whose files another library reads; resolved."""
    files: set[Path] = set()
    folders: list[Path] = []
    for source in sources:
        path = _path_of(source, data)
        if path is None:
            continue
        if isinstance(source, TableSource) and path.is_dir():
            files.update(part.resolve() for part, _ in files_below(path, path) if part.suffix == ".parquet")
        elif path.is_dir():
            folders.append(path)
        else:
            files.add(path.resolve())
    return frozenset(files), folders


def _path_of(source: Source, data: Path) -> Path | None:
    field = {TableSource: "path", HuggingFaceSource: "dataset", CrawlSource: "saved_site"}.get(type(source))
    value = None if field is None else getattr(source, field)
    if value is None:
        return None
    try:
        path = inside(data, value)
    except InputError:  # a dataset of the Hub, or a path that the source's reader rejects
        return None
    return path if path.exists() else None


def write_ignored(path: Path, ignored: Sequence[tuple[str, str]]) -> None:
    """Write the list as CSV with the columns file and reason; no file if the list is empty."""
    if not ignored:
        return
    write_list(path, ("file", "reason"), [(shown_name(name), reason) for name, reason in ignored])


def shown_name(name: str) -> str:
    """Return the name as text: bytes that are not UTF-8 become a replacement character."""
    return os.fsencode(name).decode("utf-8", errors="replace")


def ignored_phrase(reasons: dict[str, int]) -> str:
    """Describe ignored files for the terminal; empty if there are none but placeholders."""
    counts = {reason: count for reason, count in reasons.items() if reason != PLACEHOLDER}
    if not counts:
        return ""
    listed = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in counts.items())
    total = sum(counts.values())
    return f"{total:,} {'file' if total == 1 else 'files'} ignored ({listed})"


def count_not_copied(workspace: Path) -> dict[str, int]:
    """Return reason → number of files that `seedling init` did not copy into data/."""
    path = Workspace(workspace).not_copied_file
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return dict(sorted(Counter(str(row.get("reason")) for row in csv.DictReader(file)).items()))
