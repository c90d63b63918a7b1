"""The collecting itself, on Scrapy, in a process of its own (Twisted's reactor starts only once in a process).

    python -m tasks.scrape.spider     with the source and where it is remembered as JSON on standard input

Writes answers and items to the source's memory, and says on standard output how far it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import jmespath
import scrapy
import scrapy.signals
from jmespath.exceptions import JMESPathError
from pydantic import TypeAdapter
from scrapy.crawler import CrawlerProcess
from scrapy.exceptions import (
    CannotResolveHostError,
    DownloadCancelledError,
    DownloadConnectionRefusedError,
    DownloadTimeoutError,
    IgnoreRequest,
    ResponseDataLossError,
)
from scrapy.http import Request, Response, TextResponse

from tasks.params import ApiSource, CrawlSource, SequenceSource, Source
from tasks.scrape.content import PASSING, fault_of
from tasks.scrape.gateway import listener, serve
from tasks.scrape.memory import Memory
from tasks.scrape.politeness import Pace, PublicHosts, Refused, Revisit, Shelf, key_of, origin_of

SAID_EVERY = 0.5  # seconds
AROUND = 2_000  # characters of the words around an item
MOST_CHARACTERS = 1_000_000  # of a text
ABSENT = (404, 410)
CALM_MILLISECONDS = (300, 5_000)  # without a change, and at most
CLICK_MILLISECONDS = 3_000
AT_ONCE = 200  # addresses that wait in the scheduler
NUMBERS = re.compile(r"\{(\d+)\.\.(\d+)\}")
STATED = {
    "licence": ("a[rel~=license]::attr(href)", "link[rel~=license]::attr(href)"),
    "attribution": ("[rel~=author]::text", "meta[name=author]::attr(content)"),
}
WebSource = CrawlSource | SequenceSource | ApiSource


class SourceSpider(scrapy.Spider):
    """What every kind of source does: asks, takes items down, and says how far it is."""

    name = "seedling"

    def __init__(self, source: Any, memory: Memory, visit: int, proxy: str | None, pictures: bool) -> None:
        super().__init__()
        self.source, self.memory, self.visit, self.proxy, self.pictures = source, memory, visit, proxy, pictures
        self.counts: Counter[str] = Counter()
        self.failed = self.found = self.finished = self.pages = 0
        self._said = 0.0

    def write(self, line: Mapping[str, Any], page: str, place: str, body: str | None = None) -> None:
        """Takes an item down, or the reason why it is none."""
        self.memory.keep_item(line, self.visit, page=page, place=place, body=body)
        self.finished += 1
        self.say()

    def item(self, known: dict[str, Any], place: str, text: str | None, picture: str | None) -> Iterator[Request]:
        """An item whose text is there, or whose picture is to be fetched. known: its origin, page, fields, licence and attribution."""
        page = known["page"]
        if not self.pictures:
            fault = "empty" if not text else "too_many_characters" if len(text) > MOST_CHARACTERS else None
            self.write({**known, **({"reason": fault} if fault else {"text": text})}, page, place)
        elif not picture:
            self.write({**known, "reason": "no_picture"}, page, place)
        elif not picture.startswith(("http://", "https://")):
            self.write({**known, "reason": "not_http"}, page, place)
        else:
            yield Request(
                picture,
                callback=self.content,
                errback=self.no_content,
                cb_kwargs={"known": known, "place": place},
                meta={"content": True},
                dont_filter=True,
            )

    def content(self, response: Response, known: dict[str, Any], place: str) -> None:
        """A picture's bytes came: judged by what they begin with, whatever they are called."""
        line = {**known, "origin": response.url}
        fault = fault_of(response.body)
        if fault:
            self.write({**line, "reason": fault}, known["page"], place)
        else:
            self.write(line, known["page"], place, body=key_of(response.request))

    def no_content(self, failure: Any) -> None:
        """A picture could not be had."""
        given = failure.request.cb_kwargs
        line = {**given["known"], "origin": failure.request.url, "reason": reason_of(failure)}
        self.failed += bool(PASSING.match(line["reason"]))
        self.write(line, given["known"]["page"], given["place"])

    def no_page(self, failure: Any) -> None:
        """A page could not be had: what it leads to is missing, and the rest goes on."""
        url, reason = failure.request.url, f"page_{reason_of(failure)}"
        self.failed += bool(PASSING.match(reason))
        self.write({"origin": url, "page": url, "reason": reason}, url, "page")

    def page_came(self, url: str) -> None:
        """A page is here, whatever failed before."""
        self.pages += 1
        self.memory.forget(url, "page")

    def json_item(self, node: Any, origin: str, response: Response, place: str) -> Iterator[Request]:
        """An item that is a JSON value."""
        try:
            yield from self.item(*json_item(self.source, node, origin, response, place))
        except (ValueError, TypeError, JMESPathError) as error:
            self.not_an_item(response, place, error)

    def not_an_item(self, response: Response, place: str, error: Exception) -> None:
        """Something in an item breaks the rules of addresses or values; the others go on."""
        line = {"origin": f"{response.url}#{place}", "page": response.url, "reason": "not_understood"}
        self.logger.warning("%s: %s", line["origin"], error)
        self.write(line, response.url, place)

    def not_understood(self, failure: Any, response: Response) -> None:
        """Reading a page broke off."""
        self.failed += 1
        line = {
            "origin": response.url,
            "page": response.url,
            "reason": f"page_not_understood_{type(failure.value).__name__.lower()}",
        }
        self.write(line, response.url, "page")

    def room(self) -> bool:
        """Whether another item is wanted."""
        self.found += 1
        if self.found > self.source.max_items:
            self.counts["beyond_max_items"] += 1
        return bool(self.found <= self.source.max_items)

    def another_page(self, so_far: int) -> bool:
        """Whether another page may be asked for."""
        if so_far >= self.source.max_pages:
            self.counts["beyond_max_pages"] += 1
        return bool(so_far < self.source.max_pages)

    def say(self, last: bool = False) -> None:
        """How far it is, on standard output."""
        now = time.monotonic()
        if not last and now - self._said < SAID_EVERY:
            return
        self._said = now
        told = {"done": self.finished, "total": self.total(), **self.crawler.seedling_pace.told()}
        print(json.dumps(told), flush=True)

    def total(self) -> int | None:
        """How many there will be, where that is known."""
        return None

    def closed(self, reason: str) -> None:
        """Scrapy's last call: the visit is finished where nothing failed that may come next time."""
        self.say(last=True)
        if absent := self.memory.absent(self.visit):
            self.counts["absent"] = absent
        if reason == "finished" and not self.failed:
            self.memory.finish(self.visit, self.counts)
        print(json.dumps({"closed": reason, "counts": self.counts, "failed": self.failed}), flush=True)


