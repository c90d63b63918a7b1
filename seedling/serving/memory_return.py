"""Returns freed memory to the system: after large requests, glibc keeps it until the process ends."""

from __future__ import annotations

import asyncio
import ctypes
import sys
from functools import cache
from typing import Any

DELAY_SECONDS = 2.0


@cache
def _malloc_trim() -> Any:
    """Returns the function `malloc_trim` of glibc, or None for another C library."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None


def return_freed_memory() -> None:
    """Return freed memory to the system now: that of pyarrow's pool, and with glibc that of other objects."""
    if pyarrow := sys.modules.get("pyarrow"):
        pyarrow.default_memory_pool().release_unused()
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


class MemoryReturn:
    """Returns memory once, `DELAY_SECONDS` after the first call of `schedule`, however often it is called."""

    def __init__(self) -> None:
        self._scheduled = False

    def schedule(self) -> None:
        """Schedules the return of memory; requires a running event loop."""
        if not self._scheduled and _malloc_trim() is not None:
            self._scheduled = True
            asyncio.get_running_loop().call_later(DELAY_SECONDS, self._trim)

    def _trim(self) -> None:
        self._scheduled = False
        _malloc_trim()(0)
