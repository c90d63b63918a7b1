"""Spiders that read items off HTML: a site that is followed, and enumerated addresses."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import jmespath
import scrapy
import scrapy.signals
from scrapy.http import Request, Response, TextResponse

from seedling.scrape.base_spider import SourceSpider, reason_of
from seedling.scrape.browser import in_browser
from seedling.scrape.content import PASSING
from seedling.scrape.selecting import fingerprint_of, first, is_selector, parsed, picked, words

AROUND = 2_000  # characters of the words around an item
ABSENT = (404, 410)
AT_ONCE = 200  # addresses that wait in the scheduler
NUMBERS = re.compile(r"\{(\d+)\.\.(\d+)\}")
STATED = {
    "license": ("a[rel~=license]::attr(href)", "link[rel~=license]::attr(href)"),
    "attribution": ("[rel~=author]::text", "meta[name=author]::attr(content)"),
}


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
        place = str(attributes.get("id") or (number if self.images else fingerprint_of(text)))
        while place in used:  # two of one id
            place += "+"
        used.add(place)
        fields = {
            "title": attributes.get("title"),
            **(self._beside_a_image(node) if self.images else {}),
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

    def _beside_a_image(self, node: Any) -> dict[str, str | None]:
        found = {name: first(node, f"img::attr({name})") for name in ("alt", "title")}
        return {**{name: value for name, value in found.items() if value}, "around": words(node, "::text")[:AROUND]}

    def _stated(self, name: str, where: Any, usual: tuple[str, ...]) -> str | None:
        """As params give it (the words themselves, or a selector), or as the item or its page states it."""
        given: str | None = getattr(self.source, name)
        if given and not is_selector(given):
            return given
        return next((found for one in ((given,) if given else usual) if (found := first(where, one))), None)


class CrawlSpider(PageSpider):
    """Follows a site's pages from the start."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.known: set[str] = set()

    async def start(self) -> AsyncIterator[Request]:
        """The first pages."""
        for address in self.source.start:
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
            self.no_item(response.url, "not_a_page")
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
        if self.found >= self.source.max_items:
            return
        hosts = {urlsplit(one).hostname for one in self.source.start}
        for selector in self.source.follow:
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


class SequenceSpider(PageSpider):
    """Asks for every address of a sequence; what is done already is passed over."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.pending: Counter[int] = Counter()
        self.number_of: dict[str, int] = {}  # by a page's address, while something of it is on the way
        self.faulty: set[int] = set()

    def write(self, line: Mapping[str, Any], page: str, place: str, body: str | None = None) -> None:
        """A number whose page holds what is no item is asked for again in the next visit."""
        if "reason" in line and page in self.number_of:
            self.faulty.add(self.number_of[page])
        super().write(line, page, place, body)

    def _counted(self, requests: Iterator[Request], number: int) -> Iterator[Request]:
        """The requests for a page's images, each waited for before the number is done."""
        for request in requests:
            self.pending[number] += 1
            request.meta["number"] = number
            yield request

    def content(self, response: Response, known: dict[str, Any], place: str, address: str | None = None) -> None:
        """An image of a number."""
        super().content(response, known, place, address)
        self._image_came(response.meta, known["page"])

    def no_content(self, failure: Any) -> None:
        """None; one that may come next time leaves the number open."""
        super().no_content(failure)
        if not PASSING.match(reason_of(failure)):
            self._image_came(failure.request.meta, failure.request.cb_kwargs["known"]["page"])

    def _image_came(self, meta: Mapping[str, Any], page: str) -> None:
        if "number" in meta:
            self.pending[meta["number"]] -= 1
            self._settle(meta["number"], page)

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
        self.number_of[response.url] = number
        if response.status in ABSENT:
            self.finished += 1
            self.say()
        else:
            self.page_came(response.url)
            if self.source.format == "json":
                yield from self._counted(self._json(response), number)
            elif isinstance(response, TextResponse):
                yield from self._counted(self.items_on(response), number)
            elif self.images:
                stated = {
                    name: given for name in STATED if (given := getattr(self.source, name)) and not is_selector(given)
                }
                self.content(response, {"page": response.url, "fields": {}, **stated}, "0")
            else:
                self.no_item(response.url, "not_a_page", "0")
        self.pending[number] -= 1
        self._settle(number, response.url, absent=response.status in ABSENT)

    def _settle(self, number: int, page: str, *, absent: bool = False) -> None:
        """A number is done when its page and all its images are here."""
        if self.pending[number] == 0:
            del self.pending[number]
            self.number_of.pop(page, None)
            self.memory.mark_done(number, self.visit, absent=absent, faulty=number in self.faulty)
            self.faulty.discard(number)

    def _json(self, response: Response) -> Iterator[Request]:
        values = parsed(response)
        if values is None:
            self.no_item(response.url, "not_json", "0")
            return
        nodes = jmespath.search(self.source.item, values) if self.source.item else values
        for node in nodes if isinstance(nodes, list) else [nodes]:
            if node is not None and self.room():
                place = fingerprint_of(json.dumps(node, sort_keys=True))
                origin = response.url if self.source.item is None else f"{response.url}#{place}"
                yield from self.json_item(node, origin, response, place)