class PageSpider(SourceSpider):
    """Reads items off HTML: of a crawl, or of enumerated pages."""

    def items_on(self, response: TextResponse) -> Iterator[Request]:
        """The items of a page."""
        nodes = picked(response, self.source.item) if self.source.item else [response]
        of_page = {name: self._stated(name, response, usual) for name, usual in STATED.items()}
        used: set[str] = set()
        for number, node in enumerate(nodes):
            if not self.room():
                return
            try:
                yield from self._one(response, node, number, of_page, used)
            except (ValueError, TypeError) as error:  # an address or a value that is none
                self.not_an_item(response, str(number), error)

    def _one(
        self, response: TextResponse, node: Any, number: int, of_page: Mapping[str, str | None], used: set[str]
    ) -> Iterator[Request]:
        attributes = getattr(node, "attrib", {})
        text = words(node, self.source.text or "::text")
        place = str(attributes.get("id") or (number if self.pictures else fingerprint_of(text)))
        while place in used:  # two of one id
            place += "+"
        used.add(place)
        fields = {
            "title": attributes.get("title"),
            **(self._beside_a_picture(node) if self.pictures else {}),
            **{name: words(node, selector) for name, selector in self.source.fields.items()},
        }
        if tag := getattr(self.source, "tag", None):
            fields["tag"] = first(node, tag)
        known = {
            "origin": response.url if self.source.item is None else f"{response.url}#{place}",
            "page": response.url,
            "fields": {name: value for name, value in sorted(fields.items()) if value},
            **{name: self._stated(name, node, usual) or of_page[name] for name, usual in STATED.items()},
        }
        address = None if self.source.text else first(node, self.source.image or "img::attr(src)")
        yield from self.item(known, place, text, response.urljoin(address) if address else None)

    def _beside_a_picture(self, node: Any) -> dict[str, str | None]:
        found = {name: first(node, f"img::attr({name})") for name in ("alt", "title")}
        return {**{name: value for name, value in found.items() if value}, "around": words(node, "::text")[:AROUND]}

    def _stated(self, name: str, where: Any, usual: tuple[str, ...]) -> str | None:
        """As params give it (the words themselves, or a selector), or as the item or its page states it."""
        given: str | None = getattr(self.source, name)
        if given and not ("::" in given or is_xpath(given)):
            return given
        return next((found for one in ((given,) if given else usual) if (found := first(where, one))), None)


