"""Pieces of a stage's work on a Dask cluster, whose scheduler the environment variable SEEDLING_DASK names.

    dask scheduler                                            # on one machine
    dask worker tcp://scheduler:8786 --nthreads 1             # on each of the others, once for each core
    SEEDLING_DASK=tcp://scheduler:8786 seedling run

The work object goes to every worker once, its pieces one by one. A piece whose worker died is done again by another worker.
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
from seedling.parallel.executor import inside_piece, is_inside_piece, this_process

P = TypeVar("P")
R = TypeVar("R")

ADDRESS_VARIABLE = "SEEDLING_DASK"
CONNECT_TIMEOUT_SECONDS = 10
WORKER_TIMEOUT_SECONDS = 30  # for the first worker, and for another one after the last one died
PIECES_PER_THREAD = 2  # unfinished at once: one that is computed and one that waits beside it
RESULTS_PER_THREAD = 8  # at most, finished ones that wait for an earlier piece among them
MAX_ATTEMPTS = 4  # for a piece whose worker dies; Dask gives up after as many
SECONDS_BETWEEN_ATTEMPTS = 2.0  # in which a nanny has begun to restart a dead worker
CHECKED_PACKAGES = (  # their versions decide about bytes
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
    """Whether pieces go to a cluster: SEEDLING_DASK is set, and this process is neither a worker's nor one of several that a launcher started."""
    return bool(os.environ.get(ADDRESS_VARIABLE)) and not is_inside_piece() and this_process().count == 1


def over_cluster(function: Callable[[P], R], pieces: Iterable[P]) -> Iterator[R]:
    """function(piece) of each, in their order, by the cluster's workers. Both must be picklable.

    Raises SeedlingError where there is no scheduler or no worker, where a worker has other versions, or where workers keep dying;
    and whatever error `function` raises, its message unchanged.
    """
    remaining = iter(pieces)
    first = next(remaining, None)
    if first is None:
        return
    address = os.environ[ADDRESS_VARIABLE]
    with _client(address) as client:
        queue = _Queue(client, address, function)
        queue.add(first)
        for piece in remaining:
            while not queue.has_room():
                yield queue.next_result()
            queue.add(piece)
        while queue:
            yield queue.next_result()


@dataclass(frozen=True)
class _Sent(Generic[P, R]):
    """What every worker gets once. versions: of the packages here."""

    function: Callable[[P], R]
    versions: dict[str, str]


@dataclass(frozen=True)
class _Failed:
    """An error of ours in a worker: not every exception class can be pickled, its message can."""

    kind: type[SeedlingError]
    message: str

    def raised(self) -> SeedlingError:
        """The error to raise here."""
        try:
            return self.kind(self.message)
        except TypeError:  # a class whose constructor takes something else than a message
            return SeedlingError(self.message)


