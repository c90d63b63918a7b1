"""Obeys robots.txt (RFC 9309): an unreachable file forbids all pages for now, a missing file allows all pages."""

from __future__ import annotations

from typing import Any

from scrapy.downloadermiddlewares.robotstxt import RobotsTxtMiddleware
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Request, Response
from twisted.python.failure import Failure

from seedling.scrape.base_spider import reason_of
from seedling.scrape.downloading import Refused

MAX_ROBOTS_BYTES = 512_000  # the RFC requires at least 500 KiB
TOO_MANY_REQUESTS = 429
HOST_REASONS = {"no_such_host", "private_address", "tls_failure", "connection_refused", "rate_limited"}


class RobotsTxt(RobotsTxtMiddleware):  # type: ignore[misc]
    """Fixes Scrapy's middleware, which parses an error page as rules and takes each failure as a permission."""

    def __init__(self, crawler: Any) -> None:
        super().__init__(crawler)
        self._forbidden: dict[str, str] = {}  # host → the reason code

    async def process_request(self, request: Request, spider: Any = None) -> None:
        """Raise Refused if robots.txt could not be read, IgnoreRequest if it forbids the address."""
        await super().process_request(request)
        reason = self._forbidden.get(request.url.split("/", 3)[2])
        if reason is not None and not request.meta.get("dont_obey_robotstxt"):
            raise Refused(reason)

    async def _parse_robots(self, response: Response, netloc: str, request: Request) -> None:
        """Parse the answer: 5xx and 429 forbid all pages, other errors mean that there is no file (RFC 9309, 2.3.1)."""
        if response.status >= 500 or response.status == TOO_MANY_REQUESTS:
            self._forbidden[netloc] = f"robots_http_{response.status}"
        body = response.body if 200 <= response.status < 300 else b""
        if len(body) > MAX_ROBOTS_BYTES:
            body = body[:MAX_ROBOTS_BYTES].rpartition(b"\n")[0]
        await super()._parse_robots(response.replace(body=body), netloc, request)

    def _robots_error(self, exc: Exception, netloc: str) -> None:
        """Forbid all pages if there is no answer; an endless redirect means that there is no file (2.3.1.2)."""
        redirects = isinstance(exc, IgnoreRequest) and "redirect" in str(exc).lower()
        if not redirects:
            reason = reason_of(Failure(exc))
            self._forbidden[netloc] = reason if reason in HOST_REASONS else f"robots_{reason}"
        super()._robots_error(exc, netloc)
