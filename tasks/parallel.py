"""How independent work is spread: threads here, Prefect's task runner where a flow says so. Results never depend on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

Spread = Callable[[Callable[[int], Any], Sequence[int], str], list[Any]]  # (work, places, name) → results in order


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(work: Callable[[int], Any], places: Sequence[int], name: str) -> list[Any]:
    """work(place) of each, in their order; what is computed releases Python's lock, so threads do."""
    with ThreadPoolExecutor(max(2, usable_cores())) as threads:
        return list(threads.map(work, places))


_spread: ContextVar[Spread] = ContextVar("spread", default=in_threads)


def spread() -> Spread:
    """How work is spread just now."""
    return _spread.get()


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
