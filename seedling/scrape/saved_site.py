"""Serves a site that is saved in a folder on loopback, with the site's own addresses and rate limit.

The server is an HTTP proxy that answers for each host: a crawler that uses it requests the site's real addresses, so
that origins, links and robots.txt do not depend on the server's port.
"""

from __future__ import annotations

import math
import mimetypes
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from seedling.errors import InputError
from seedling.files.data_files import read_bytes


class TokenBucket:
    """Allows `rate` requests per second, with bursts of up to `rate` / 4 requests."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._capacity = max(1.0, rate / 4)
        self._tokens, self._last, self._lock = self._capacity, time.monotonic(), threading.Lock()

    def wait_for_next(self) -> float:
        """Take a token and return 0.0, or return the seconds until there is a token."""
        with self._lock:
            now = time.monotonic()
            self._tokens = min(self._capacity, self._tokens + (now - self._last) * self._rate)
            self._last = now
            if self._tokens >= 1:
                self._tokens -= 1
                return 0.0
            return (1 - self._tokens) / self._rate


@contextmanager
def serve_folder(folder: Path, requests_per_second: float, data: Path | None = None) -> Iterator[str]:
    """Serve the folder while the block runs, and yield the proxy's address, `http://127.0.0.1:PORT`.

    data: the folder that links may not lead out of; None: `folder`.
    """
    if not (folder / "index.html").is_file():
        raise InputError(f"{folder} is not a saved site: it has no index.html. Fix `saved_site` in params.yaml.")
    bucket, root = TokenBucket(requests_per_second), folder.resolve()
    data = root if data is None else data.resolve()

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_GET(self) -> None:
            wait = bucket.wait_for_next()
            if wait > 0:
                self._send(429, b"slow down\n", "text/plain", {"Retry-After": str(max(1, math.ceil(wait)))})
                return
            requested = Path(os.path.normpath(root / unquote(urlsplit(self.path).path).lstrip("/")))
            path = requested / "index.html" if requested.is_dir() else requested
            try:
                content = read_bytes(path, data) if path.is_relative_to(root) else None
            except (OSError, ValueError):
                content = None
            if content is None:
                self._send(404, b"not found\n", "text/plain", {})
                return
            self._send(200, content, mimetypes.guess_type(path.name)[0] or "application/octet-stream", {})

        def _send(self, status: int, body: bytes, kind: str, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class names it so)
            """Log nothing: the crawl counts the answers that it gets."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
