"""What the system and the libraries raise, as a sentence with the file and the remedy; what nobody foresaw goes to a log file."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import tempfile
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from seedling.errors import DamagedFile, SeedlingError, UnexpectedError
from seedling.files.reading import remedy

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)
DISK_FULL_WORDS = ("no space left on device", "disk quota exceeded", "database or disk is full", "file too large")
PERMISSION_WORDS = ("attempt to write a readonly database", "read-only file system", "permission denied")
DAMAGED_DATABASE_WORDS = ("malformed", "file is not a database", "file is encrypted")
NO_THREAD_WORDS = ("can't start new thread",)
MAX_CAUSES = 20
LOG = Path("logs", "errors.log")  # below .seedling
MAX_LOG_BYTES = 2**20


def explain(error: BaseException, writing: object = None, database: Path | None = None) -> SeedlingError | None:
    """The error, or the one that caused it, as one that names the place and the remedy; None where neither is known.

    writing: what was being written, for errors that do not say it themselves; database: the SQLite file that was in use.
    """
    for cause in _causes(error):
        if isinstance(cause, SeedlingError):
            return cause
        explained = _of_system(cause, writing) or _of_database(cause, database) or _of_memory(cause)
        if explained is not None:
            return explained
    return None


def unexpected(error: BaseException, command: str, workspace: Path | None) -> UnexpectedError:
    """An error for which there is no sentence: its traceback goes to a log file, which the message names."""
    last = traceback.format_exception_only(error)[-1].strip().splitlines()[0]
    log = _log(error, command, workspace)
    where = f"The traceback is in {log}" if log else "No log file could be written"
    return UnexpectedError(
        f"Seedling broke off with an error that it does not know: {last[:500].rstrip('.')}. {where}; `--debug` shows it. "
        "What was finished is kept: the same command goes on from there."
    )


def as_seedling_error(error: BaseException, command: str, workspace: Path | None) -> SeedlingError:
    """Any error as one with a sentence and an exit code that is never 1."""
    return explain(error) or unexpected(error, command, workspace)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from, the outermost first."""
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    while queue and len(seen) < MAX_CAUSES:
        cause = queue.pop(0)
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        queue += getattr(cause, "exceptions", ())  # of a group
        queue += [cause.__cause__, None if cause.__suppress_context__ else cause.__context__]


def _of_system(error: BaseException, writing: object) -> SeedlingError | None:
    words = str(error).lower()
    number = error.errno if isinstance(error, OSError) else None
    where = getattr(error, "filename", None) or getattr(error, "filename2", None) or writing
    if number in DISK_FULL or any(phrase in words for phrase in DISK_FULL_WORDS):
        return SeedlingError(f"The disk is full{_at(where)}: free space and run again; finished stages are kept.")
    if number in NO_PERMISSION or any(phrase in words for phrase in PERMISSION_WORDS):
        location = where or str(error).strip().splitlines()[0]
        return SeedlingError(
            f"There is no permission to read or write {location}: change its owner or mode, or mount it writable, and run again."
        )
    if not isinstance(error, OSError):
        return None
    if "no usable temporary directory" in words:
        return SeedlingError(
            f"There is no folder for temporary files that can be written ({error.strerror}): set TMPDIR to one, and run again."
        )
    if number == errno.ENOENT and where:
        return SeedlingError(
            f"{where} does not exist, or was removed meanwhile: {remedy_of_missing(Path(str(where)))}."
        )
    if number in {errno.EMFILE, errno.ENFILE}:
        return SeedlingError("Too many files are open: raise the limit (`ulimit -n 4096`), and run again.")
    if number in {errno.EIO, errno.ESTALE}:
        return SeedlingError(
            f"The disk cannot be read or written{_at(where)} ({error.strerror}): check it, and run again."
        )
    if number == errno.ENAMETOOLONG:
        return SeedlingError(f"The path is too long{_at(where)}: move the workspace to a shorter one.")
    return None


def remedy_of_missing(path: Path) -> str:
    """What to do where a file is not there."""
    if {"generations", "models", "reports"} & set(path.parts):
        return "`seedling run` restores it from DVC's cache or makes it again"
    return "put it back, and run again"


def _of_database(error: BaseException, path: Path | None) -> SeedlingError | None:
    if isinstance(error, sqlite3.OperationalError) and "disk i/o error" in str(error).lower():
        return SeedlingError(
            f"The disk is full or cannot be written{_at(path)} (SQLite: {error}): free space, and run again; finished "
            "stages are kept."
        )
    if not any(phrase in str(error).lower() for phrase in DAMAGED_DATABASE_WORDS):
        return None
    if not (isinstance(error, sqlite3.DatabaseError) or "DatabaseError" in type(error).__name__):
        return None
    if path is not None:
        return DamagedFile(path, error, remedy(path))
    return SeedlingError(f"A database is damaged ({error}): `--debug` shows which; delete it, and run again.")


def _of_memory(error: BaseException) -> SeedlingError | None:
    if isinstance(error, MemoryError) or any(phrase in str(error).lower() for phrase in NO_THREAD_WORDS):
        from seedling.parallel.memory_limit import described_limit

        return SeedlingError(
            f"There is not enough memory ({described_limit()}): close other programs, raise the limit, or take fewer rows; "
            "docs/requirements.md says what a run needs. Finished stages are kept."
        )
    return None


def _at(where: object) -> str:
    return f" at {where}" if where else ""


def _log(error: BaseException, command: str, workspace: Path | None) -> Path | None:
    """The file that the traceback was added to: in the workspace, else in the folder for temporary files; None where neither can be written."""
    text = (
        f"{datetime.now(UTC).isoformat(timespec='seconds')} {command}\n{''.join(traceback.format_exception(error))}\n"
    )
    candidates = []
    if workspace is not None and (workspace / ".seedling").is_dir():
        candidates.append(workspace / ".seedling" / LOG)
    with contextlib.suppress(OSError):  # no folder for temporary files can be written
        candidates.append(
            Path(tempfile.gettempdir(), f"seedling-{os.getuid() if hasattr(os, 'getuid') else 'errors'}.log")
        )
    for path in candidates:
        try:
            if any(part.is_symlink() for part in (path, path.parent, path.parent.parent)):
                continue  # it may lead to a file of the user's
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file() and path.stat().st_size > MAX_LOG_BYTES:
                path.replace(path.with_suffix(".old.log"))
            with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError:
            continue
        return path
    return None
