"""How the crawler behaves towards hosts, as parts of Scrapy: the pace of each, which addresses are shunned, and what need not be asked again."""

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

from seedling.scrape.addresses import JudgedHosts, judged_hosts
from seedling.scrape.content import fault_of
from seedling.scrape.crawl_store import Memory
from seedling.scrape.downloading import Refused
from seedling.scrape.rate_finder import RateFinder
from seedling.scrape.secret_values import origin_of

LONGEST_WAIT = 120.0  # seconds; a site that asks for more is left alone this time
GIVE_UP = 12  # refusals in a row
TRIES = {429: 6, 503: 4}  # of one address
NOTED_EVERY = 0.5  # seconds, for the pace's plot
KEPT = {200, 203, 204, 404, 410}  # statuses of answers that need not be asked for again in a visit


class Host:
    """One host's finder and the requests that wait for their turn, first come, first served."""

    def __init__(self, finder: RateFinder) -> None:
        self.finder, self.given_up = finder, ""
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._changed, self._task = asyncio.Event(), None  # type: tuple[asyncio.Event, asyncio.Task[None] | None]

    async def turn(self) -> None:
        """Returns when the next request may leave."""
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._let_go())
        await mine

    def changed(self) -> None:
        """An answer came, so that another request may leave."""
        self._changed.set()

    async def _let_go(self) -> None:
        while self._waiting:
            wait = 0.0 if self.given_up else self.finder.wait(time.monotonic())
            if math.isinf(wait):
                self._changed.clear()
                await self._changed.wait()
            elif wait > 0:
                await asyncio.sleep(wait)
            else:
                next_one = self._waiting.popleft()
                if not next_one.done():
                    self.finder.sent(time.monotonic())
                    next_one.set_result(None)


class Pace:
    """Downloader middleware nearest to the network: each host at the pace that it allows; what it refuses is asked again later."""

    def __init__(self, crawler: Any) -> None:
        self._crawler, spider = crawler, crawler.spider
        self._proxy: str | None = spider.proxy
        self._ceiling: float = spider.source.requests_per_second
        self._fixed: bool = spider.source.fixed_pace
        self._memory: Memory = spider.memory
        self._visit: int = spider.visit
        self.hosts: dict[str, Host] = {}
        self._delays: dict[str, float] = {}
        self._began = self._noted = time.monotonic()

    @classmethod
    def from_crawler(cls, crawler: Any) -> Pace:
        """Scrapy's own way of making a middleware."""
        made = cls(crawler)
        crawler.signals.connect(made.robots_parsed, signal=scrapy.signals.robots_parsed)
        crawler.signals.connect(made.closed, signal=scrapy.signals.spider_closed)
        crawler.seedling_pace = made
        return made

    def robots_parsed(self, robotparser: Any, request: Request) -> None:
        """A Crawl-delay lowers the ceiling."""
        delay = robotparser.crawl_delay(self._crawler.settings["USER_AGENT"])
        if delay and not math.isnan(delay):
            host = _host(request)
            if delay > LONGEST_WAIT:
                self.host(host).given_up = "crawl_delay_too_long"
            self._delays[host] = float(delay)
            if host in self.hosts:
                self.hosts[host].finder.lower_ceiling(1 / float(delay))

    def host(self, name: str) -> Host:
        """The host of this name, with what is remembered of it."""
        if name not in self.hosts:
            ceiling = min(self._ceiling, 1 / self._delays.get(name, 1e-9))
            finder = RateFinder(ceiling)
            if self._fixed:
                finder.keep_to(ceiling)
            elif (known := self._memory.host(name)) is not None:
                finder.remember(*known)
            self.hosts[name] = Host(finder)
        return self.hosts[name]

    async def process_request(self, request: Request) -> None:
        """Holds the request until it is its turn."""
        if self._proxy:
            request.meta["proxy"] = self._proxy
        host = self.host(_host(request))
        await host.turn()
        if host.given_up:
            host.finder.lost()
            raise Refused(host.given_up)
        request.meta["sent"] = time.monotonic()

    async def process_response(self, request: Request, response: Response) -> Response | Request:
        """A 429 or 503 is asked again, after the time that the site names."""
        if "cached" in response.flags:  # nobody was asked
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
        if (wait or 0.0) > LONGEST_WAIT or host.finder.turned_away >= GIVE_UP:
            host.given_up = "rate_limited"
            raise Refused(host.given_up)
        tries = request.meta.get("tries", 0) + 1
        if tries >= TRIES[response.status]:  # others are let through: it is this address
            raise Refused("rate_limited" if response.status == 429 else "http_503")
        self._note(now)
        return request.replace(dont_filter=True, meta={**request.meta, "tries": tries})

    def process_exception(self, request: Request, exception: Exception) -> None:
        """No answer at all: the place is free again."""
        if request.meta.pop("sent", None) is not None:
            host = self.host(_host(request))
            host.finder.lost()
            host.changed()

    def _note(self, now: float) -> None:
        if now - self._noted < NOTED_EVERY:
            return
        self._noted = now
        for name, host in self.hosts.items():
            if host.finder.answers:
                self._memory.note_pace(self._visit, name, now - self._began, host.finder.state())

    def closed(self) -> None:
        """Remembers each host's pace."""
        self._noted = 0.0
        self._note(time.monotonic())
        for name, host in self.hosts.items():
            if not self._fixed and host.finder.answers:
                self._memory.keep_host(name, host.finder.rate, host.finder.low, host.finder.high)

    def told(self) -> dict[str, Any]:
        """The busiest host's state, for the live line."""
        busy = max(self.hosts.values(), key=lambda host: host.finder.answers, default=None)
        if busy is None:
            return {}
        rate, low, high, answers, refusals = busy.finder.state()
        return {"rate": rate, "low": low, "high": high, "answers": answers, "refusals": refusals}


