"""Pieces of a stage's work, by whoever does them: this process, other processes of this machine (loky's, which need no guarded main module),
or a Dask cluster (seedling/parallel/cluster.py).

Results never depend on it. As many pieces are under way, or wait to be taken, as twice the workers, so that memory stays flat.
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
ALONE = 2.0  # seconds that work is done in this process before others are asked: they need as long to start
TAKEN_AFTER = 5.0  # seconds, at most, that a piece is awaited to be taken by a pool that ends

_work: Callable[[Any], Any] | None = None  # what this process was started for


def in_pieces(
    function: Callable[[P], R],
    pieces: Iterable[P],
    here: Callable[[Callable[[P], R], Any], Iterable[R]] = map,
) -> Iterator[R]:
    """work(piece) of each, in their order: by the Dask cluster where SEEDLING_DASK names one, else as `here` does it.

    For a cluster both must be picklable; `work` is sent to each worker once, so what is large and shared belongs there. Raises what
    `over_cluster` raises.
    """
    return over_cluster(function, pieces) if on_cluster() else iter(here(function, pieces))


def in_processes(function: Callable[[P], R], pieces: Iterable[P]) -> Iterator[R]:
    """work(piece) of each, in their order. Both must bear pickling; work is sent once a process.

    Little work is done here, more by as many processes as there are cores, or, where SEEDLING_DASK names a scheduler, by that cluster's.
    Raises SeedlingError where the cluster cannot be had, or a process ends before its time; and what work raises.
    """
    if on_cluster():
        yield from over_cluster(function, pieces)
        return
    rest, began = iter(pieces), time.monotonic()
    for piece in rest:
        yield function(piece)
        if usable_cores() > 1 and time.monotonic() - began > ALONE:
            break
    first = next(rest, None)
    if first is None:
        return
    with _own(function) as (submit, workers):
        ahead: deque[Any] = deque()
        for piece in itertools.chain([first], rest):
            ahead.append(submit(piece))
            if len(ahead) >= 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


@contextmanager
def _own(function: Callable[[P], R]) -> Iterator[tuple[Callable[[P], Any], int]]:
    from joblib.externals.loky import ProcessPoolExecutor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    workers = usable_cores()
    pool = ProcessPoolExecutor(workers, initializer=_begin, initargs=(pickle.dumps(function), os.getpid()))
    last: deque[Any] = deque(maxlen=1)

    def submit(piece: P) -> Any:
        last.append(pool.submit(_do, piece))
        return last[0]

    try:
        yield submit, workers
    except TerminatedWorkerError as error:
        raise SeedlingError(
            f"A process that worked beside this one was killed, most likely out of memory ({described_limit()}): close other programs, or "
            "let fewer cores work (taskset -c 0 seedling run)."
        ) from error
    finally:
        # A piece that the pool's thread has not taken to its queue yet, when it is shut down, makes that thread fail. It has room for all, so it soon
        # has taken them; microseconds are left between its word and its deed.
        until = time.monotonic() + TAKEN_AFTER
        while last and not (last[0].running() or last[0].done()) and time.monotonic() < until:
            time.sleep(0.001)
        pool.shutdown(wait=True, kill_workers=True)


def _begin(function: bytes, leader: int) -> None:
    """In a process that was started: what it is there for, and that it ends with the one that started it."""
    global _work
    end_with(leader)
    with _as_if_without("torch"):  # albumentations takes it in where it can, and images do not need it
        importlib.import_module("albumentations")
    _work = pickle.loads(function)  # noqa: S301  (what _own made)


def end_with(leader: int) -> None:
    """Ends this process when the one that started it, of this number, has ended, however it did: nobody would know that it still works."""

    def watch() -> None:
        while os.getppid() == leader:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _as_if_without(package: str) -> Iterator[None]:
    """Whoever tries to import it finds that it is not installed."""
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]


def _do(piece: Any) -> Any:
    assert _work is not None  # noqa: S101  (_begin has run)
    return _work(piece)
