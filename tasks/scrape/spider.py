"""The crawl itself, on Scrapy, in a process of its own (Twisted's reactor starts only once in a process).

    python -m tasks.scrape.spider SPOOL     with the source as JSON on standard input

Writes SPOOL/items.jsonl, a line an item, with the pictures' bytes in SPOOL/<digest>, and says on standard output
how far it is. The only importer of Scrapy.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
import re
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import scrapy
from scrapy.crawler import CrawlerProcess
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Request, Response

from tasks.params import CrawlSource

LONGEST_WAIT = 120.0  # seconds; a site that asks for more is left alone this time
TRIES = 12


class Refused(IgnoreRequest):
    """A request that is not made, or not made again; the message is the reason code."""


class Politeness:
    """Downloader middleware: waits as long as Retry-After says, slows down for good after it, shuns private hosts."""

    def __init__(self, crawler: Any) -> None:
        self._crawler = crawler
        self._source: CrawlSource = crawler.settings["SEEDLING_SOURCE"]
        self._proxy: str | None = crawler.settings["SEEDLING_PROXY"]
        self._not_before: dict[str, float] = {}
        self._public: dict[str, bool] = {}

    @classmethod
    def from_crawler(cls, crawler: Any) -> Politeness:
        """Scrapy's own way of making a middleware."""
        return cls(crawler)

    async def process_request(self, request: Request) -> None:
        """Holds the request until its host may be asked again."""
        host = urlsplit(request.url).hostname or ""
        if self._proxy:
            request.meta["proxy"] = self._proxy
        elif not self._source.allow_private_hosts and not await self._is_public(host):
            raise Refused("private_address")
        while (wait := self._not_before.get(host, 0.0) - time.monotonic()) > 0:
            await asyncio.sleep(wait)

    async def process_response(self, request: Request, response: Response) -> Response | Request:
        """A 429 or 503 is asked again after the time that the site names."""
        if response.status not in {429, 503}:
            return response
        self._crawler.stats.inc_value("seedling/slow_down")
        tries, wait = request.meta.get("tries", 0) + 1, retry_after(response)
        if tries > TRIES or wait > LONGEST_WAIT:
            raise Refused("rate_limited")
        host = urlsplit(request.url).hostname or ""
        self._not_before[host] = max(self._not_before.get(host, 0.0), time.monotonic() + wait)
        slot = self._crawler.engine.downloader.slots.get(request.meta.get("download_slot"))
        if slot is not None:
            slot.delay = min(slot.delay * 1.1, 5.0)
            slot.lastseen = time.monotonic() + wait  # holds those that are past this middleware already
        return request.replace(dont_filter=True, meta={**request.meta, "tries": tries})

    async def _is_public(self, host: str) -> bool:
        if host not in self._public:
            try:
                found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
            except OSError as error:
                raise Refused("no_such_host") from error
            self._public[host] = all(ipaddress.ip_address(one[4][0]).is_global for one in found)
        return self._public[host]


