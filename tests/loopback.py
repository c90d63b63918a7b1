"""A real HTTP server on loopback, whose paths a test writes down."""

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
    """What the server answers; told: the length that it claims; hold: seconds before it answers."""

    body: bytes | str = b""
    status: int = 200
    kind: str = "text/html; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    told: int | None = None
    hold: float = 0.0


Route = Reply | str | bytes | Callable[[str, bytes], Reply]


class Site:
    """Answers by path (without its query); asked: every request's time, method, path with query, headers and body."""

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        self.asked: list[tuple[float, str, str, dict[str, str], bytes]] = []
        self.address = ""
        self.etags = False

    def paths(self) -> list[str]:
        """The paths that were asked for but for robots.txt, in their order."""
        return [path for _, _, path, _, _ in self.asked if path != "/robots.txt"]

    def reply_to(self, path: str, body: bytes) -> Reply:
        """What stands at the path; a route that ends in * stands for all that begin so."""
        bare = path.partition("?")[0]
        route = self.routes.get(bare)
        if route is None:
            route = next(
                (one for name, one in self.routes.items() if name.endswith("*") and bare.startswith(name[:-1])), None
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
    told = Site()

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            told.asked.append((time.monotonic(), self.command, self.path, dict(self.headers), body))
            reply = told.reply_to(self.path, body)
            time.sleep(reply.hold)
            content = reply.body.encode() if isinstance(reply.body, str) else reply.body
            headers = {"Content-Type": reply.kind, **reply.headers}
            status = reply.status
            if told.etags and status == 200:
                headers["ETag"] = f'"{hash(content)}"'
                if self.headers.get("If-None-Match") == headers["ETag"]:
                    status, content = 304, b""
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content) if reply.told is None else reply.told))
            self.end_headers()
            self.wfile.write(content)
            if reply.told is not None:
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
    told.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()


def image(level: int) -> bytes:
    """A small PNG of one gray level and a dot."""
    shown, pixels = io.BytesIO(), Image.new("L", (12, 12), level)
    pixels.putpixel((level % 12, level // 12 % 12), 255 - level)
    pixels.save(shown, "PNG")
    return shown.getvalue()