class CrawlSpider(PageSpider):
    """Follows a site's pages from the start."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.known: set[str] = set()

    async def start(self) -> AsyncIterator[Request]:
        """The first pages."""
        for address in [self.source.start] if isinstance(self.source.start, str) else self.source.start:
            self.known.add(address)
            yield self._request(address)

    def _request(self, address: str, depth: int = 0) -> Request:
        meta: dict[str, Any] = {"steps": depth}
        if self.source.browser:
            meta |= in_browser(self.source)
        return Request(address, callback=self.parse, errback=self.no_page, meta=meta)

    def parse(self, response: Response, **_: Any) -> Iterator[Request]:
        """A page: its items, and the pages that it leads to."""
        if not isinstance(response, TextResponse):
            self.write({"origin": response.url, "page": response.url, "reason": "not_a_page"}, response.url, "page")
            return
        self.page_came(response.url)
        before = self.found + self.counts.total()
        yield from self.items_on(response)
        onward = list(self._onward(response))
        if self.found + self.counts.total() == before and not onward:
            self.counts["page_without_items"] += 1
        yield from onward
        self.say()

    def _onward(self, response: TextResponse) -> Iterator[Request]:
        depth = response.meta.get("steps", 0) + 1
        follow = [self.source.follow] if isinstance(self.source.follow, str) else self.source.follow
        if self.found >= self.source.max_items:
            return
        hosts = {urlsplit(one).hostname for one in self._starts()}
        for selector in follow:
            for link in picked(response, selector) if selector else ():
                address = link if isinstance(link, str) else getattr(link, "attrib", {}).get("href") or link.get()
                try:
                    url = response.urljoin(address or "").partition("#")[0]
                except ValueError:
                    continue
                if (
                    url in self.known
                    or not url.startswith(("http://", "https://"))
                    or urlsplit(url).hostname not in hosts
                ):
                    continue
                if depth > self.source.max_depth:
                    self.counts["beyond_max_depth"] += 1
                elif self.another_page(len(self.known)):
                    self.known.add(url)
                    yield self._request(url, depth)

    def _starts(self) -> list[str]:
        return [self.source.start] if isinstance(self.source.start, str) else self.source.start


class SequenceSpider(PageSpider):
    """Asks for every address of a sequence; what is done already is passed over."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.pending: Counter[int] = Counter()

    def _counted(self, requests: Iterator[Request], number: int) -> Iterator[Request]:
        """The requests for a page's pictures, each waited for before the number is done."""
        for request in requests:
            self.pending[number] += 1
            request.meta["number"] = number
            yield request

    def content(self, response: Response, known: dict[str, Any], place: str) -> None:
        """A picture of a number."""
        super().content(response, known, place)
        self._picture_came(response.meta)

    def no_content(self, failure: Any) -> None:
        """None; one that may come next time leaves the number open."""
        super().no_content(failure)
        if not PASSING.match(reason_of(failure)):
            self._picture_came(failure.request.meta)

    def _picture_came(self, meta: Mapping[str, Any]) -> None:
        if "number" in meta:
            self.pending[meta["number"]] -= 1
            self._settle(meta["number"])

    async def start(self) -> AsyncIterator[Request]:
        """The addresses, one by one, so that a million of them take no memory."""
        first_one, last, width = self._range()
        done = self.memory.done(self.visit, again=self.source.revisit == "all")
        passed, waiting = next(done, None), 0
        for number in range(first_one, last + 1):
            if number == passed:
                passed = next(done, None)
                self.finished += 1
                continue
            if self.found >= self.source.max_items or waiting >= self.source.max_pages:
                self.counts["beyond_max_items_or_pages"] = last - number + 1
                return
            waiting += 1
            if waiting % AT_ONCE == 0:  # else Scrapy takes them all in before it asks for the first
                await self.crawler.signals.wait_for(scrapy.signals.scheduler_empty)
            address = NUMBERS.sub(str(number).zfill(width), self.source.url, count=1)
            yield Request(
                address,
                callback=self.parse,
                errback=self.no_page,
                cb_kwargs={"number": number},
                meta={"handle_httpstatus_list": list(ABSENT)},
                dont_filter=True,
            )

    def _range(self) -> tuple[int, int, int]:
        found = NUMBERS.search(self.source.url)
        assert found is not None  # noqa: S101  (params see to it)
        return int(found[1]), int(found[2]), len(found[1]) if found[1].startswith("0") else 0

    def total(self) -> int | None:
        """The whole range."""
        first_one, last, _ = self._range()
        return last - first_one + 1

    def parse(self, response: Response, number: int, **_: Any) -> Iterator[Request]:
        """One address's answer."""
        self.pending[number] += 1
        if response.status in ABSENT:
            self.finished += 1
            self.say()
        else:
            self.page_came(response.url)
            if self.source.format == "json":
                yield from self._counted(self._json(response), number)
            elif isinstance(response, TextResponse):
                yield from self._counted(self.items_on(response), number)
            elif self.pictures:
                self.content(response, {"page": response.url, "fields": {}}, "0")
            else:
                self.write({"origin": response.url, "page": response.url, "reason": "not_a_page"}, response.url, "0")
        self.pending[number] -= 1
        self._settle(number, absent=response.status in ABSENT)

    def _settle(self, number: int, *, absent: bool = False) -> None:
        """A number is done when its page and all its pictures are here."""
        if self.pending[number] == 0:
            del self.pending[number]
            self.memory.mark_done(number, self.visit, absent=absent)

    def _json(self, response: Response) -> Iterator[Request]:
        values = parsed(response)
        if values is None:
            self.write({"origin": response.url, "page": response.url, "reason": "not_json"}, response.url, "0")
            return
        nodes = jmespath.search(self.source.item, values) if self.source.item else values
        for node in nodes if isinstance(nodes, list) else [nodes]:
            if node is not None and self.room():
                place = fingerprint_of(json.dumps(node, sort_keys=True))
                origin = response.url if self.source.item is None else f"{response.url}#{place}"
                yield from self.json_item(node, origin, response, place)