def _host(request: Request) -> str:
    return str(urlsplit(request.url).netloc)


def retry_after(response: Response) -> float | None:
    """The seconds that the site asks us to wait; None where it does not say."""
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
    """Downloader middleware before all others: http and https alone, and no private address, on which a page could make us ask things of our
    own network (server-side request forgery). The address that was judged is the one that is connected to.
    """

    def __init__(self, crawler: Any) -> None:
        self.hosts: JudgedHosts = judged_hosts(crawler.settings["SEEDLING_PRIVATE_HOSTS"])

    @classmethod
    def from_crawler(cls, crawler: Any) -> PublicHosts:
        """Scrapy's own way of making a middleware."""
        made = cls(crawler)
        crawler.seedling_hosts = made
        return made

    async def process_request(self, request: Request) -> None:
        """Raises Refused for what is not asked; headers that hold a secret go to the place that they are for, and to no other."""
        if (secret := request.meta.get("secret")) and origin_of(request.url) != secret["origin"]:
            for name in secret["headers"]:
                request.headers.pop(name, None)
        if (reason := await self.refusal(request.url)) is not None:
            raise Refused(reason)

    async def refusal(self, url: str) -> str | None:
        """The reason why the address is not asked, or None."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"}:
            return "not_http"
        host = parts.hostname or ""
        return None if self.hosts.allows(host) else (await self.hosts.judge(host)).reason

    async def address_of(self, host: str) -> str | None:
        """The IP address to connect to for a host that may be asked: the one that was judged. None for another."""
        return (await self.hosts.judge(host)).address


class Shelf:
    """Storage for Scrapy's HTTP cache: the source's memory."""

    _memory: Memory
    _visit: int

    def __init__(self, settings: Any) -> None:
        """Scrapy's own way of making a storage."""

    def open_spider(self, spider: Any) -> None:
        """The spider has the memory open."""
        self._memory, self._visit = spider.memory, spider.visit

    def close_spider(self, spider: Any) -> None:
        """The memory stays open."""

    def retrieve_response(self, spider: Any, request: Request) -> Response | None:
        """The stored answer, whatever its age; the policy judges it by the visit in its flags."""
        known = self._memory.answer(key_of(request))
        if known is None:
            return None
        headers = Headers({name: list(values) for name, values in known.headers.items()})
        kind = responsetypes.from_args(headers=headers, url=known.url, body=known.body)
        return kind(
            url=known.url, status=known.status, headers=headers, body=known.body, flags=[f"visit {known.visit}"]
        )

    def store_response(self, spider: Any, request: Request, response: Response) -> None:
        """Keeps the answer, as one of this visit."""
        headers = {
            name.decode("latin-1"): [value.decode("latin-1") for value in values]
            for name, values in response.headers.items()
            if name != b"Set-Cookie"
        }
        self._memory.keep_answer(key_of(request), response.url, response.status, headers, response.body, self._visit)


class Revisit:
    """Policy for Scrapy's HTTP cache: an answer of this visit stands; of an earlier one a page is asked for on condition that it changed,
    and an item's content, unless `revisit` says otherwise, not at all.
    """

    def __init__(self, settings: Any) -> None:
        self._visit: int = settings["SEEDLING_VISIT"]
        self._items_too: bool = settings["SEEDLING_REVISIT"] == "all"

    def should_cache_request(self, request: Request) -> bool:
        """Everything; what a request's headers hold is not kept."""
        return True

    def should_cache_response(self, response: Response, request: Request) -> bool:
        """What tells something that lasts: no refusal, no failure."""
        return response.status in KEPT

    def is_cached_response_fresh(self, cachedresponse: Response, request: Request) -> bool:
        """Whether the stored answer stands; where it does not, the request is made conditional."""
        if f"visit {self._visit}" in cachedresponse.flags:
            return True
        if request.meta.get("playwright"):  # what its scripts ask for may have changed where the page itself has not
            return False
        whole = cachedresponse.status == 200 and fault_of(cachedresponse.body) is None
        if request.meta.get("content") and not self._items_too and whole:
            return True
        for asked, told in (("If-Modified-Since", "Last-Modified"), ("If-None-Match", "ETag")):
            if told in cachedresponse.headers:
                request.headers[asked] = cachedresponse.headers[told]
        return False

    def is_cached_response_valid(self, cachedresponse: Response, response: Response, request: Request) -> bool:
        """The site says that nothing changed."""
        return bool(response.status == 304)


def key_of(request: Request) -> str:
    """The request's fingerprint: method, address and body."""
    return str(fingerprint(request).hex())
