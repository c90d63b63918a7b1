"""One run at a time in a workspace; the second says so and leaves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from seedling.errors import SeedlingError, WorkspaceBusy
from seedling.files.own_folders import check_own_folders

RUN_LOCK = Path(".seedling", "run.lock")
RUN_PID = Path(".seedling", "run.pid")  # written while the lock is held, and left behind


@contextmanager
def workspace_lock(workspace: Path) -> Iterator[None]:
    """Holds the workspace while the block runs; the lock goes with its process, however that ends.

    Raises WorkspaceBusy where another process holds it, InputError where a link leads its files out of the workspace.
    """
    check_own_folders(workspace)
    path = workspace / RUN_LOCK
    try:
        path.parent.mkdir(exist_ok=True)
        with FileLock(path, timeout=0):
            holder = path.with_suffix(".pid")
            holder.write_text(str(os.getpid()), encoding="ascii")
            yield
    except Timeout as error:
        holder = path.with_suffix(".pid")
        who = f" (process {holder.read_text(encoding='ascii')})" if holder.is_file() else ""
        raise WorkspaceBusy(
            f"Another run{who} is at work in {workspace}: wait for it, or stop it, then run again."
        ) from error
    except PermissionError as error:
        raise SeedlingError(f"There is no permission to write {error.filename}: change its owner or mode.") from error


def running_process(workspace: Path) -> int | None:
    """The process that holds the workspace, None where nobody does; does not disturb a run that is about to start."""
    try:
        process = int((workspace / RUN_PID).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    if not psutil.pid_exists(process):
        return None
    try:
        with FileLock(workspace / RUN_LOCK, timeout=0):  # another process may have got the number of an ended one
            return None
    except (Timeout, OSError):
        return process