class ApiSpider(SourceSpider):
    """Asks an interface for its items, page by page."""

    async def start(self) -> AsyncIterator[Request]:
        """The first page."""
        yield self._request({}, 0)

    def _request(self, cursor: dict[str, Any], page: int, address: str | None = None) -> Request:
        source = self.source
        query = {**source.query, **cursor.get("query", {})}
        url = address or source.url
        if query and address is None:
            url += ("&" if "?" in url else "?") + urlencode(query)
        body = source.body
        if source.graphql is not None:
            body = {"query": source.graphql, "variables": {**source.variables, **cursor.get("variables", {})}}
        elif body is not None:
            body = {**body, **cursor.get("body", {})}
        headers = {name: os.path.expandvars(value) for name, value in source.headers.items()}
        return Request(
            url,
            method="POST" if body is not None or source.method == "POST" else "GET",
            headers={"Accept": "application/json", **({"Content-Type": "application/json"} if body else {}), **headers},
            body=json.dumps(body) if body is not None else None,
            callback=self.parse,
            errback=self.no_page,
            cb_kwargs={"page": page},
            meta={"secret": {"origin": origin_of(source.url), "headers": list(source.headers)}},
        )

    def parse(self, response: Response, page: int, **_: Any) -> Iterator[Request]:
        """A page of items, and the next one."""
        values = parsed(response)
        if values is None:
            self.write({"origin": response.url, "page": response.url, "reason": "page_not_json"}, response.url, "page")
            return
        self.page_came(response.url)
        if isinstance(values, dict) and values.get("errors") and self.source.graphql:
            self.counts["graphql_errors"] += 1
        nodes = jmespath.search(self.source.items, values) or []
        for node in nodes if isinstance(nodes, list) else [nodes]:
            if not self.room():
                return
            own = jmespath.search(self.source.id, node) if self.source.id else None
            place = str(own) if own is not None else fingerprint_of(json.dumps(node, sort_keys=True))
            yield from self.json_item(node, f"{self.source.url}#{place}", response, place)
        yield from self._next(values, response, page)
        self.say()

    def _next(self, values: Any, response: Response, page: int) -> Iterator[Request]:
        source = self.source
        onward = jmespath.search(source.next, values) if source.next else None
        if (
            onward is None
            or onward is False
            or onward == ""
            or (source.more and not jmespath.search(source.more, values))
        ):
            return
        if not self.another_page(page + 1):
            return
        if source.cursor is None:
            url = response.urljoin(str(onward))
            if origin_of(url) == origin_of(source.url):
                yield self._request({}, page + 1, url)
            else:
                self.counts["next_page_elsewhere"] += 1
            return
        place, _, name = source.cursor.partition(".")
        yield self._request({place: {name: onward}}, page + 1)


