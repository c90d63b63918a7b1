"""Scrapy middleware for polite crawling: a rate limit per host, public addresses only, and a persistent HTTP cache."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import scrapy.signals
from scrapy.http import Headers, Request, Response
from scrapy.responsetypes import responsetypes
from scrapy.utils.request import fingerprint

from seedling.scrape.addresses import HostChecker, host_checker
from seedling.scrape.content import fault_of
from seedling.scrape.crawl_store import CrawlStore
from seedling.scrape.downloading import Refused
from seedling.scrape.rate_finder import RateFinder
from seedling.scrape.secret_values import origin_of
from seedling.scrape.spider_messages import HostRate

MAX_WAIT_SECONDS = 120.0  # a site that requests a longer wait is not requested again in this visit
MAX_REFUSALS_IN_A_ROW = 12
MAX_TRIES = {429: 6, 503: 4}  # of one address, by status
RATE_NOTE_SECONDS = 0.5  # between two points of the rate plot
CACHED_STATUSES = {200, 203, 204, 404, 410}  # answers that are not requested again in the same visit


class Host:
    """One host's rate finder, and its queue of waiting requests, first in, first out."""

    def __init__(self, finder: RateFinder) -> None:
        self.finder, self.given_up = finder, ""  # given_up: the reason code
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._changed, self._task = asyncio.Event(), None  # type: tuple[asyncio.Event, asyncio.Task[None] | None]

    async def turn(self) -> None:
        """Return when the next request may be sent."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._release())
        await turn

    def changed(self) -> None:
        """Note that an answer has arrived, so that another request may be sent."""
        self._changed.set()

    async def _release(self) -> None:
        while self._waiting:
            wait = 0.0 if self.given_up else self.finder.wait(time.monotonic())
            if math.isinf(wait):
                self._changed.clear()
                await self._changed.wait()
            elif wait > 0:
                await asyncio.sleep(wait)
            else:
                turn = self._waiting.popleft()
                if not turn.done():
                    self.finder.sent(time.monotonic())
                    turn.set_result(None)


class RateLimiter:
    """Downloader middleware next to the network: keeps each host's rate limit, and retries what the host refuses."""

    def __init__(self, crawler: Any) -> None:
        self._crawler, spider = crawler, crawler.spider
        self._proxy: str | None = spider.proxy
        self._ceiling: float = spider.source.requests_per_second
        self._fixed: bool = spider.source.fixed_pace
        self._store: CrawlStore = spider.store
        self._visit: int = spider.visit
        self.hosts: dict[str, Host] = {}
        self._delays: dict[str, float] = {}
        self._began = self._noted = time.monotonic()

    @classmethod
    def from_crawler(cls, crawler: Any) -> RateLimiter:
        """Create the middleware. Scrapy calls it."""
        limiter = cls(crawler)
        crawler.signals.connect(limiter.robots_parsed, signal=scrapy.signals.robots_parsed)
        crawler.signals.connect(limiter.closed, signal=scrapy.signals.spider_closed)
        crawler.seedling_rate_limiter = limiter
        return limiter

    def robots_parsed(self, robotparser: Any, request: Request) -> None:
        """Lower the ceiling of the rate to the host's Crawl-delay."""
        delay = robotparser.crawl_delay(self._crawler.settings["USER_AGENT"])
        if delay and not math.isnan(delay):
            host = _host(request)
            if delay > MAX_WAIT_SECONDS:
                self.host(host).given_up = "crawl_delay_too_long"
            self._delays[host] = float(delay)
            if host in self.hosts:
                self.hosts[host].finder.lower_ceiling(1 / float(delay))

    def host(self, name: str) -> Host:
        """Return the host of this name, with its rate from earlier runs."""
        if name not in self.hosts:
            ceiling = min(self._ceiling, 1 / self._delays.get(name, 1e-9))
            finder = RateFinder(ceiling)
            if self._fixed:
                finder.fix_rate(ceiling)
            elif (stored := self._store.host(name)) is not None:
                finder.resume(*stored)
            self.hosts[name] = Host(finder)
        return self.hosts[name]

    async def process_request(self, request: Request) -> None:
        """Hold the request until the host's rate limit allows it."""
        if self._proxy:
            request.meta["proxy"] = self._proxy
        host = self.host(_host(request))
        await host.turn()
        if host.given_up:
            host.finder.lost()
            raise Refused(host.given_up)
        request.meta["sent"] = time.monotonic()

    async def process_response(self, request: Request, response: Response) -> Response | Request:
        """Retry a request that was answered by 429 or 503, after the time that the site states."""
        if "cached" in response.flags:  # no request was sent
            return response
        now, host = time.monotonic(), self.host(_host(request))
        sent = request.meta.pop("sent", now)
        if response.status not in {429, 503}:
            host.finder.answered(sent, now, "content" if request.meta.get("content") else "page")
            host.changed()
            self._note(now)
            return response
        self._crawler.stats.inc_value("seedling/slow_down")
        wait = retry_after(response)
        host.finder.refused(sent, now, wait)
        host.changed()
        if (wait or 0.0) > MAX_WAIT_SECONDS or host.finder.refusals_in_a_row >= MAX_REFUSALS_IN_A_ROW:
            host.given_up = "rate_limited"
            raise Refused(host.given_up)
        tries = request.meta.get("tries", 0) + 1
        if tries >= MAX_TRIES[response.status]:  # the host answers other requests, so the reason is this address
            raise Refused("rate_limited" if response.status == 429 else "http_503")
        self._note(now)
        return request.replace(dont_filter=True, meta={**request.meta, "tries": tries})

    def process_exception(self, request: Request, exception: Exception) -> None:
        """Free the place of a request that got no answer."""
        if request.meta.pop("sent", None) is not None:
            host = self.host(_host(request))
            host.finder.lost()
            host.changed()

    def _note(self, now: float) -> None:
        if now - self._noted < RATE_NOTE_SECONDS:
            return
        self._noted = now
        for name, host in self.hosts.items():
            if host.finder.answers:
                self._store.store_rate(self._visit, name, now - self._began, host.finder.state())

    def closed(self) -> None:
        """Store each host's rate for the next run."""
        self._noted = 0.0
        self._note(time.monotonic())
        for name, host in self.hosts.items():
            if not self._fixed and host.finder.answers:
                self._store.store_host(name, host.finder.rate, host.finder.low, host.finder.high)

    def busiest_host(self) -> HostRate | None:
        """Return the state of the host with most answers, for the progress line; None before the first answer."""
        busy = max(self.hosts.values(), key=lambda host: host.finder.answers, default=None)
        if busy is None:
            return None
        rate, low, high, answers, refusals = busy.finder.state()
        return HostRate(rate=rate, low=low, high=high, answers=answers, refusals=refusals)


