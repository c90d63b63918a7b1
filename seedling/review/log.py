"""The review log: `reviews/<reviewer>.jsonl`, one file per reviewer, to which lines are only ever added.

A line is stored when `ReviewLog.append` returns: it has been written and flushed to the disk. A line with an id that
the file already has is not written again, so that a browser may send its answers until they are acknowledged.

Each line ends with a checksum of its content, which shows lines that were edited by hand. Git merges the files of
different reviewers without conflict, and the lines that one reviewer added on two machines as a union (.gitattributes).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from seedling.errors import InputError
from seedling.review.records import (
    LOG_LINE,
    LOG_VERSION,
    MAX_NAME_CHARACTERS,
    REVIEWER_PATTERN,
    Answer,
    ClassChange,
    Undo,
)
from seedling.workspace import REVIEW_FILES, Workspace

CHECKSUM = "checksum"
CHECKSUM_BYTES = 8
CONFLICT_MARKERS = ("<<<<<<<", "=======", ">>>>>>>")

Line = Answer | Undo | ClassChange


@dataclass
class ReviewerFile:
    """The content of one reviewer's file.

    lines: in the order of the file. damaged: numbers of lines that are not valid, such as a line that a full disk cut;
    they are not used. edited: numbers of lines that were changed by hand, so that their checksum does not match; they
    are used.
    """

    lines: list[Line] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)
    edited: list[int] = field(default_factory=list)


def reviewer_name(name: str) -> str:
    """Return the name. Raises InputError if it cannot be the name of a reviewer's file."""
    if not re.fullmatch(REVIEWER_PATTERN, name) or len(name) > MAX_NAME_CHARACTERS:
        raise InputError(
            f"'{name[:MAX_NAME_CHARACTERS]}' cannot be the name of a reviewer: use up to {MAX_NAME_CHARACTERS} "
            "letters, digits, dots, dashes and underscores, as in --reviewer anna."
        )
    return name


def read_file(path: Path) -> ReviewerFile:
    """Read one reviewer's file. Raises InputError for git's conflict markers and for lines of a later version."""
    content = ReviewerFile()
    try:
        raw_lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return content
    for number, raw in enumerate(raw_lines, start=1):
        if not raw.strip():
            continue
        if raw.startswith(tuple(marker.encode() for marker in CONFLICT_MARKERS)):
            raise InputError(
                f"{path} has git's conflict markers in line {number}: keep the lines of both sides, and delete the "
                "markers."
            )
        try:
            values = json.loads(raw)
            checksum = values.pop(CHECKSUM, None)
            if isinstance(values.get("version"), int) and values["version"] > LOG_VERSION:
                raise InputError(
                    f"{path}, line {number}: version {values['version']} is of a later Seedling, and this one reads up "
                    f"to version {LOG_VERSION}: upgrade Seedling."
                )
            line = LOG_LINE.validate_python(values)
        except (ValueError, AttributeError, ValidationError):
            content.damaged.append(number)
            continue
        if checksum != _checksum(values):
            content.edited.append(number)
        content.lines.append(line)
    return content


def _checksum(values: dict[str, Any]) -> str:
    canonical = json.dumps(values, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=CHECKSUM_BYTES).hexdigest()


def read_log(folder: Path) -> dict[str, ReviewerFile]:
    """Read the files of all reviewers. folder: reviews/, which may be missing."""
    return {path.stem: read_file(path) for path in sorted(folder.glob(REVIEW_FILES))}


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


class ReviewLog:
    """Appends lines to the files of reviewers; safe for several threads of one process."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = Workspace(workspace)
        self.folder = self._workspace.reviews
        self._lock = threading.Lock()
        self._files: dict[str, ReviewerFile] = {}
        self._ids: dict[str, set[str]] = {}
        self._sizes: dict[str, int] = {}  # bytes of each file when this process read or wrote it last
        self._last_written: dict[str, str] = {}
        self._last_change = ""  # when the classes were changed last, by any reviewer

    def read(self, reviewer: str) -> ReviewerFile:
        """The content of a reviewer's file."""
        with self._lock:
            return self._file(reviewer)

    def all_files(self) -> dict[str, ReviewerFile]:
        """The files of all reviewers. Files that another process has changed are read again."""
        with self._lock:
            names = {path.stem for path in self.folder.glob(REVIEW_FILES)} | set(self._files)
            return {name: self._file(name) for name in sorted(names)}

    def append(self, reviewer: str, lines: Sequence[Line]) -> list[Line]:
        """Write the lines and flush them to the disk. Returns those that were new, with `written_at`.

        Either all new lines are in the file afterwards or none. Raises OSError, for example if the disk is full.
        """
        with self._lock:
            content, ids = self._file(reviewer), self._ids[reviewer]
            by_id = {line.id: line for line in reversed(lines) if line.id not in ids}
            new_lines = [
                line.model_copy(update={"written_at": self._time(reviewer, line), "reviewer": reviewer})
                for line in lines
                if by_id.pop(line.id, None) is not None
            ]
            if new_lines:
                self._sizes[reviewer] = self._write(self._path(reviewer), new_lines)
                content.lines += new_lines
                ids.update(line.id for line in new_lines)
                self._last_written[reviewer] = new_lines[-1].written_at
                if any(isinstance(line, ClassChange) for line in new_lines):
                    self._last_change = new_lines[-1].written_at
            return new_lines

    def _path(self, reviewer: str) -> Path:
        return self._workspace.review_log(reviewer_name(reviewer))

    def _file(self, reviewer: str) -> ReviewerFile:
        path = self._path(reviewer)
        size = path.stat().st_size if path.is_file() else 0
        if reviewer not in self._files or size != self._sizes[reviewer]:
            content = read_file(path)
            self._files[reviewer], self._sizes[reviewer] = content, size
            self._ids[reviewer] = {line.id for line in content.lines}
            usable = [line for line in content.lines if _is_time(line.written_at)]  # others were edited by hand
            self._last_written[reviewer] = max((line.written_at for line in usable), default="")
            changes = [line.written_at for line in usable if isinstance(line, ClassChange)]
            self._last_change = max([self._last_change, *changes])
        return self._files[reviewer]

    def _time(self, reviewer: str, line: Line) -> str:
        """The time, or that of the last line if the clock went back.

        A change of the classes is later than every answer so far, of any reviewer, because it maps those; and no answer
        is earlier than a change before it.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        if not isinstance(line, ClassChange):
            return max(now, self._last_written[reviewer], self._last_change)
        last = max(self._last_written.values())
        if now > last:
            return now
        return (datetime.fromisoformat(last) + timedelta(milliseconds=1)).isoformat(timespec="milliseconds")

    @staticmethod
    def _write(path: Path, lines: Iterable[Line]) -> int:
        """Append the lines. Returns the new size of the file in bytes."""
        encoded = []
        for line in lines:
            values = line.model_dump(mode="json", exclude_defaults=True) | {"kind": line.kind, "version": line.version}
            values[CHECKSUM] = _checksum(values)
            encoded.append(json.dumps(values, ensure_ascii=False, separators=(",", ":")))
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            # A line that a kill or a full disk cut becomes a line of its own, so that the next one is not lost with it.
            starts_in_line = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            content = (("\n" if starts_in_line else "") + "\n".join(encoded) + "\n").encode()
            try:
                _write_all(descriptor, content)
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
        if is_new:
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        return size + len(content)


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
