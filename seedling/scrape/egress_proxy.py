"""The browser's egress proxy: a proxy on loopback that checks each host, and connects to the very address it checked.

A page may send the browser to any host, by a script or a redirect, and a name may resolve to another address a moment
later (DNS rebinding). So the check is made where the connection is made.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from seedling.scrape.limits import LimitExceeded

MAX_HEAD_BYTES = 65_536  # of a request
FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
AddressOf = Callable[[str], Awaitable[str | None]]
Received = Callable[[int], None]


def listener() -> tuple[socket.socket, str]:
    """Return a listening socket on a free port, and the proxy's address."""
    sock = socket.create_server(("127.0.0.1", 0))
    return sock, f"http://127.0.0.1:{sock.getsockname()[1]}"


async def serve(sock: socket.socket, address_of: AddressOf, received: Received) -> asyncio.Server:
    """Start the proxy.

    address_of: host name → the IP address to connect to, or None if the host is forbidden; received: is called with the
    number of bytes that arrived, and raises LimitExceeded if the source has sent too many.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _forward(reader, writer, address_of, received)
        except (OSError, LimitExceeded, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the closed connection tells the browser
        finally:
            writer.close()

    return await asyncio.start_server(answer, sock=sock, limit=MAX_HEAD_BYTES)


async def _forward(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address_of: AddressOf, received: Received
) -> None:
    """Forward one request or one tunnel. A connection serves no second request, whose host would not be checked."""
    head = await reader.readuntil(b"\r\n\r\n")
    line, _, rest = head.partition(b"\r\n")
    method, target, version = line.split(b" ", 2)
    tunnel = method == b"CONNECT"
    parts = urlsplit(("//" if tunnel else "") + target.decode("ascii"))
    host, port = parts.hostname or "", parts.port or (443 if tunnel else 80)
    address = await address_of(host) if tunnel or parts.scheme == "http" else None
    if address is None:
        writer.write(FORBIDDEN)
        await writer.drain()
        return
    inner, outer = await asyncio.open_connection(address, port)
    try:
        if tunnel:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            headers = [
                header
                for header in rest.split(b"\r\n")
                if header and not header.lower().startswith((b"connection:", b"proxy-"))
            ]
            outer.write(
                b"\r\n".join([b"%s %s %s" % (method, path.encode(), version), *headers, b"Connection: close", b"", b""])
            )
        await asyncio.gather(_copy(reader, outer, lambda _: None), _copy(inner, writer, received))
    finally:
        outer.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, received: Received) -> None:
    while data := await source.read(65_536):
        received(len(data))
        target.write(data)
        await target.drain()
    if target.can_write_eof():
        target.write_eof()
