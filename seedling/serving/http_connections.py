"""Limits on connections from their first byte, for this package's HTTP servers.

uvicorn limits the size of headers and closes idle connections, but it waits forever for the end of headers, counts
only requests whose headers are complete, and logs each refusal. This module extends its protocol: connections are
counted per client and in total, each phase of a connection has a time limit, and a message of one kind is logged once
per minute.
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
BACKLOG = 128  # asyncio accepts as many connections at once, before any of them can be counted
PIECE_BYTES = 8 * 1024
MAX_CHUNK_OVERHEAD_BYTES = 16 * 1024
LOG_SPAN_SECONDS = 60.0
MAX_LOG_KINDS = 1000  # messages may contain values, so their number has no limit of its own
LOGGERS = ("uvicorn.error", "asyncio")

logger = logging.getLogger("uvicorn.error")


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits on the connections of a server.

    Args:
        per_client: maximum number of open connections per client.
        total: maximum number of open connections.
        header_seconds: maximum time from the start of the connection, or from the last response, to complete headers.
        idle_seconds: time after which uvicorn closes an idle connection.
        write_seconds: maximum time without progress in which a client does not read its response.
    """

    per_client: int = 128
    total: int = 256
    header_seconds: float = 10.0
    idle_seconds: int = 5
    write_seconds: float = 30.0


class OncePerSpan(logging.Filter):
    """Logs messages of one kind once per time span, with the number of messages that were left out since."""

    def __init__(self, span_seconds: float = LOG_SPAN_SECONDS) -> None:
        super().__init__()
        self._span_seconds = span_seconds
        self._kinds: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns whether the record is logged."""
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
            record.msg = f"{record.getMessage()} ({left_out:,} more messages of this kind since the last one.)"
            record.args = None
        return True


class Connections:
    """The open connections of a server.

    If there is one too many, the connection that has waited longest without a complete request is closed, so that
    incomplete requests of a client do not block its complete ones.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._by_client: dict[str, dict[LimitedProtocol, None]] = {}  # per client in order of the last response

    def __len__(self) -> int:
        return sum(map(len, self._by_client.values()))

    def add(self, connection: LimitedProtocol) -> None:
        """Counts the connection. Closes another one, or this one, if there are too many."""
        connections_of_client = self._by_client.setdefault(connection.client_key, {})
        connections_of_client[connection] = None
        if len(connections_of_client) > self.limits.per_client:
            self._close_one(connections_of_client)
        elif len(self) > self.limits.total:
            self._close_one(max(self._by_client.values(), key=len))

    def answered(self, connection: LimitedProtocol) -> None:
        """Moves the connection behind those whose last response is older."""
        connections_of_client = self._by_client.get(connection.client_key, {})
        if connection in connections_of_client:
            del connections_of_client[connection]
            connections_of_client[connection] = None

    def remove(self, connection: LimitedProtocol) -> None:
        """Stops counting the connection."""
        connections_of_client = self._by_client.get(connection.client_key, {})
        connections_of_client.pop(connection, None)
        if not connections_of_client:
            self._by_client.pop(connection.client_key, None)

    def _close_one(self, connections: dict[LimitedProtocol, None]) -> None:
        waiting = next((connection for connection in connections if not connection.is_being_answered), None)
        (waiting or next(reversed(connections))).cut_off(
            "Too many connections: the one that waited longest was closed."
        )


class LimitedConfig(uvicorn.Config):
    """The uvicorn configuration of a server with these limits."""

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
    """One HTTP/1.1 connection with time limits."""

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
        """Whether a request is complete and its response is not."""
        return self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Counts the connection and starts the time limit for its headers."""
        super().connection_made(transport)
        self.client_key = client_of(self.client[0]) if self.client else ""
        self._close_after(self._limits.header_seconds)
        self._open_connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Reads in small pieces, so that a body of many tiny chunks is detected before it costs time."""
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
                self.cut_off("The chunks of a body are too small.")
                return

    def on_response_complete(self) -> None:
        """Starts the time limit for the headers of the next request."""
        self._overhead_bytes = 0
        cycle = self.cycle
        super().on_response_complete()
        self._open_connections.answered(self)
        if self.cycle is cycle:
            pending = self.transport.get_write_buffer_size()
            self._close_after(self._limits.write_seconds if pending else self._limits.header_seconds)

    def pause_writing(self) -> None:
        """Starts the write time limit: the client reads too slowly."""
        super().pause_writing()
        if self._write_deadline is None:
            self._write_deadline = self.loop.call_later(
                self._limits.write_seconds, self.cut_off, "A client did not read its response in time."
            )

    def resume_writing(self) -> None:
        """Cancels the write time limit: the client has read bytes."""
        super().resume_writing()
        self._cancel_write_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops counting the connection and cancels its time limits."""
        self._open_connections.remove(self)
        self._cancel_deadline()
        self._cancel_write_deadline()
        super().connection_lost(exc)

    def cut_off(self, reason: str) -> None:
        """Closes the connection at once, also during a request."""
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