def _host(request: Request) -> str:
    return str(urlsplit(request.url).netloc)


def retry_after(response: Response) -> float | None:
    """Return the seconds that the site's Retry-After states; None if it has none."""
    value = (response.headers.get("Retry-After") or b"").decode("latin-1").strip()
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


class PublicHosts:
    """Downloader middleware before all others: refuses URLs that are not http or https, and private addresses.

    Otherwise a page could make the crawler send requests into its own network (server-side request forgery). The
    connection goes to the address that was checked.
    """

    def __init__(self, crawler: Any) -> None:
        self.hosts: HostChecker = host_checker(crawler.settings["SEEDLING_PRIVATE_HOSTS"])

    @classmethod
    def from_crawler(cls, crawler: Any) -> PublicHosts:
        """Create the middleware. Scrapy calls it."""
        public_hosts = cls(crawler)
        crawler.seedling_hosts = public_hosts
        return public_hosts

    async def process_request(self, request: Request) -> None:
        """Raise Refused for a forbidden address, and drop headers with secrets unless they go to their own origin."""
        if (secret := request.meta.get("secret")) and origin_of(request.url) != secret["origin"]:
            for name in secret["headers"]:
                request.headers.pop(name, None)
        if (reason := await self.refusal(request.url)) is not None:
            raise Refused(reason)

    async def refusal(self, url: str) -> str | None:
        """Return the reason why the address is not requested, or None."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"}:
            return "not_http"
        host = parts.hostname or ""
        return None if self.hosts.allows(host) else (await self.hosts.check(host)).reason

    async def address_of(self, host: str) -> str | None:
        """Return the checked IP address to connect to for a host; None if the host may not be connected to."""
        return (await self.hosts.check(host)).address


class HttpCache:
    """Storage of Scrapy's HTTP cache in the source's crawl store."""

    _store: CrawlStore
    _visit: int

    def __init__(self, settings: Any) -> None:
        """Create the storage. Scrapy calls it."""

    def open_spider(self, spider: Any) -> None:
        """Take the crawl store, which the spider has opened."""
        self._store, self._visit = spider.store, spider.visit

    def close_spider(self, spider: Any) -> None:
        """Leave the crawl store open."""

    def retrieve_response(self, spider: Any, request: Request) -> Response | None:
        """Return the stored answer of any age; the policy decides by the visit in its flags."""
        answer = self._store.answer(key_of(request))
        if answer is None:
            return None
        headers = Headers({name: list(values) for name, values in answer.headers.items()})
        response_class = responsetypes.from_args(headers=headers, url=answer.url, body=answer.body)
        return response_class(
            url=answer.url, status=answer.status, headers=headers, body=answer.body, flags=[f"visit {answer.visit}"]
        )

    def store_response(self, spider: Any, request: Request, response: Response) -> None:
        """Store the answer as one of this visit."""
        headers = {
            name.decode("latin-1"): [value.decode("latin-1") for value in values]
            for name, values in response.headers.items()
            if name != b"Set-Cookie"
        }
        self._store.store_answer(key_of(request), response.url, response.status, headers, response.body, self._visit)


class RevisitPolicy:
    """Policy of Scrapy's HTTP cache: an answer of this visit is fresh.

    A page from an earlier visit is requested conditionally; an item's content from an earlier visit is not requested
    again, unless `revisit` is `all`.
    """

    def __init__(self, settings: Any) -> None:
        self._visit: int = settings["SEEDLING_VISIT"]
        self._items_too: bool = settings["SEEDLING_REVISIT"] == "all"

    def should_cache_request(self, request: Request) -> bool:
        """Cache each request; its headers are not stored."""
        return True

    def should_cache_response(self, response: Response, request: Request) -> bool:
        """Cache answers that last; refusals and failures are not cached."""
        return response.status in CACHED_STATUSES

    def is_cached_response_fresh(self, cachedresponse: Response, request: Request) -> bool:
        """Whether the stored answer can be used; if not, the request is made conditional."""
        if f"visit {self._visit}" in cachedresponse.flags:
            return True
        if request.meta.get("playwright"):  # its scripts may request other data although the page is unchanged
            return False
        is_whole = cachedresponse.status == 200 and fault_of(cachedresponse.body) is None
        if request.meta.get("content") and not self._items_too and is_whole:
            return True
        for condition, header in (("If-Modified-Since", "Last-Modified"), ("If-None-Match", "ETag")):
            if header in cachedresponse.headers:
                request.headers[condition] = cachedresponse.headers[header]
        return False

    def is_cached_response_valid(self, cachedresponse: Response, response: Response, request: Request) -> bool:
        """Whether the site answers that nothing has changed (304)."""
        return bool(response.status == 304)


def key_of(request: Request) -> str:
    """Return the request's fingerprint, of its method, URL and body."""
    return str(fingerprint(request).hex())
