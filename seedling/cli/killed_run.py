"""A word when a run is killed: the kernel ends a process that takes too much memory without giving it the chance to say so.

`seedling run` and `seedling stage` fork a small process that waits for their end; it ends with them, in any case.
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
    """Where this process is killed (signal 9) while the block runs, standard error says so, with the likely reason and what to do.

    To be entered before threads are started. Does nothing where processes cannot be forked.
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
    """In the forked process: waits until the other end of the pipe is closed, which the kernel does with a killed process."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # these go to the run, which then ends by itself
            signal.signal(number, signal.SIG_IGN)
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
        f"The run was killed: by somebody (kill -9), or by the kernel, most likely out of memory ({described_limit()}). Close other "
        f"programs, raise the limit, or take fewer rows (docs/requirements.md says what a run needs). `seedling run` in {workspace} "
        "goes on from the last finished stage."
    )
    with suppress(OSError):
        os.write(2, f"\n{sentence}\n".encode())
