"""Gives freed memory back to the system: glibc keeps it after many large requests, for as long as the process lives."""

from __future__ import annotations

import asyncio
import ctypes
from functools import cache
from typing import Any

DELAY_SECONDS = 2.0


@cache
def _malloc_trim() -> Any:
    """The function of glibc; None where the C library is another one."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None


class MemoryReturn:
    """Returns memory once, some seconds after it was asked to, however often it was."""

    def __init__(self) -> None:
        self._scheduled = False

    def schedule(self) -> None:
        """Within a running event loop."""
        if not self._scheduled and _malloc_trim() is not None:
            self._scheduled = True
            asyncio.get_running_loop().call_later(DELAY_SECONDS, self._trim)

    def _trim(self) -> None:
        self._scheduled = False
        _malloc_trim()(0)
