"""Reports that a run was killed, which the kernel does without a message to a process that uses too much memory.

`seedling run` and `seedling stage` fork a small watcher process, which always ends with them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from seedling.parallel.memory_limit import described_limit

FINISHED = b"."


@contextmanager
def announced_if_killed(workspace: Path) -> Iterator[None]:
    """Writes the likely reason and a fix to standard error if this process is killed (signal 9) within the block.

    Must be entered before threads are started. Does nothing on platforms without fork.
    """
    if not hasattr(os, "fork"):
        yield
        return
    reading, writing = os.pipe()
    watcher = os.fork()
    if watcher == 0:
        _watch(reading, writing, workspace)
    os.close(reading)
    try:
        yield
    finally:
        with suppress(OSError):  # the watcher was killed
            os.write(writing, FINISHED)
        os.close(writing)
        with suppress(ChildProcessError):
            os.waitpid(watcher, 0)


def _watch(reading: int, writing: int, workspace: Path) -> None:
    """Runs in the watcher: waits until the kernel closes the other end of the pipe, when the run ends or is killed."""
    try:
        for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the run handles these and ends by itself
            signal.signal(ignored, signal.SIG_IGN)
        os.close(writing)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        if os.read(reading, 1) != FINISHED:
            _announce(workspace)
    finally:
        os._exit(0)


def _announce(workspace: Path) -> None:
    sentence = (
        f"The run was killed: by a user (kill -9) or by the kernel, most likely out of memory ({described_limit()}). "
        "Close other programs, raise the limit, or use fewer rows (docs/requirements.md lists what a run needs). "
        f"`seedling run` in {workspace} continues from the last finished stage."
    )
    with suppress(OSError):
        os.write(2, f"\n{sentence}\n".encode())
