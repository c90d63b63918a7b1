"""A server on loopback for tests, with the limits of our own servers, and raw requests to it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from seedling.serving.http_connections import ConnectionLimits, LimitedConfig


@contextmanager
def serving(app: Any, limits: ConnectionLimits | None = None, host: str = "127.0.0.1") -> Iterator[int]:
    """Serves the application from a thread; gives its port."""
    with socket.create_server((host, 0), backlog=512) as listener:
        config = LimitedConfig(app, limits or ConnectionLimits(), log_level="warning")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        deadline = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.02)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def send(port: int, data: bytes, source: str | None = None) -> socket.socket:
    """Opens a connection and sends the bytes."""
    address = None if source is None else (source, 0)
    connection = socket.create_connection(("127.0.0.1", port), timeout=20, source_address=address)
    connection.sendall(data)
    return connection


def answer(port: int, data: bytes, source: str | None = None) -> bytes:
    """All that comes back until the server closes the connection."""
    parts = []
    with send(port, data, source) as connection:
        try:
            while part := connection.recv(65536):
                parts.append(part)
        except ConnectionResetError:
            pass
    return b"".join(parts)


def is_open(connection: socket.socket) -> bool:
    """Whether the server has not closed it."""
    connection.setblocking(False)
    try:
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False
