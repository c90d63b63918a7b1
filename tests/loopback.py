"""A real HTTP server on the loopback interface with routes that a test defines."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image


@dataclass
class Reply:
    """What the server answers. claimed_length: the Content-Length that it sends; hold: seconds before it answers."""

    body: bytes | str = b""
    status: int = 200
    kind: str = "text/html; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    claimed_length: int | None = None
    hold: float = 0.0


Route = Reply | str | bytes | Callable[[str, bytes], Reply]


class Site:
    """Answers by path (without its query).

    requests: the time, method, path with query, headers and body of every request.
    """

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        self.requests: list[tuple[float, str, str, dict[str, str], bytes]] = []
        self.address = ""
        self.etags = False

    def paths(self) -> list[str]:
        """The requested paths except robots.txt, in their order."""
        return [path for _, _, path, _, _ in self.requests if path != "/robots.txt"]

    def reply_to(self, path: str, body: bytes) -> Reply:
        """The reply for the path; a route that ends in * applies to all paths with that prefix."""
        bare = path.partition("?")[0]
        route = self.routes.get(bare)
        if route is None:
            route = next(
                (
                    route_reply
                    for name, route_reply in self.routes.items()
                    if name.endswith("*") and bare.startswith(name[:-1])
                ),
                None,
            )
        if route is None:
            return Reply(b"nothing here", 404, "text/plain")
        if callable(route):
            return route(path, body)
        if isinstance(route, Reply):
            return route
        return Reply(route, kind="image/png" if isinstance(route, bytes) else "text/html; charset=utf-8")


@contextmanager
def site() -> Iterator[Site]:
    """A server while the block runs."""
    new_site = Site()

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            new_site.requests.append((time.monotonic(), self.command, self.path, dict(self.headers), body))
            reply = new_site.reply_to(self.path, body)
            time.sleep(reply.hold)
            content = reply.body.encode() if isinstance(reply.body, str) else reply.body
            headers = {"Content-Type": reply.kind, **reply.headers}
            status = reply.status
            if new_site.etags and status == 200:
                headers["ETag"] = f'"{hash(content)}"'
                if self.headers.get("If-None-Match") == headers["ETag"]:
                    status, content = 304, b""
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header(
                "Content-Length", str(len(content) if reply.claimed_length is None else reply.claimed_length)
            )
            self.end_headers()
            self.wfile.write(content)
            if reply.claimed_length is not None:
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: Any) -> None:
            """Silent: clients that hang up are what is tested."""

    server = Server(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    new_site.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield new_site
    finally:
        server.shutdown()
        server.server_close()


def image(level: int) -> bytes:
    """A small PNG of one gray level and a dot."""
    buffer, pixels = io.BytesIO(), Image.new("L", (12, 12), level)
    pixels.putpixel((level % 12, level // 12 % 12), 255 - level)
    pixels.save(buffer, "PNG")
    return buffer.getvalue()
