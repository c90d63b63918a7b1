"""How independent work is spread: threads or processes here, Prefect's task runner where a flow says so, processes of a launcher, or a Dask cluster.

Results never depend on it.
"""

from __future__ import annotations

import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from tasks.errors import SeedlingError

P = TypeVar("P")
R = TypeVar("R")
DASK = "SEEDLING_DASK"  # the environment's variable that holds a Dask scheduler's address
ALONE = 2.0  # seconds that work is done in this process before others are asked: they need as long to start
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
    gather: Callable[[Any], list[Any]] = lambda mine: [mine]

    @property
    def leads(self) -> bool:
        """Whether it is the one that writes; the others only compute."""
        return self.number == 0

    def mine(self, places: Sequence[Any]) -> Sequence[Any]:
        """Its share of them."""
        return places[self.number :: self.count]

    def by_leader(self, work: Callable[[], Any]) -> Any:
        """What `work` gives in the process that leads, in all of them."""
        return self.gather(work() if self.leads else None)[0]

    def spread(self, work: Callable[[Any], Any], places: Sequence[Any], name: str) -> list[Any]:
        """work(place) of each, in their order, wherever it was done. An error of one process is raised in all."""
        try:
            done, failed = in_threads(work, self.mine(places), name), None
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


def usable_cores() -> int:
    """The cores that this process may use; processes on one machine share them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // _process.locals)


def in_threads(work: Callable[[Any], Any], places: Sequence[Any], name: str = "") -> list[Any]:
    """work(place) of each, in their order; what is computed releases Python's lock, so threads do."""
    with ThreadPoolExecutor(max(2, usable_cores())) as threads:
        return list(threads.map(work, places))


def batched(some: Iterable[P], many: int) -> Iterator[list[P]]:
    """Lists of so many, the last one shorter."""
    rest = iter(some)
    while one := list(itertools.islice(rest, many)):
        yield one


def in_processes(work: Callable[[P], R], pieces: Iterable[P]) -> Iterator[R]:
    """work(piece) of each, in their order, a few pieces ahead; for what holds Python's lock. Both must bear pickling.

    Little work is done here, more by as many processes as there are cores, or, where SEEDLING_DASK names a scheduler, by that cluster's.
    Raises SeedlingError where the cluster cannot be reached.
    """
    rest, began = iter(pieces), time.monotonic()
    address = os.environ.get(DASK)
    if not address:
        for piece in rest:
            yield work(piece)
            if usable_cores() > 1 and time.monotonic() - began > ALONE:
                break
    yield from _by_dask(work, rest, address) if address else _by_joblib(work, rest)


def _by_joblib(work: Callable[[P], R], pieces: Iterator[P]) -> Iterator[R]:
    from joblib import Parallel, delayed

    first = next(pieces, None)
    if first is None:
        return
    ahead = Parallel(n_jobs=usable_cores(), return_as="generator", pre_dispatch="2*n_jobs", batch_size=1)
    yield from ahead(delayed(work)(piece) for piece in itertools.chain([first], pieces))


def _by_dask(work: Callable[[P], R], pieces: Iterator[P], address: str) -> Iterator[R]:
    try:
        from distributed import Client
    except ImportError:
        raise SeedlingError(f"{DASK} is set, but Dask is not installed: pip install seedling[dask]") from None
    try:
        client = Client(address, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        raise SeedlingError(f"{DASK}: there is no Dask scheduler at {address}: {error}") from error
    with client:
        ahead: deque[Any] = deque()
        for piece in pieces:
            ahead.append(client.submit(work, piece, pure=False))
            if len(ahead) > 2 * len(client.nthreads()):
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


_spread: ContextVar[Spread] = ContextVar("spread", default=in_threads)


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
