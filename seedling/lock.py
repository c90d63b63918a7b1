"""The workspace lock: allows one run at a time in a workspace."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from seedling.errors import SeedlingError, WorkspaceBusy
from seedling.files.own_folders import check_own_folders
from seedling.workspace import Workspace


@contextmanager
def workspace_lock(workspace: Path) -> Iterator[None]:
    """Hold the workspace lock while the block runs; the system releases the lock when the process ends.

    Raises WorkspaceBusy if another process holds the lock, InputError if a link leads the lock's files out of the
    workspace.
    """
    paths = Workspace(workspace)
    check_own_folders(workspace)
    path = paths.run_lock
    try:
        path.parent.mkdir(exist_ok=True)
        with FileLock(path, timeout=0):
            pid_file = paths.run_pid
            pid_file.write_text(str(os.getpid()), encoding="ascii")
            yield
    except Timeout as error:
        pid_file = paths.run_pid
        process = f" (process {pid_file.read_text(encoding='ascii')})" if pid_file.is_file() else ""
        raise WorkspaceBusy(
            f"Another run{process} is active in {workspace}: wait for it or stop it, then run again."
        ) from error
    except PermissionError as error:
        raise SeedlingError(
            f"Seedling has no permission to write {error.filename}: change its owner or mode."
        ) from error


def running_process(workspace: Path) -> int | None:
    """Return the id of the process that holds the workspace lock; None if the lock is free.

    The check does not interfere with a run that is about to start, unless the pid of an ended run is in use again.
    """
    try:
        process = int(Workspace(workspace).run_pid.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    if not psutil.pid_exists(process):
        return None
    try:
        with FileLock(Workspace(workspace).run_lock, timeout=0):  # another process may have the pid of an ended run
            return None
    except (Timeout, OSError):
        return process