def json_item(
    source: Any, node: Any, origin: str, response: Response, place: str
) -> tuple[dict[str, Any], str, str | None, str | None]:
    """What `SourceSpider.item` wants to know of a JSON value."""
    fields = {name: scalar(jmespath.search(path, node)) for name, path in source.fields.items()}
    known = {
        "origin": origin,
        "page": response.url,
        "fields": {name: value for name, value in sorted(fields.items()) if value is not None},
        "licence": _stated(source.licence, node),
        "attribution": _stated(source.attribution, node),
    }
    text = scalar(jmespath.search(source.text, node)) if source.text else node if isinstance(node, str) else None
    picture = scalar(jmespath.search(source.image, node)) if source.image else None
    return known, place, " ".join(text.split()) if text else None, response.urljoin(picture) if picture else None


def _stated(given: str | None, node: Any) -> str | None:
    """A value of params: words, or a JMESPath behind an @, such as @.license.name."""
    return scalar(jmespath.search(given, node)) if given and given.startswith("@") else given


def scalar(value: Any) -> str | None:
    """A JSON value as a field holds it: words and numbers as they are written, lists joined."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        return ", ".join(part for one in value if (part := scalar(one)) is not None)
    return json.dumps(value)


def parsed(response: Response) -> Any:
    """The answer's JSON; None where it is none."""
    try:
        return json.loads(response.body)
    except (ValueError, RecursionError):
        return None


def fingerprint_of(content: str) -> str:
    """What stands for an item without an id of its own: its place would be another item's tomorrow."""
    return hashlib.blake2b(content.encode(), digest_size=6).hexdigest()


def is_xpath(selector: str) -> bool:
    """Whether a selector is XPath and not CSS."""
    return selector.startswith(("/", "./", "("))


def picked(node: Any, selector: str) -> Any:
    """The nodes that a CSS or XPath selector finds."""
    return node.xpath(selector) if is_xpath(selector) else node.css(selector)


