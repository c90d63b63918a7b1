"""Limits on connections from their first byte, for this package's HTTP servers.

uvicorn bounds the size of headers and closes idle connections, but it waits forever for the end of headers, counts only
requests whose headers are complete, and logs each refusal. So its protocol is extended here: connections are counted per client and in all,
each phase of a connection has a time limit, and a message of one kind is logged once per minute.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from seedling.serving.http_clients import client_of

MAX_HEADER_BYTES = 16 * 1024
BACKLOG = 128  # asyncio accepts as many at once, before any of them can be counted
PIECE_BYTES = 8 * 1024
MAX_CHUNK_OVERHEAD_BYTES = 16 * 1024
LOG_SPAN_SECONDS = 60.0
MAX_LOG_KINDS = 1000  # messages may have values in them
LOGGERS = ("uvicorn.error", "asyncio")

logger = logging.getLogger("uvicorn.error")


@dataclass(frozen=True)
class ConnectionLimits:
    """per_client, total: open connections; header_seconds: until a request's headers are complete, from the connection's or the last answer's
    time on; write_seconds: that a client may take no bytes of an answer.
    """

    per_client: int = 128
    total: int = 256
    header_seconds: float = 10.0
    idle_seconds: int = 5
    write_seconds: float = 30.0


class OncePerSpan(logging.Filter):
    """Lets a message of one kind through once per span, with the number of those that were left out since."""

    def __init__(self, span_seconds: float = LOG_SPAN_SECONDS) -> None:
        super().__init__()
        self._span_seconds = span_seconds
        self._kinds: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is logged."""
        kind = (record.name, str(record.msg)[:60])
        now = time.monotonic()
        logged_at, left_out = self._kinds.get(kind, (-self._span_seconds, 0))
        if now - logged_at < self._span_seconds:
            self._kinds[kind] = (logged_at, left_out + 1)
            return False
        self._kinds[kind] = (now, 0)
        if len(self._kinds) > MAX_LOG_KINDS:
            self._kinds.pop(next(iter(self._kinds)))
        if left_out:
            record.msg = f"{record.getMessage()} ({left_out:,} more of this kind since the last such line.)"
            record.args = None
        return True


class Connections:
    """The open connections of a server. Where one more than allowed comes in, the one that has waited longest without a complete request is closed,
    so that a client's half requests never keep its complete ones out.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._by_client: dict[str, dict[LimitedProtocol, None]] = {}  # each client's in order of their last answer

    def __len__(self) -> int:
        return sum(map(len, self._by_client.values()))

    def add(self, connection: LimitedProtocol) -> None:
        """Counts it, and closes another, or itself, where there are too many."""
        connections_of_client = self._by_client.setdefault(connection.client_key, {})
        connections_of_client[connection] = None
        if len(connections_of_client) > self.limits.per_client:
            self._close_one(connections_of_client)
        elif len(self) > self.limits.total:
            self._close_one(max(self._by_client.values(), key=len))

    def answered(self, connection: LimitedProtocol) -> None:
        """Puts it behind those that have had no answer for longer."""
        connections_of_client = self._by_client.get(connection.client_key, {})
        if connection in connections_of_client:
            del connections_of_client[connection]
            connections_of_client[connection] = None

    def remove(self, connection: LimitedProtocol) -> None:
        """Stops counting it."""
        connections_of_client = self._by_client.get(connection.client_key, {})
        connections_of_client.pop(connection, None)
        if not connections_of_client:
            self._by_client.pop(connection.client_key, None)

    def _close_one(self, connections: dict[LimitedProtocol, None]) -> None:
        waiting = next((connection for connection in connections if not connection.is_being_answered), None)
        (waiting or next(reversed(connections))).cut_off("Too many connections: closed the one that waited longest.")


class LimitedConfig(uvicorn.Config):
    """uvicorn's settings for a server with these limits."""

    def __init__(self, app: Any, limits: ConnectionLimits, **settings: Any) -> None:
        self.open_connections = Connections(limits)
        super().__init__(
            app,
            http=LimitedProtocol,
            ws="none",
            backlog=BACKLOG,
            timeout_keep_alive=limits.idle_seconds,
            timeout_graceful_shutdown=10,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            server_header=False,
            proxy_headers=False,
            access_log=False,
            **settings,
        )
        for name in LOGGERS:
            target = logging.getLogger(name)
            if not any(isinstance(log_filter, OncePerSpan) for log_filter in target.filters):
                target.addFilter(OncePerSpan())


class LimitedProtocol(H11Protocol):
    """One connection, with time limits."""

    def __init__(
        self,
        config: LimitedConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.client_key = ""
        self._open_connections = config.open_connections
        self._limits = config.open_connections.limits
        self._deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None
        self._overhead_bytes = 0

    @property
    def is_being_answered(self) -> bool:
        """Whether a request is complete and its answer is not."""
        return self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Counts the connection; the time for its headers begins."""
        super().connection_made(transport)
        self.client_key = client_of(self.client[0]) if self.client else ""
        self._close_after(self._limits.header_seconds)
        self._open_connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Reads in small pieces, so that many tiny chunks of a body are noticed before they cost time."""
        for start in range(0, len(data), PIECE_BYTES):
            if self.transport.is_closing():
                return
            piece = data[start : start + PIECE_BYTES]
            cycle, unread_bytes = self.cycle, 0 if self.cycle is None else len(self.cycle.body)
            super().data_received(piece)
            if self.cycle is None or self.cycle.response_complete:
                continue
            self._cancel_deadline()  # the body has a time limit of its own
            payload_bytes = len(self.cycle.body) - (unread_bytes if self.cycle is cycle else 0)
            self._overhead_bytes += len(piece) - 2 * payload_bytes
            if self.cycle.more_body and self._overhead_bytes > MAX_CHUNK_OVERHEAD_BYTES:
                self.cut_off("A body came in chunks that are too small.")
                return

    def on_response_complete(self) -> None:
        """The time for the next request's headers begins."""
        self._overhead_bytes = 0
        cycle = self.cycle
        super().on_response_complete()
        self._open_connections.answered(self)
        if self.cycle is cycle:
            pending = self.transport.get_write_buffer_size()
            self._close_after(self._limits.write_seconds if pending else self._limits.header_seconds)

    def pause_writing(self) -> None:
        """The client takes too few bytes."""
        super().pause_writing()
        if self._write_deadline is None:
            self._write_deadline = self.loop.call_later(
                self._limits.write_seconds, self.cut_off, "A client did not take its answer in time."
            )

    def resume_writing(self) -> None:
        """The client took bytes."""
        super().resume_writing()
        self._cancel_write_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops counting it."""
        self._open_connections.remove(self)
        self._cancel_deadline()
        self._cancel_write_deadline()
        super().connection_lost(exc)

    def cut_off(self, reason: str) -> None:
        """Closes it at once, whatever is under way."""
        logger.warning(reason)
        self._open_connections.remove(self)
        self._cancel_deadline()
        self._cancel_write_deadline()
        self.transport.abort()

    def _close_after(self, seconds: float) -> None:
        self._cancel_deadline()
        self._deadline = self.loop.call_later(seconds, self.cut_off, "A request was not complete in time.")

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _cancel_write_deadline(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None
