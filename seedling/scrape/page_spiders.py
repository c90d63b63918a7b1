"""Spiders that read items from HTML: of a site whose links are followed, and of enumerated addresses."""

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
from seedling.scrape.content import TEMPORARY_FAILURE
from seedling.scrape.items import CrawledItem, FoundItem
from seedling.scrape.selecting import all_text, fingerprint_of, first_text, is_selector, parse_json, select_nodes

AROUND_CHARACTERS = 2_000  # of the text around an item
ABSENT_STATUSES = (404, 410)
ADDRESSES_PER_BLOCK = 200  # that wait in the scheduler together
NUMBER_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
STATED_SELECTORS = {
    "license": ("a[rel~=license]::attr(href)", "link[rel~=license]::attr(href)"),
    "attribution": ("[rel~=author]::text", "meta[name=author]::attr(content)"),
}


class PageSpider(SourceSpider):
    """Reads items from HTML pages."""

    def items_on(self, response: TextResponse) -> Iterator[Request]:
        """Store a page's items, and yield the requests for their images."""
        nodes = select_nodes(response, self.source.item) if self.source.item else [response]
        of_page = {name: self._stated(name, response, selectors) for name, selectors in STATED_SELECTORS.items()}
        item_ids: set[str] = set()
        for number, node in enumerate(nodes):
            if not self.has_room_for_item():
                return
            try:
                yield from self._item_of(response, node, number, of_page, item_ids)
            except (ValueError, TypeError) as error:  # an invalid address or value
                self.not_an_item(response, str(number), error)

    def _item_of(
        self, response: TextResponse, node: Any, number: int, of_page: Mapping[str, str | None], item_ids: set[str]
    ) -> Iterator[Request]:
        attributes = getattr(node, "attrib", {})
        text = all_text(node, self.source.text or "::text")
        item_id = str(attributes.get("id") or (number if self.images else fingerprint_of(text)))
        while item_id in item_ids:
            item_id += "+"
        item_ids.add(item_id)
        fields = {
            "title": attributes.get("title"),
            **(self._around_image(node) if self.images else {}),
            **{name: all_text(node, selector) for name, selector in self.source.fields.items()},
        }
        if tag := getattr(self.source, "tag", None):
            fields["tag"] = first_text(node, tag)
        stated = {
            name: self._stated(name, node, selectors) or of_page[name] for name, selectors in STATED_SELECTORS.items()
        }
        found: FoundItem = {
            "origin": response.url if self.source.item is None else f"{response.url}#{item_id}",
            "page": response.url,
            "fields": {name: value for name, value in sorted(fields.items()) if value},
            "license": stated["license"],
            "attribution": stated["attribution"],
        }
        address = None if self.source.text else first_text(node, self.source.image or "img::attr(src)")
        yield from self.item(found, item_id, text, response.urljoin(address) if address else None)

    def _around_image(self, node: Any) -> dict[str, str | None]:
        attributes = {name: first_text(node, f"img::attr({name})") for name in ("alt", "title")}
        around = all_text(node, "::text")[:AROUND_CHARACTERS]
        return {**{name: value for name, value in attributes.items() if value}, "around": around}

    def _stated(self, name: str, node: Any, selectors: tuple[str, ...]) -> str | None:
        """Return the license or attribution: the setting's text, what its selector finds, or what `selectors` find."""
        setting: str | None = getattr(self.source, name)
        if setting and not is_selector(setting):
            return setting
        texts = (first_text(node, selector) for selector in ((setting,) if setting else selectors))
        return next((text for text in texts if text), None)


class CrawlSpider(PageSpider):
    """Follows a site's links from its start addresses."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.requested: set[str] = set()

    async def start(self) -> AsyncIterator[Request]:
        """Yield the requests for the start pages."""
        for address in self.source.start:
            self.requested.add(address)
            yield self._request(address)

    def _request(self, address: str, depth: int = 0) -> Request:
        meta: dict[str, Any] = {"steps": depth}
        if self.source.browser:
            meta |= in_browser(self.source)
        return Request(address, callback=self.parse, errback=self.no_page, meta=meta)

    def parse(self, response: Response, **_: Any) -> Iterator[Request]:
        """Store a page's items, and yield the requests for their images and for the pages that it links to."""
        if not isinstance(response, TextResponse):
            self.no_item(response.url, "not_a_page")
            return
        self.page_arrived(response.url)
        count_before = self.items_found + self.counts.total()
        yield from self.items_on(response)
        links = list(self._links(response))
        if self.items_found + self.counts.total() == count_before and not links:
            self.counts["page_without_items"] += 1
        yield from links
        self.report_progress()

    def _links(self, response: TextResponse) -> Iterator[Request]:
        depth = response.meta.get("steps", 0) + 1
        if self.items_found >= self.source.max_items:
            return
        hosts = {urlsplit(address).hostname for address in self.source.start}
        for selector in self.source.follow:
            for link in select_nodes(response, selector) if selector else ():
                address = link if isinstance(link, str) else getattr(link, "attrib", {}).get("href") or link.get()
                try:
                    url = response.urljoin(address or "").partition("#")[0]
                except ValueError:
                    continue
                if (
                    url in self.requested
                    or not url.startswith(("http://", "https://"))
                    or urlsplit(url).hostname not in hosts
                ):
                    continue
                if depth > self.source.max_depth:
                    self.counts["beyond_max_depth"] += 1
                elif self.has_room_for_page(len(self.requested)):
                    self.requested.add(url)
                    yield self._request(url, depth)


