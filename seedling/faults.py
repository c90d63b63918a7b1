"""Translates errors of the system and of libraries into messages with the file and the remedy.

The traceback of an unknown error goes to a log file.
"""

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
from seedling.workspace import STAGE_OUTPUTS, Workspace

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)
DISK_FULL_PHRASES = ("no space left on device", "disk quota exceeded", "database or disk is full", "file too large")
PERMISSION_PHRASES = ("attempt to write a readonly database", "read-only file system", "permission denied")
DAMAGED_DATABASE_PHRASES = ("malformed", "file is not a database", "file is encrypted", "no such table")
NO_THREAD_PHRASES = ("can't start new thread",)
MAX_CAUSES = 20
MAX_LOG_BYTES = 2**20


def explain(error: BaseException, writing: object = None, database: Path | None = None) -> SeedlingError | None:
    """Return a SeedlingError with the file and the remedy for a known error or its cause; None for an unknown error.

    writing: the path that was being written, for errors that have no path. database: the SQLite file that was in use.
    """
    for cause in _causes(error):
        if isinstance(cause, SeedlingError):
            return cause
        translated = _system_error(cause, writing) or _database_error(cause, database) or _memory_error(cause)
        if translated is not None:
            return translated
    return None


def unexpected_error(error: BaseException, command: str, workspace: Path | None) -> UnexpectedError:
    """Return an UnexpectedError for an unknown error, and write the traceback to the log file in its message."""
    summary = traceback.format_exception_only(error)[-1].strip().splitlines()[0]
    log = _log(error, command, workspace)
    log_sentence = f"The traceback is in {log}" if log else "The traceback could not be written to a log file"
    return UnexpectedError(
        f"Seedling stopped because of an unexpected error: {summary[:500].rstrip('.')}. {log_sentence}; `--debug` "
        "prints it. Finished stages are kept, and the same command continues from there."
    )


def as_seedling_error(error: BaseException, command: str, workspace: Path | None) -> SeedlingError:
    """Translate any error into a SeedlingError, whose exit code is never 1 unless a gate failed."""
    return explain(error) or unexpected_error(error, command, workspace)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its causes, from the outermost to the innermost."""
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    while queue and len(seen) < MAX_CAUSES:
        cause = queue.pop(0)
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        queue += getattr(cause, "exceptions", ())  # the errors of an exception group
        queue += [cause.__cause__, None if cause.__suppress_context__ else cause.__context__]


def _system_error(error: BaseException, writing: object) -> SeedlingError | None:
    message = str(error).lower()
    number = error.errno if isinstance(error, OSError) else None
    path = getattr(error, "filename", None) or getattr(error, "filename2", None) or writing
    if number in DISK_FULL or any(phrase in message for phrase in DISK_FULL_PHRASES):
        return SeedlingError(f"The disk is full{_at(path)}: free space and run again; finished stages are kept.")
    if number in NO_PERMISSION or any(phrase in message for phrase in PERMISSION_PHRASES):
        location = path or str(error).strip().splitlines()[0]
        return SeedlingError(
            f"Seedling has no permission to read or write {location}: change its owner or mode, or mount it writable, "
            "and run again."
        )
    if not isinstance(error, OSError):
        return None
    if "no usable temporary directory" in message:
        return SeedlingError(
            f"No folder for temporary files is writable ({error.strerror}): set TMPDIR to a writable folder, and run "
            "again."
        )
    if number == errno.ENOENT and path:
        return SeedlingError(
            f"{path} does not exist or was removed during the run: {_missing_remedy(Path(str(path)))}."
        )
    if number in {errno.EMFILE, errno.ENFILE}:
        return SeedlingError("Too many files are open: raise the limit (`ulimit -n 4096`), and run again.")
    if number in {errno.EIO, errno.ESTALE}:
        return SeedlingError(
            f"The disk cannot be read or written{_at(path)} ({error.strerror}): check it, and run again."
        )
    if number == errno.ENAMETOOLONG:
        return SeedlingError(f"The path is too long{_at(path)}: move the workspace to a folder with a shorter path.")
    return None


def _missing_remedy(path: Path) -> str:
    if {*STAGE_OUTPUTS} & set(path.parts):
        return "`seedling run` restores it from DVC's cache or generates it again"
    return "restore it, and run again"


def _database_error(error: BaseException, path: Path | None) -> SeedlingError | None:
    if isinstance(error, sqlite3.OperationalError) and "disk i/o error" in str(error).lower():
        return SeedlingError(
            f"The disk is full or cannot be written{_at(path)} (SQLite: {error}): free space, and run again; finished "
            "stages are kept."
        )
    if not any(phrase in str(error).lower() for phrase in DAMAGED_DATABASE_PHRASES):
        return None
    if not (isinstance(error, sqlite3.DatabaseError) or "DatabaseError" in type(error).__name__):
        return None
    if path is not None:
        return DamagedFile(path, error, remedy(path))
    return SeedlingError(f"A database is damaged ({error}): `--debug` shows its path; delete it, and run again.")


def _memory_error(error: BaseException) -> SeedlingError | None:
    if isinstance(error, MemoryError) or any(phrase in str(error).lower() for phrase in NO_THREAD_PHRASES):
        from seedling.parallel.memory_limit import described_limit

        return SeedlingError(
            f"There is not enough memory ({described_limit()}): close other programs, raise the limit, or use fewer "
            "rows; docs/requirements.md lists how much a run needs. Finished stages are kept."
        )
    return None


def _at(path: object) -> str:
    return f" at {path}" if path else ""


def _log(error: BaseException, command: str, workspace: Path | None) -> Path | None:
    """Append the traceback to a log file and return its path; None if no log file is writable.

    The log file is in the workspace, or else in the system's folder for temporary files.
    """
    text = (
        f"{datetime.now(UTC).isoformat(timespec='seconds')} {command}\n{''.join(traceback.format_exception(error))}\n"
    )
    candidates = []
    if workspace is not None and Workspace(workspace).state.is_dir():
        candidates.append(Workspace(workspace).error_log)
    with contextlib.suppress(OSError):  # no folder for temporary files is writable
        candidates.append(
            Path(tempfile.gettempdir(), f"seedling-{os.getuid() if hasattr(os, 'getuid') else 'errors'}.log")
        )
    for path in candidates:
        try:
            if any(part.is_symlink() for part in (path, path.parent, path.parent.parent)):
                continue  # the link may lead to a file of the user
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file() and path.stat().st_size > MAX_LOG_BYTES:
                path.replace(path.with_suffix(".old.log"))
            with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError:
            continue
        return path
    return None
