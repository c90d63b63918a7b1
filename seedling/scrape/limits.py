"""What a source may bring in a visit, counted as it comes."""

from __future__ import annotations

SOURCE_TOO_LARGE = "source_too_large"


class LimitExceeded(Exception):
    """A connection brought more than it may; the message is the reason code."""


class ReceivedBytes:
    """What all connections of a source brought, headers included. limit: in bytes."""

    def __init__(self, limit: int, count: int) -> None:
        self.limit, self.count = limit, count

    def add(self, count: int) -> None:
        """Raises LimitExceeded where the source has brought too much."""
        self.count += count
        if self.exhausted:
            raise LimitExceeded(SOURCE_TOO_LARGE)

    @property
    def exhausted(self) -> bool:
        """Whether nothing more is asked."""
        return self.count > self.limit
