"""Counts the bytes that a source sends in a visit, and ends the visit at a limit."""

from __future__ import annotations

SOURCE_TOO_LARGE = "source_too_large"


class LimitExceeded(Exception):
    """A connection exceeded a limit; the message is the reason code."""


class ReceivedBytes:
    """Counts the bytes of all connections of a source, headers included. limit: in bytes."""

    def __init__(self, limit: int, count: int) -> None:
        self.limit, self.count = limit, count

    def add(self, count: int) -> None:
        """Count bytes. Raises LimitExceeded if the source has sent more than the limit."""
        self.count += count
        if self.exhausted:
            raise LimitExceeded(SOURCE_TOO_LARGE)

    @property
    def exhausted(self) -> bool:
        """Whether the limit is exceeded, so that no further request is sent."""
        return self.count > self.limit