def first(node: Any, selector: str) -> str | None:
    """The first word or words that a selector finds, blanks folded."""
    found = picked(node, selector).get()
    return " ".join(found.split()) or None if found else None


def words(node: Any, selector: str) -> str:
    """All that a selector finds, one text, blanks folded; of a whole page without its scripts and styles."""
    if selector == "::text":
        return " ".join(" ".join(node.xpath(".//text()[not(parent::script or parent::style)]").getall()).split())
    return " ".join("".join(picked(node, selector).getall()).split())


def in_browser(source: CrawlSource) -> dict[str, Any]:
    """What makes Chromium fetch and work a page."""
    from scrapy_playwright.page import PageMethod

    return {"playwright": True, "playwright_page_methods": [PageMethod(worked, source=source)]}


CALM = """([calm, most]) => new Promise(done => {
    let timer = setTimeout(done, calm);
    new MutationObserver(() => { clearTimeout(timer); timer = setTimeout(done, calm); })
        .observe(document, {childList: true, subtree: true, characterData: true});
    setTimeout(done, most);
})"""


async def worked(page: Any, source: CrawlSource) -> None:
    """Waits for what the source waits for, and clicks on what it clicks on until that is gone, each time until the page is calm."""
    from playwright.async_api import TimeoutError as TookTooLong

    if source.wait_for:
        await page.wait_for_selector(source.wait_for)
    await page.evaluate(CALM, CALM_MILLISECONDS)
    for selector in source.click:
        for _ in range(source.max_clicks):
            button = page.locator(selector).first
            if not await page.locator(selector).count() or not await button.is_visible():
                break
            try:
                await button.click(timeout=CLICK_MILLISECONDS)
            except TookTooLong:  # it went while we reached for it
                break
            await page.wait_for_load_state("networkidle")
            await page.evaluate(CALM, CALM_MILLISECONDS)


def reason_of(failure: Any) -> str:
    """A failure's reason code: `http_404`, `robots_txt`, `private_address`, `timeout`, `truncated` and so on."""
    error = failure.value
    if isinstance(error, Refused):
        return str(error)
    if (status := getattr(getattr(error, "response", None), "status", None)) is not None:
        return f"http_{status}"
    said = f"{error} {error.__cause__ or ''}".lower()
    for kind, code in (
        (CannotResolveHostError, "no_such_host"),
        (DownloadTimeoutError, "timeout"),
        (TimeoutError, "timeout"),
        (DownloadConnectionRefusedError, "connection_refused"),
        (ResponseDataLossError, "truncated"),
        (DownloadCancelledError, "too_many_bytes"),
    ):
        if isinstance(error, kind):
            return code
    if isinstance(error, IgnoreRequest):
        if "robots" in said:
            return "robots_txt"
        return "redirect_loop" if "redirect" in said else "too_many_bytes"
    if any(word in said for word in ("ssl", "tls", "certificate")):
        return "tls_failure"
    if "playwright" in type(error).__module__:
        return "timeout" if "timeout" in said else "browser_error"
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower().removesuffix("_error")


