"""The only way out for the browser: a proxy on loopback that judges each host, and connects to the very address that it judged.

A page may send the browser anywhere, by a script or a redirect, and a name may resolve to another address a moment later; so the judging
is done where the connection is made.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from seedling.scrape.limits import LimitExceeded

HEAD = 65_536  # bytes of a request's head at most
FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
AddressOf = Callable[[str], Awaitable[str | None]]
Received = Callable[[int], None]


def listener() -> tuple[socket.socket, str]:
    """A port of the proxy's own, and its address."""
    made = socket.create_server(("127.0.0.1", 0))
    return made, f"http://127.0.0.1:{made.getsockname()[1]}"


async def serve(on: socket.socket, address_of: AddressOf, received: Received) -> asyncio.Server:
    """Starts the proxy. address_of: the IP address of a host's name that may be connected to, or None; received: takes the number of bytes
    that came, and raises LimitExceeded where these are too many.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _one(reader, writer, address_of, received)
        except (OSError, LimitExceeded, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the browser is told by the closed connection
        finally:
            writer.close()

    return await asyncio.start_server(answer, sock=on, limit=HEAD)


async def _one(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address_of: AddressOf, received: Received
) -> None:
    """One request, or one tunnel; a connection serves no second one, whose host would go unjudged."""
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
            kept = [
                one for one in rest.split(b"\r\n") if one and not one.lower().startswith((b"connection:", b"proxy-"))
            ]
            outer.write(
                b"\r\n".join([b"%s %s %s" % (method, path.encode(), version), *kept, b"Connection: close", b"", b""])
            )
        await asyncio.gather(_copied(reader, outer, lambda _: None), _copied(inner, writer, received))
    finally:
        outer.close()


async def _copied(source: asyncio.StreamReader, to: asyncio.StreamWriter, received: Received) -> None:
    while data := await source.read(65_536):
        received(len(data))
        to.write(data)
        await to.drain()
    if to.can_write_eof():
        to.write_eof()