class SequenceSpider(PageSpider):
    """Requests each address of a sequence, except for those that are done."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pending: Counter[int] = Counter()
        self.number_of: dict[str, int] = {}  # page → number, while the page or one of its images is pending
        self.faulty: set[int] = set()

    def write(self, record: CrawledItem, page: str, item_id: str, body: str | None = None) -> None:
        """Store an item; the number of a page with a rejected item is requested again in the next visit."""
        if "reason" in record and page in self.number_of:
            self.faulty.add(self.number_of[page])
        super().write(record, page, item_id, body)

    def _counted(self, requests: Iterator[Request], number: int) -> Iterator[Request]:
        """Yield the requests for a page's images, and count them: the number is done when all have finished."""
        for request in requests:
            self.pending[number] += 1
            request.meta["number"] = number
            yield request

    def content(self, response: Response, found: FoundItem, item_id: str, address: str | None = None) -> None:
        """Store an image of a number's page."""
        super().content(response, found, item_id, address)
        self._image_finished(response.meta, found["page"])

    def no_content(self, failure: Any) -> None:
        """Store why an image could not be fetched; after a temporary failure the number is not done."""
        super().no_content(failure)
        if not TEMPORARY_FAILURE.match(reason_of(failure)):
            self._image_finished(failure.request.meta, failure.request.cb_kwargs["found"]["page"])

    def _image_finished(self, meta: Mapping[str, Any], page: str) -> None:
        if "number" in meta:
            self.pending[meta["number"]] -= 1
            self._settle(meta["number"], page)

    async def start(self) -> AsyncIterator[Request]:
        """Yield the requests one by one, so that a million of them need little memory."""
        lowest, highest, width = self._range()
        done = self.store.done(self.visit, again=self.source.revisit == "all")
        next_done, requested = next(done, None), 0
        for number in range(lowest, highest + 1):
            if number == next_done:
                next_done = next(done, None)
                self.finished += 1
                continue
            if self.items_found >= self.source.max_items or requested >= self.source.max_pages:
                self.counts["beyond_max_items_or_pages"] = highest - number + 1
                return
            requested += 1
            if requested % ADDRESSES_PER_BLOCK == 0:  # otherwise Scrapy takes them all before it sends the first
                await self.crawler.signals.wait_for(scrapy.signals.scheduler_empty)
            address = NUMBER_RANGE.sub(str(number).zfill(width), self.source.url, count=1)
            yield Request(
                address,
                callback=self.parse,
                errback=self.no_page,
                cb_kwargs={"number": number},
                meta={"handle_httpstatus_list": list(ABSENT_STATUSES)},
                dont_filter=True,
            )

    def _range(self) -> tuple[int, int, int]:
        match = NUMBER_RANGE.search(self.source.url)
        assert match is not None  # noqa: S101  (the parameters are validated)
        return int(match[1]), int(match[2]), len(match[1]) if match[1].startswith("0") else 0

    def total(self) -> int | None:
        """Return the size of the range."""
        lowest, highest, _ = self._range()
        return highest - lowest + 1

    def parse(self, response: Response, number: int, **_: Any) -> Iterator[Request]:
        """Store the items of a number's answer, and yield the requests for their images."""
        self.pending[number] += 1
        self.number_of[response.url] = number
        if response.status in ABSENT_STATUSES:
            self.finished += 1
            self.report_progress()
        else:
            self.page_arrived(response.url)
            if self.source.format == "json":
                yield from self._counted(self._json(response), number)
            elif isinstance(response, TextResponse):
                yield from self._counted(self.items_on(response), number)
            elif self.images:
                settings = {name: getattr(self.source, name) for name in STATED_SELECTORS}
                stated = {name: text for name, text in settings.items() if text and not is_selector(text)}
                found: FoundItem = {
                    "origin": response.url,
                    "page": response.url,
                    "fields": {},
                    "license": stated.get("license"),
                    "attribution": stated.get("attribution"),
                }
                self.content(response, found, "0")
            else:
                self.no_item(response.url, "not_a_page", "0")
        self.pending[number] -= 1
        self._settle(number, response.url, absent=response.status in ABSENT_STATUSES)

    def _settle(self, number: int, page: str, *, absent: bool = False) -> None:
        """Mark a number as done when its page and all its images have finished."""
        if self.pending[number] == 0:
            del self.pending[number]
            self.number_of.pop(page, None)
            self.store.mark_done(number, self.visit, absent=absent, faulty=number in self.faulty)
            self.faulty.discard(number)

    def _json(self, response: Response) -> Iterator[Request]:
        values = parse_json(response)
        if values is None:
            self.no_item(response.url, "not_json", "0")
            return
        nodes = jmespath.search(self.source.item, values) if self.source.item else values
        for node in nodes if isinstance(nodes, list) else [nodes]:
            if node is not None and self.has_room_for_item():
                item_id = fingerprint_of(json.dumps(node, sort_keys=True))
                origin = response.url if self.source.item is None else f"{response.url}#{item_id}"
                yield from self.json_item(node, origin, response, item_id)