def settings(source: WebSource, visit: int) -> dict[str, Any]:
    """Scrapy's settings for one source."""
    most = int(source.max_megabytes * 2**20)
    chosen: dict[str, Any] = {
        "SEEDLING_VISIT": visit,
        "SEEDLING_REVISIT": source.revisit,
        "ROBOTSTXT_OBEY": True,
        "USER_AGENT": "seedling/0.1 (dataset crawler; obeys robots.txt)",
        "DOWNLOAD_DELAY": 0,  # the pace is Pace's business
        "CONCURRENT_REQUESTS": 64,
        "CONCURRENT_ITEMS": 1,  # what a page gives is written down as it comes: a hundred tasks a page would take most of the time
        "CONCURRENT_REQUESTS_PER_DOMAIN": 64,
        "DOWNLOAD_MAXSIZE": most,
        "DOWNLOAD_WARNSIZE": 0,
        "DOWNLOAD_TIMEOUT": 30,
        "DOWNLOAD_HANDLERS": dict.fromkeys(("file", "ftp", "s3", "data")),
        "REDIRECT_MAX_TIMES": 5,
        "RETRY_HTTP_CODES": [500, 502, 504, 522, 524, 408],  # 429 and 503 are asked again by Pace
        "DOWNLOADER_MIDDLEWARES": {
            PublicHosts: 50,
            "scrapy.downloadermiddlewares.httpcache.HttpCacheMiddleware": 585,  # outside compression: bytes are kept as they are
            Pace: 950,
        },
        "HTTPCACHE_ENABLED": True,
        "HTTPCACHE_STORAGE": Shelf,
        "HTTPCACHE_POLICY": Revisit,
        "LOG_LEVEL": "ERROR",
        "TELNETCONSOLE_ENABLED": False,
        "COOKIES_ENABLED": False,
        "URLLENGTH_LIMIT": 4_000,
    }
    if isinstance(source, CrawlSource) and source.browser:
        handler = "scrapy_playwright.handler.ScrapyPlaywrightDownloadHandler"
        launch: dict[str, Any] = {"args": ["--no-sandbox"] if os.geteuid() == 0 else []}
        if source.browser_path:
            launch["executable_path"] = source.browser_path
        chosen["DOWNLOAD_HANDLERS"] |= {"http": handler, "https": handler}
        chosen |= {"PLAYWRIGHT_LAUNCH_OPTIONS": launch, "PLAYWRIGHT_MAX_PAGES_PER_CONTEXT": 4, "CONCURRENT_REQUESTS": 8}
    return chosen


KINDS = {"crawl": CrawlSpider, "sequence": SequenceSpider, "api": ApiSpider}


def not_understood(failure: Any, response: Response, spider: SourceSpider) -> None:
    """Scrapy's signal for a page that broke its reader."""
    spider.not_understood(failure, response)


class Gate:
    """What a browser's pages may ask for: judged by scheme before a request leaves, and by host in the gateway that all of them go through."""

    def __init__(self, chosen: dict[str, Any]) -> None:
        """Changes the settings, which Scrapy copies when the crawler is made."""
        self._port, address = listener()
        launch = chosen["PLAYWRIGHT_LAUNCH_OPTIONS"]
        chosen["PLAYWRIGHT_LAUNCH_OPTIONS"] = {**launch, "proxy": {"server": address, "bypass": "<-loopback>"}}
        chosen["PLAYWRIGHT_ABORT_REQUEST"] = not_asked

    def watch(self, crawler: Any) -> None:
        """Opens the gateway when the crawler begins."""

        async def open_gateway(**_: Any) -> None:
            self._server = await serve(self._port, crawler.seedling_hosts.address_of)

        self._open = open_gateway  # signals hold what they call weakly
        crawler.signals.connect(open_gateway, signal=scrapy.signals.spider_opened)


def not_asked(request: Any) -> bool:
    """What is no page of the web, such as a file, is not asked for by a page in the browser."""
    return not request.url.startswith(("http://", "https://", "data:", "blob:", "about:"))


def main() -> None:
    """Collects the source on standard input."""
    given = json.load(sys.stdin)
    source: Any = TypeAdapter(Source).validate_python(given["source"])
    with Memory(Path(given["memory"])) as memory:
        chosen = settings(source, given["visit"])
        gate = Gate(chosen) if source.kind == "crawl" and source.browser else None
        process = CrawlerProcess(chosen)
        crawler = process.create_crawler(KINDS[source.kind])
        if gate is not None:
            gate.watch(crawler)
        crawler.signals.connect(not_understood, signal=scrapy.signals.spider_error)
        process.crawl(
            crawler,
            source=source,
            memory=memory,
            visit=given["visit"],
            proxy=given["proxy"],
            pictures=given["pictures"],
        )
        process.start()


if __name__ == "__main__":
    main()
