"""Executors of independent work: threads, Prefect's task runner inside a flow, or the processes of a launcher.

The results do not depend on the executor.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

from seedling.errors import SeedlingError
from seedling.parallel.memory_limit import memory_limit_bytes

# Below this limit, two networks cannot be trained at the same time (docs/requirements.md).
SMALL_MEMORY_BYTES = 2.5 * 2**30

Executor = Callable[[Callable[[Any], Any], Sequence[Any], str], list[Any]]  # (function, items, name) → ordered results


@dataclass(frozen=True)
class Process:
    """One of the processes that share a training; the only one, unless a launcher started several.

    All processes run the same steps, because `gather` waits for all of them.

    Args:
        number: the rank; process 0 leads.
        count: the number of processes.
        local: the rank among the processes on this machine.
        locals: the number of processes on this machine.
        gather: returns the values that all processes pass, in the order of their numbers.
    """

    number: int = 0
    count: int = 1
    local: int = 0
    locals: int = 1
    gather: Callable[[Any], list[Any]] = lambda value: [value]

    @property
    def leads(self) -> bool:
        """Whether this process writes the output; the others only compute."""
        return self.number == 0

    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        """Returns this process's share of the items."""
        return items[self.number :: self.count]

    def by_leader(self, function: Callable[[], Any]) -> Any:
        """Calls the function in the leading process, and returns its result in all processes."""
        return self.gather(function() if self.leads else None)[0]

    def map(self, function: Callable[[Any], Any], items: Sequence[Any], name: str) -> list[Any]:
        """Returns function(item) for each item, in their order, divided among the processes.

        An error of one process is raised in all.
        """
        try:
            results, failure = in_threads(function, self.share(items), name), None
        except SeedlingError as error:
            results, failure = [], str(error)
        parts = self.gather((results, failure))
        for _, message in parts:
            if message is not None:
                raise SeedlingError(message)
        return [parts[index % self.count][0][index // self.count] for index in range(len(items))]


_process = Process()


def this_process() -> Process:
    """Returns this process; the only one, unless `join` was called."""
    return _process


def join(process: Process) -> None:
    """Declares that this process is one of several, until it ends."""
    global _process
    _process = process


_thread = threading.local()


@contextmanager
def inside_piece() -> Iterator[None]:
    """Marks this thread as computing a piece in a cluster's worker: on one core, without using the cluster itself."""
    _thread.inside_piece = True
    try:
        yield
    finally:
        _thread.inside_piece = False


def is_inside_piece() -> bool:
    """Whether this thread computes a piece for another process."""
    return getattr(_thread, "inside_piece", False)


def usable_cores(memory_bytes: int | None = None) -> int:
    """The number of cores that this process may use, or 1 if less than `SMALL_MEMORY_BYTES` of memory is available.

    Processes on one machine share its cores, and so do the pieces of a worker. memory_bytes: the memory limit, None for
    that of the machine or its container.
    """
    if is_inside_piece() or _is_small(memory_bytes):
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // _process.locals)


def pieces_at_once(memory_bytes: int | None = None) -> int:
    """The number of independent pieces of work to run at the same time.

    One if less than `SMALL_MEMORY_BYTES` of memory is available, else one per core and at least two, since pieces also
    wait for disks. memory_bytes: as for `usable_cores`.
    """
    return 1 if _is_small(memory_bytes) else max(2, usable_cores())


def _is_small(memory_bytes: int | None) -> bool:
    return (_limit_bytes() if memory_bytes is None else memory_bytes) < SMALL_MEMORY_BYTES


@cache
def _limit_bytes() -> int:
    return memory_limit_bytes()


def kept_threads(threads: int) -> ThreadPoolExecutor:
    """Returns a pool of threads that is kept, so that prepared state such as torch's kernels is reused."""
    return _threads(threads, os.getpid())


@cache
def _threads(threads: int, process: int) -> ThreadPoolExecutor:
    """The kept threads of a process, by its id: a forked process does not have its parent's threads."""
    return ThreadPoolExecutor(threads)


def in_threads(function: Callable[[Any], Any], items: Sequence[Any], name: str = "") -> list[Any]:
    """Returns function(item) for each item, in their order, from threads: the work releases Python's lock."""
    with ThreadPoolExecutor(pieces_at_once()) as threads:
        return list(threads.map(function, items))


_executor: ContextVar[Executor] = ContextVar("executor", default=in_threads)


def choose_executor(predicted_seconds: float, min_seconds: float) -> Executor:
    """Returns the executor for work of a predicted duration.

    Below `min_seconds`, threads: distributing the work would take longer. With several processes always all of them,
    so that each has the same results.
    """
    if _process.count > 1:
        return _process.map
    return _executor.get() if predicted_seconds > min_seconds else in_threads


@contextmanager
def using_executor(executor: Executor) -> Iterator[None]:
    """Makes `choose_executor` return this executor within the block.

    A function of this module, since Prefect pickles a task's globals, and a ContextVar cannot be pickled.
    """
    token = _executor.set(executor)
    try:
        yield
    finally:
        _executor.reset(token)
