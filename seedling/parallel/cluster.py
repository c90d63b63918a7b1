"""Computes the pieces of a stage's work on a Dask cluster, whose scheduler the variable SEEDLING_DASK names.

    dask scheduler                                            # on one machine
    dask worker tcp://scheduler:8786 --nthreads 1             # on each other machine, once per core
    SEEDLING_DASK=tcp://scheduler:8786 seedling run

Every worker gets the function once, and the pieces one by one. If a worker dies, another one computes its piece again.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

from seedling.errors import SeedlingError
from seedling.extras import require
from seedling.parallel.executor import inside_piece, is_inside_piece, this_process

P = TypeVar("P")
R = TypeVar("R")

ADDRESS_VARIABLE = "SEEDLING_DASK"
CONNECT_TIMEOUT_SECONDS = 10
WORKER_TIMEOUT_SECONDS = 30  # for the first worker, and for a new one after the last one died
PIECES_PER_THREAD = 2  # unfinished: one that is computed, and one that is queued
MAX_RESULTS_PER_THREAD = 8  # including finished ones that wait for an earlier piece
MAX_ATTEMPTS = 4  # for a piece whose worker dies; Dask gives up after as many
SECONDS_BETWEEN_ATTEMPTS = 2.0  # in which a nanny begins to restart a dead worker
CHECKED_PACKAGES = (  # the bytes of the results depend on their versions
    "seedling",
    "albumentations",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "scikit-learn",
    "scipy",
    "torch",
    "transformers",
)


def on_cluster() -> bool:
    """Whether pieces are computed on a cluster.

    True if SEEDLING_DASK is set, and this process is neither a worker's nor one of several that a launcher started.
    """
    return bool(os.environ.get(ADDRESS_VARIABLE)) and not is_inside_piece() and this_process().count == 1


def over_cluster(
    function: Callable[[P], R], pieces: Iterable[P], *, worker_timeout_seconds: float = WORKER_TIMEOUT_SECONDS
) -> Iterator[R]:
    """Yields function(piece) for each piece, in their order, from the cluster's workers. Both must be picklable.

    Raises SeedlingError if there is no scheduler or no worker, if a worker has other versions, or if workers keep
    dying; and the errors of `function`, with their messages unchanged.
    """
    remaining = iter(pieces)
    first = next(remaining, None)
    if first is None:
        return
    address = os.environ[ADDRESS_VARIABLE]
    with _client(address, worker_timeout_seconds) as client:
        queue = _Queue(client, address, function, worker_timeout_seconds)
        queue.add(first)
        for piece in remaining:
            while not queue.has_room():
                yield queue.next_result()
            queue.add(piece)
        while queue:
            yield queue.next_result()


@dataclass(frozen=True)
class _Sent(Generic[P, R]):
    """Sent to every worker once. versions: those of the packages on this machine."""

    function: Callable[[P], R]
    versions: dict[str, str]


@dataclass(frozen=True)
class _Failed:
    """A SeedlingError in a worker: not every exception class can be pickled, but its message can."""

    kind: type[SeedlingError]
    message: str

    def raised(self) -> SeedlingError:
        """The error to raise here."""
        try:
            return self.kind(self.message)
        except TypeError:  # the constructor of the class does not take a message
            return SeedlingError(self.message)


class _Queue(Generic[P, R]):
    """The submitted pieces, in their order, with the data to submit them again."""

    def __init__(self, client: Any, address: str, function: Callable[[P], R], worker_timeout_seconds: float) -> None:
        self._client, self._address, self._function = client, address, function
        self._worker_timeout_seconds = worker_timeout_seconds
        self._in_flight: deque[list[Any]] = deque()  # [piece, future, attempts]
        self._sent = self._scattered()

    def __len__(self) -> int:
        return len(self._in_flight)

    def has_room(self) -> bool:
        """Waits until a piece can be added, or a result must be taken first, so that memory stays constant.

        Returns whether a piece can be added.
        """
        from distributed import wait

        while True:
            threads = max(1, sum(self._client.nthreads().values()))
            unfinished = [future for _, future, _ in self._in_flight if not future.done()]
            if (
                len(unfinished) < PIECES_PER_THREAD * threads
                and len(self._in_flight) < MAX_RESULTS_PER_THREAD * threads
            ):
                return True
            if (
                len(unfinished) == 0
                or self._in_flight[0][1].done()
                or len(self._in_flight) >= MAX_RESULTS_PER_THREAD * threads
            ):
                return False
            try:
                with self._client.as_current():
                    wait(unfinished, return_when="FIRST_COMPLETED")
            except CancelledError:  # next_result submits those pieces again
                return False

    def add(self, piece: P) -> None:
        """Submits the piece."""
        self._in_flight.append([piece, self._submitted(piece), 1])

    def next_result(self) -> R:
        """Returns the result of the oldest piece, or raises its error."""
        from distributed import KilledWorker

        while True:
            _, future, attempts = self._in_flight[0]
            try:
                result = future.result()
            except (KilledWorker, CancelledError) as error:
                # If the last worker that holds the function dies, all pieces that wait for it are canceled.
                if attempts >= MAX_ATTEMPTS or isinstance(error, KilledWorker):
                    raise SeedlingError(
                        f"{ADDRESS_VARIABLE}: workers of {self._address} died repeatedly, most likely out of memory: "
                        f"give them more memory, or fewer threads each ({error})."
                    ) from error
                self._submit_again()
                continue
            self._in_flight.popleft()
            if isinstance(result, _Failed):
                raise result.raised()
            return result  # type: ignore[no-any-return]

    def _submit_again(self) -> None:
        self._sent = self._scattered()
        for entry in self._in_flight:
            if entry[1].status in {"cancelled", "lost"}:
                entry[1:] = [self._submitted(entry[0]), entry[2] + 1]

    def _submitted(self, piece: P) -> Any:
        return self._client.submit(_apply, self._sent, piece, pure=False)

    def _scattered(self) -> Any:
        for attempt in range(1, MAX_ATTEMPTS + 1):
            _wait_for_worker(self._client, self._address, self._worker_timeout_seconds)
            try:
                # To one worker, from which the others fetch it with their first piece: Dask's broadcast may never end.
                return self._client.scatter(_Sent(self._function, _versions()), hash=False)
            except (OSError, TimeoutError):  # the worker died meanwhile, and the scheduler has not noticed it yet
                if attempt == MAX_ATTEMPTS:
                    raise
                time.sleep(SECONDS_BETWEEN_ATTEMPTS)
        raise AssertionError


@contextmanager
def _client(address: str, worker_timeout_seconds: float) -> Iterator[Any]:
    require("dask", ADDRESS_VARIABLE)
    from distributed import Client

    try:
        client = Client(address, timeout=CONNECT_TIMEOUT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise SeedlingError(f"{ADDRESS_VARIABLE}: there is no Dask scheduler at {address}: {error}") from error
    with client:
        _wait_for_worker(client, address, worker_timeout_seconds)
        for worker, versions in client.run(_versions, on_error="return").items():
            if isinstance(versions, ImportError):
                raise SeedlingError(
                    f"{ADDRESS_VARIABLE}: the worker {worker} cannot import Seedling ({versions}): install the same "
                    "version there."
                )
            if not isinstance(versions, Exception):  # other errors mean that the worker has just died
                _check_versions(versions, _versions(), worker)
        yield client


def _wait_for_worker(client: Any, address: str, timeout_seconds: float) -> None:
    try:
        client.wait_for_workers(1, timeout=timeout_seconds)
    except (TimeoutError, OSError) as error:
        raise SeedlingError(
            f"{ADDRESS_VARIABLE}: the scheduler at {address} has no worker: start some (dask worker {address})."
        ) from error


def _apply(sent: _Sent[P, R], piece: P) -> R | _Failed:
    """Computes one piece in a worker, on one thread, so that its sums have the same order as on this machine."""
    from threadpoolctl import threadpool_limits

    try:
        _check_versions(_versions(), sent.versions, "that took a piece")
        with inside_piece():
            threadpool_limits(1)  # not reset: other threads of this process may compute other pieces
            if torch := sys.modules.get("torch"):
                torch.set_num_threads(1)
            return sent.function(piece)
    except SeedlingError as error:
        return _Failed(type(error), str(error))


def _check_versions(of_worker: dict[str, str], here: dict[str, str], worker: str) -> None:
    """Raises SeedlingError if the versions differ."""
    if of_worker != here:
        names = [name for name in here if of_worker.get(name) != here[name]]
        raise SeedlingError(
            f"{ADDRESS_VARIABLE}: the worker {worker} has {_as_text(of_worker, names)}, and this machine has "
            f"{_as_text(here, names)}: other versions may compute other bytes. Install the same versions."
        )


@cache
def _versions() -> dict[str, str]:
    versions = {}
    for name in CHECKED_PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "none"
    return versions


def _as_text(versions: dict[str, str], names: list[str]) -> str:
    return ", ".join(f"{name} {versions.get(name, 'none')}" for name in names)