def retry_after(response: Response) -> float:
    """The seconds that the site asks us to wait; 1 where it does not say."""
    value = (response.headers.get("Retry-After") or b"").decode("latin-1").strip()
    if re.fullmatch(r"\d+", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 1.0


class ItemSpider(scrapy.Spider):
    """Follows a source's pages and writes down the items on them."""

    name = "seedling"

    def __init__(self, source: CrawlSource, spool: Path) -> None:
        super().__init__()
        self._source, self._spool = source, spool
        self._lines = (spool / "items.jsonl").open("w", encoding="utf-8")
        self._found = self._finished = self._pages = 0

    async def start(self) -> AsyncIterator[Request]:
        """The first page."""
        yield Request(self._source.start, callback=self.parse, errback=self._page_failed)

    def parse(self, response: Response, **_: Any) -> Iterator[Request]:
        """A page: its items, and the pages that it leads to."""
        self._pages += 1
        if not isinstance(response, scrapy.http.TextResponse):
            self._write({"origin": response.url, "reason": "not_a_page"})
            return
        for number, item in enumerate(response.css(self._source.item)):
            if self._found >= self._source.max_items:
                return
            self._found += 1
            yield from self._item(response, item, number)
        self._say()
        if self._source.follow:
            for link in response.css(self._source.follow):
                if "href" in link.attrib and self._same_host(response.urljoin(link.attrib["href"])):
                    yield response.follow(link, callback=self.parse, errback=self._page_failed)

    def _item(self, response: Response, item: Any, number: int) -> Iterator[Request]:
        known = {"page": response.url, "label": self._label(item)}
        known |= {name: self._static_or_css(item, name) for name in ("licence", "attribution")}
        if self._source.text is not None:
            text = " ".join("".join(item.css(self._source.text).getall()).split())
            self._write({**known, "origin": f"{response.url}#{item.attrib.get('id') or number}", "text": text})
            return
        address = item.css(self._source.image or "img::attr(src)").get()
        if not address:
            self._write({**known, "origin": f"{response.url}#{number}", "reason": "no_picture"})
            return
        url = response.urljoin(address)
        if not url.startswith(("http://", "https://")):
            self._write({**known, "origin": f"{response.url}#{number}", "reason": "not_http"})
            return
        yield Request(
            url, callback=self._picture, errback=self._picture_failed, cb_kwargs={"known": known}, dont_filter=True
        )

    def _static_or_css(self, item: Any, name: str) -> str | None:
        """A value that params give: the word itself, or a CSS selector ending in ::text or ::attr()."""
        value: str | None = getattr(self._source, name)
        if value and "::" in value:
            found = item.css(value).get()
            return found.strip() if found else None
        return value

    def _label(self, item: Any) -> str | None:
        tag = item.css(self._source.tag).get() if self._source.tag else None
        tag = " ".join(tag.split()) if tag else None
        return self._source.tags.get(tag) if tag and self._source.tags else tag

    def _picture(self, response: Response, known: dict[str, Any]) -> None:
        name = hashlib.blake2b(response.body, digest_size=16).hexdigest()  # never a name that the site chose
        (self._spool / name).write_bytes(response.body)
        self._write({**known, "origin": response.url, "file": name})

    def _picture_failed(self, failure: Any) -> None:
        self._write({**failure.request.cb_kwargs["known"], "origin": failure.request.url, "reason": reason_of(failure)})

    def _page_failed(self, failure: Any) -> None:
        self._write({"origin": failure.request.url, "reason": f"page_{reason_of(failure)}"})

    def _same_host(self, url: str) -> bool:
        return urlsplit(url).hostname == urlsplit(self._source.start).hostname

    def _write(self, line: dict[str, Any]) -> None:
        self._lines.write(json.dumps(line, sort_keys=True) + "\n")
        self._finished += 1
        if self._finished % 20 == 0:
            self._say()

    def _say(self) -> None:
        print(json.dumps({"done": self._finished, "found": self._found, "pages": self._pages}), flush=True)

    def closed(self, reason: str) -> None:
        """Scrapy's last call."""
        self._lines.close()
        stats = self.crawler.stats.get_stats()
        counts = {"requests": stats.get("downloader/request_count", 0), "slow_down": stats.get("seedling/slow_down", 0)}
        (self._spool / "finished.json").write_text(json.dumps({"pages": self._pages, "reason": reason, **counts}))


def reason_of(failure: Any) -> str:
    """A failure's reason code: `http_404`, `robots_txt`, `private_address`, `download_timeout` and so on."""
    error = failure.value
    if isinstance(error, Refused):
        return str(error)
    if (status := getattr(getattr(error, "response", None), "status", None)) is not None:
        return f"http_{status}"
    if isinstance(error, IgnoreRequest):
        return "robots_txt"
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower().removesuffix("_error")


def settings(source: CrawlSource, proxy: str | None) -> dict[str, Any]:
    """Scrapy's settings for one source."""
    return {
        "SEEDLING_SOURCE": source,
        "SEEDLING_PROXY": proxy,
        "ROBOTSTXT_OBEY": True,
        "USER_AGENT": "seedling/0.1 (dataset crawler; obeys robots.txt)",
        "DOWNLOAD_DELAY": 1 / source.requests_per_second,
        "RANDOMIZE_DOWNLOAD_DELAY": False,
        "CONCURRENT_REQUESTS_PER_DOMAIN": 8,
        "DOWNLOAD_MAXSIZE": int(source.max_megabytes * 2**20),
        "DOWNLOAD_TIMEOUT": 30,
        "REDIRECT_MAX_TIMES": 5,
        "RETRY_HTTP_CODES": [500, 502, 504, 522, 524, 408],  # 429 and 503 are Politeness' business
        "DOWNLOADER_MIDDLEWARES": {Politeness: 560},  # between redirects and the retries of broken connections
        "LOG_LEVEL": "ERROR",
        "TELNETCONSOLE_ENABLED": False,
        "COOKIES_ENABLED": False,
    }


def main() -> None:
    """Crawls the source on standard input into the folder that the first argument names."""
    given = json.load(sys.stdin)
    source, spool = CrawlSource.model_validate(given["source"]), Path(sys.argv[1])
    process = CrawlerProcess(settings(source, given["proxy"]), install_root_handler=True)
    process.crawl(ItemSpider, source=source, spool=spool)
    process.start()


if __name__ == "__main__":
    main()