class _Queue(Generic[P, R]):
    """The pieces in flight, in their order, with what is needed to submit them again."""

    def __init__(self, client: Any, address: str, function: Callable[[P], R]) -> None:
        self._client, self._address, self._function = client, address, function
        self._flying: deque[list[Any]] = deque()  # [piece, future, attempts]
        self._sent = self._scattered()

    def __len__(self) -> int:
        return len(self._flying)

    def has_room(self) -> bool:
        """Waits until a worker has nothing waiting, or results must be taken first: memory stays flat however many pieces there are."""
        from distributed import wait

        while True:
            threads = max(1, sum(self._client.nthreads().values()))
            unfinished = [future for _, future, _ in self._flying if not future.done()]
            if len(unfinished) < PIECES_PER_THREAD * threads and len(self._flying) < RESULTS_PER_THREAD * threads:
                return True
            if len(unfinished) == 0 or self._flying[0][1].done() or len(self._flying) >= RESULTS_PER_THREAD * threads:
                return False
            try:
                with self._client.as_current():
                    wait(unfinished, return_when="FIRST_COMPLETED")
            except CancelledError:  # whoever takes the results submits those pieces again
                return False

    def add(self, piece: P) -> None:
        """Submits the piece."""
        self._flying.append([piece, self._submitted(piece), 1])

    def next_result(self) -> R:
        """The oldest piece's result. Raises what its work raised."""
        from distributed import KilledWorker

        while True:
            _, future, attempts = self._flying[0]
            try:
                result = future.result()
            except (KilledWorker, CancelledError) as error:
                # With the last worker that holds the work object, whatever waits for that object is cancelled.
                if attempts >= MAX_ATTEMPTS or isinstance(error, KilledWorker):
                    raise SeedlingError(
                        f"{ADDRESS_VARIABLE}: workers of {self._address} died again and again, most likely for want of memory: give them "
                        f"more, or fewer threads each ({error})."
                    ) from error
                self._submit_again()
                continue
            self._flying.popleft()
            if isinstance(result, _Failed):
                raise result.raised()
            return result  # type: ignore[no-any-return]

    def _submit_again(self) -> None:
        self._sent = self._scattered()
        for entry in self._flying:
            if entry[1].status in {"cancelled", "lost"}:
                entry[1:] = [self._submitted(entry[0]), entry[2] + 1]

    def _submitted(self, piece: P) -> Any:
        return self._client.submit(_apply, self._sent, piece, pure=False)

    def _scattered(self) -> Any:
        for attempt in range(1, MAX_ATTEMPTS + 1):
            _wait_for_worker(self._client, self._address)
            try:
                # To one worker, from which the others fetch it with their first piece: Dask's own broadcast may wait for ever.
                return self._client.scatter(_Sent(self._function, _versions()), hash=False)
            except (
                OSError,
                TimeoutError,
            ):  # a worker died while it was sent the object, and the scheduler has yet to notice
                if attempt == MAX_ATTEMPTS:
                    raise
                time.sleep(SECONDS_BETWEEN_ATTEMPTS)
        raise AssertionError


@contextmanager
def _client(address: str) -> Iterator[Any]:
    try:
        from distributed import Client
    except ImportError:
        raise SeedlingError(
            f"{ADDRESS_VARIABLE} is set, but Dask is not installed: pip install seedling-ml[dask]"
        ) from None
    try:
        client = Client(address, timeout=CONNECT_TIMEOUT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise SeedlingError(f"{ADDRESS_VARIABLE}: there is no Dask scheduler at {address}: {error}") from error
    with client:
        _wait_for_worker(client, address)
        for worker, versions in client.run(_versions, on_error="return").items():
            if isinstance(versions, ImportError):
                raise SeedlingError(
                    f"{ADDRESS_VARIABLE}: the worker {worker} cannot import Seedling ({versions}): install it there, in the same version."
                )
            if not isinstance(versions, Exception):  # another one means that the worker has just died
                _check_versions(versions, _versions(), worker)
        yield client


def _wait_for_worker(client: Any, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=WORKER_TIMEOUT_SECONDS)
    except (TimeoutError, OSError) as error:
        raise SeedlingError(
            f"{ADDRESS_VARIABLE}: the scheduler at {address} has no worker: start some (dask worker {address})."
        ) from error


def _apply(sent: _Sent[P, R], piece: P) -> R | _Failed:
    """In a worker: one piece, on one thread, so that its sums have the same order as here."""
    from threadpoolctl import threadpool_limits

    try:
        _check_versions(_versions(), sent.versions, "that took a piece")
        with inside_piece():
            threadpool_limits(1)  # for good: other pieces may be computed in this process's other threads
            if torch := sys.modules.get("torch"):
                torch.set_num_threads(1)
            return sent.function(piece)
    except SeedlingError as error:
        return _Failed(type(error), str(error))


def _check_versions(of_worker: dict[str, str], here: dict[str, str], worker: str) -> None:
    """Raises SeedlingError where they differ."""
    if of_worker != here:
        names = [name for name in here if of_worker.get(name) != here[name]]
        raise SeedlingError(
            f"{ADDRESS_VARIABLE}: the worker {worker} has {_as_text(of_worker, names)}, and here is {_as_text(here, names)}: "
            "other versions may give other bytes. Install the same ones."
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
