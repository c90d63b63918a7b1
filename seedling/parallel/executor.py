"""How independent work is spread: threads here, Prefect's task runner where a flow says so, or several processes of a launcher.

Results never depend on it.
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

# Below this limit there is no room for training two networks at the same time (docs/requirements.md).
SMALL_MEMORY_BYTES = 2.5 * 2**30

Spread = Callable[[Callable[[Any], Any], Sequence[Any], str], list[Any]]  # (work, places, name) → results in order


@dataclass(frozen=True)
class Process:
    """One process among those that share a training; alone, unless a launcher started it beside others.

    All go through the same steps, so that each meets the others where something is gathered. gather: what each of them
    gives → all of it, in the processes' order; number: from 0, the one that leads; local, locals: the same on this machine.
    """

    number: int = 0
    count: int = 1
    local: int = 0
    locals: int = 1
    gather: Callable[[Any], list[Any]] = lambda value: [value]

    @property
    def leads(self) -> bool:
        """Whether it is the one that writes; the others only compute."""
        return self.number == 0

    def mine(self, places: Sequence[Any]) -> Sequence[Any]:
        """Its share of them."""
        return places[self.number :: self.count]

    def by_leader(self, function: Callable[[], Any]) -> Any:
        """What `work` gives in the process that leads, in all of them."""
        return self.gather(function() if self.leads else None)[0]

    def spread(self, function: Callable[[Any], Any], places: Sequence[Any], name: str) -> list[Any]:
        """work(place) of each, in their order, wherever it was done. An error of one process is raised in all."""
        try:
            done, failed = in_threads(function, self.mine(places), name), None
        except SeedlingError as error:
            done, failed = [], str(error)
        parts = self.gather((done, failed))
        for _, why in parts:
            if why is not None:
                raise SeedlingError(why)
        return [parts[turn % self.count][0][turn // self.count] for turn in range(len(places))]


_process = Process()


def this_process() -> Process:
    """Which one this is; the only one, unless `join` was called."""
    return _process


def join(process: Process) -> None:
    """Says that this process is one of several, for as long as it lives."""
    global _process
    _process = process


_thread = threading.local()


@contextmanager
def inside_piece() -> Iterator[None]:
    """Within the block this thread of a cluster's worker computes one piece: on one core, and without asking the cluster."""
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

    Processes on one machine share its cores, and so do the pieces of a worker. memory_bytes: the memory limit; None: the limit of
    the machine or its container.
    """
    if is_inside_piece() or _is_small(memory_bytes):
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // _process.locals)


def pieces_at_once(memory_bytes: int | None = None) -> int:
    """The number of independent pieces of work to run at the same time, or 1 if less than `SMALL_MEMORY_BYTES` of memory is available.

    Otherwise one piece per core and at least two, since pieces also wait for disks. memory_bytes: as for `usable_cores`.
    """
    return 1 if _is_small(memory_bytes) else max(2, usable_cores())


def _is_small(memory_bytes: int | None) -> bool:
    return (_limit_bytes() if memory_bytes is None else memory_bytes) < SMALL_MEMORY_BYTES


@cache
def _limit_bytes() -> int:
    return memory_limit_bytes()


def kept_threads(threads: int) -> ThreadPoolExecutor:
    """So many threads that stay: what a thread has prepared, torch's kernels above all, is there for the next rows."""
    return _threads(threads, os.getpid())


@cache
def _threads(threads: int, process: int) -> ThreadPoolExecutor:
    """process: whose they are; a forked one has none of its parent's threads."""
    return ThreadPoolExecutor(threads)


def in_threads(function: Callable[[Any], Any], places: Sequence[Any], name: str = "") -> list[Any]:
    """work(place) of each, in their order; what is computed releases Python's lock, so threads do."""
    with ThreadPoolExecutor(pieces_at_once()) as threads:
        return list(threads.map(function, places))


_spread: ContextVar[Spread] = ContextVar("dropout_std", default=in_threads)


def spread(seconds: float, worth: float) -> Spread:
    """How work is spread that will take so many seconds, predicted: below `worth` in threads, as it is done before anybody
    else has been told. Among several processes always over all of them, so that each has the same results.
    """
    if _process.count > 1:
        return _process.spread
    return _spread.get() if seconds > worth else in_threads


@contextmanager
def spread_by(how: Spread) -> Iterator[None]:
    """Within the block work is spread so. A function of its own, since Prefect pickles a task's globals, and a ContextVar
    cannot be.
    """
    before = _spread.set(how)
    try:
        yield
    finally:
        _spread.reset(before)
