"""Computes the pieces of a stage's work in this process, in other processes, or on a Dask cluster.

The other processes are loky's, which need no guarded main module; the cluster is in seedling/parallel/cluster.py. The
results do not depend on the choice. At most two pieces per worker are running or queued, so that memory stays constant.
"""

from __future__ import annotations

import importlib
import itertools
import os
import pickle
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from seedling.errors import SeedlingError
from seedling.parallel.cluster import on_cluster, over_cluster
from seedling.parallel.executor import usable_cores
from seedling.parallel.memory_limit import described_limit

P = TypeVar("P")
R = TypeVar("R")
LOCAL_SECONDS = 2.0  # of work in this process before a pool is started, which takes as long
PICKUP_TIMEOUT_SECONDS = 5.0  # for the last piece of a pool that is shut down
PIECES_PER_WORKER = 2

_function: Callable[[Any], Any] | None = None  # in a process of the pool: the function that it calls


def in_pieces(
    function: Callable[[P], R],
    pieces: Iterable[P],
    here: Callable[[Callable[[P], R], Any], Iterable[R]] = map,
) -> Iterator[R]:
    """Yields function(piece) for each piece, in their order: on the Dask cluster of SEEDLING_DASK, else by `here`.

    For a cluster, both must be picklable; the function is sent to each worker once, so it should hold what is large
    and shared. Raises what `over_cluster` raises.
    """
    return over_cluster(function, pieces) if on_cluster() else iter(here(function, pieces))


def in_processes(
    function: Callable[[P], R],
    pieces: Iterable[P],
    *,
    local_seconds: float = LOCAL_SECONDS,
    processes: int | None = None,
) -> Iterator[R]:
    """Yields function(piece) for each piece, in their order. Both must be picklable; a process gets the function once.

    After `local_seconds` of work in this process, other processes compute the other pieces. If SEEDLING_DASK names a
    scheduler, the workers of its cluster compute all of them. processes: their number, None for one per usable core.
    Raises SeedlingError if the cluster is unreachable or a process is killed, and the errors of the function.
    """
    if on_cluster():
        yield from over_cluster(function, pieces)
        return
    remaining, began = iter(pieces), time.monotonic()
    for piece in remaining:
        yield function(piece)
        workers = usable_cores() if processes is None else processes
        if workers > 1 and time.monotonic() - began > local_seconds:
            break
    first = next(remaining, None)
    if first is None:
        return
    with _process_pool(function, workers) as submit:
        futures: deque[Any] = deque()
        for piece in itertools.chain([first], remaining):
            futures.append(submit(piece))
            if len(futures) >= PIECES_PER_WORKER * workers:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()


@contextmanager
def _process_pool(function: Callable[[P], R], workers: int) -> Iterator[Callable[[P], Any]]:
    from joblib.externals.loky import ProcessPoolExecutor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    pool = ProcessPoolExecutor(workers, initializer=_initialize, initargs=(pickle.dumps(function), os.getpid()))
    last: deque[Any] = deque(maxlen=1)

    def submit(piece: P) -> Any:
        last.append(pool.submit(_call, piece))
        return last[0]

    try:
        yield submit
    except TerminatedWorkerError as error:
        raise SeedlingError(
            f"A worker process was killed, most likely out of memory ({described_limit()}): close other programs, or "
            "use fewer cores (taskset -c 0 seedling run)."
        ) from error
    finally:
        # The pool's thread fails if the pool is shut down before it has moved all pieces to its queue. The queue has
        # room for all of them, so the wait is short.
        deadline = time.monotonic() + PICKUP_TIMEOUT_SECONDS
        while last and not (last[0].running() or last[0].done()) and time.monotonic() < deadline:
            time.sleep(0.001)
        pool.shutdown(wait=True, kill_workers=True)


def _initialize(function: bytes, parent: int) -> None:
    """Initializes a process of the pool: stores its function, and makes it end with its parent."""
    global _function
    end_with(parent)
    with _hidden_package("torch"):  # albumentations imports it if it is installed, and images do not need it
        importlib.import_module("albumentations")
    _function = pickle.loads(function)  # noqa: S301  (pickled by _process_pool)


def end_with(parent: int) -> None:
    """Ends this process as soon as its parent process has ended, also if that was killed. parent: the process id."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _hidden_package(package: str) -> Iterator[None]:
    """Makes imports of the package fail within the block, as if it were not installed."""
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]


def _call(piece: Any) -> Any:
    assert _function is not None  # noqa: S101  (_initialize has run)
    return _function(piece)
