"""The base class of all spiders: requests pages, stores items and their faults, and reports progress."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import jmespath
import scrapy
import scrapy.signals
from jmespath.exceptions import JMESPathError
from scrapy.exceptions import (
    CannotResolveHostError,
    DownloadCancelledError,
    DownloadConnectionRefusedError,
    DownloadTimeoutError,
    IgnoreRequest,
    ResponseDataLossError,
)
from scrapy.http import Request, Response

from seedling.scrape.content import TEMPORARY_FAILURE, fault_of
from seedling.scrape.crawl_store import CrawlStore
from seedling.scrape.downloading import Refused
from seedling.scrape.items import CrawledItem, FoundItem, as_crawled
from seedling.scrape.limits import ReceivedBytes
from seedling.scrape.politeness import key_of
from seedling.scrape.secret_values import SecretValues
from seedling.scrape.selecting import field_text, is_json_path
from seedling.scrape.spider_messages import SpiderEnd, SpiderProgress, send

PROGRESS_SECONDS = 0.5  # between two progress lines
MAX_TEXT_CHARACTERS = 1_000_000


class SourceSpider(scrapy.Spider):  # type: ignore[misc]
    """Requests pages, stores items, and reports progress, for every kind of source."""

    name = "seedling"

    def __init__(self, source: Any, store: CrawlStore, visit: int, proxy: str | None, images: bool) -> None:
        super().__init__()
        self.source, self.store, self.visit, self.proxy, self.images = source, store, visit, proxy, images
        self.secrets = SecretValues.of(source)
        self.received = ReceivedBytes(int(source.max_source_megabytes * 2**20), store.stored_bytes(visit))
        self.counts: Counter[str] = Counter()
        self.failed = self.items_found = self.finished = self.pages = 0
        self._reported = 0.0

    def write(self, record: CrawledItem, page: str, item_id: str, body: str | None = None) -> None:
        """Store an item, or why it is rejected. item_id: unique on its page; body: the key of its content."""
        if self.secrets:
            record = self.secrets.masked_values(record)
            page, item_id = self.secrets.masked(page), self.secrets.masked(item_id)
        self.store.store_item(record, self.visit, page=page, item_id=item_id, body=body)
        self.finished += 1
        self.report_progress()

    def item(self, found: FoundItem, item_id: str, text: str | None, image_url: str | None) -> Iterator[Request]:
        """Store an item with a text, or yield the request for its image."""
        page = found["page"]
        if not self.images:
            fault = "empty" if not text else "too_many_characters" if len(text) > MAX_TEXT_CHARACTERS else None
            record = as_crawled(found)
            if fault:
                record["reason"] = fault
            else:
                record["text"] = str(text)
            self.write(record, page, item_id)
        elif not image_url:
            self.write(as_crawled(found) | {"reason": "no_image"}, page, item_id)
        elif not image_url.startswith(("http://", "https://")):
            self.write(as_crawled(found) | {"reason": "not_http"}, page, item_id)
        else:
            request = Request(
                image_url,
                callback=self.content,
                errback=self.no_content,
                cb_kwargs={"found": found, "item_id": item_id},
                meta={"content": True},
                dont_filter=True,
            )
            request.cb_kwargs["address"] = request.url  # before any redirect
            yield request

    def content(self, response: Response, found: FoundItem, item_id: str, address: str | None = None) -> None:
        """Store an item whose image has arrived, if its first bytes are valid. address: its URL before redirects."""
        record = as_crawled(found, address or response.url)
        fault = fault_of(response.body)
        if fault:
            self.write(record | {"reason": fault}, found["page"], item_id)
            return
        key = key_of(response.request)
        if record["origin"] != response.url:  # a redirect, which may lead elsewhere the next time
            requested_key = key_of(Request(record["origin"]))
            self.store.store_answer_as(requested_key, record["origin"], key)
            key = requested_key
        self.write(record, found["page"], item_id, body=key)

    def no_content(self, failure: Any) -> None:
        """Store why an image could not be fetched."""
        arguments, reason = failure.request.cb_kwargs, reason_of(failure)
        found: FoundItem = arguments["found"]
        self.failed += bool(TEMPORARY_FAILURE.match(reason))
        record = as_crawled(found, arguments["address"])
        self.write(record | {"reason": reason}, found["page"], arguments["item_id"])

    def no_page(self, failure: Any) -> None:
        """Store why a page could not be fetched; the crawl continues with the other pages."""
        url, reason = failure.request.url, f"page_{reason_of(failure)}"
        self.failed += bool(TEMPORARY_FAILURE.match(reason))
        self.no_item(url, reason)

    def no_item(self, url: str, reason: str, item_id: str = "page") -> None:
        """Store why a page has no items."""
        self.write({"origin": url, "page": url, "reason": reason}, url, item_id)

    def page_arrived(self, url: str) -> None:
        """Count a page that has arrived, and delete the record of an earlier failure."""
        self.pages += 1
        self.store.forget(url, "page")

    def json_item(self, node: Any, origin: str, response: Response, item_id: str) -> Iterator[Request]:
        """Store or request an item that is a JSON value."""
        try:
            yield from self.item(*json_item(self.source, node, origin, response, item_id))
        except (ValueError, TypeError, JMESPathError) as error:
            self.not_an_item(response, item_id, error)

    def not_an_item(self, response: Response, item_id: str, error: Exception) -> None:
        """Store that an item has an invalid address or value; the crawl continues with the others."""
        record: CrawledItem = {
            "origin": f"{response.url}#{item_id}",
            "page": response.url,
            "reason": "not_understood",
        }
        self.logger.warning("%s: %s", record["origin"], error)
        self.write(record, response.url, item_id)

    def not_understood(self, failure: Any, response: Response) -> None:
        """Store that reading a page raised an error."""
        self.failed += 1
        self.no_item(response.url, f"page_not_understood_{type(failure.value).__name__.lower()}")

    def has_room_for_item(self) -> bool:
        """Count an item, and return whether it is within the source's limits."""
        self.items_found += 1
        if self.items_found > self.source.max_items:
            self.counts["beyond_max_items"] += 1
        return bool(self.items_found <= self.source.max_items) and self.has_room_for_bytes()

    def has_room_for_bytes(self) -> bool:
        """Whether the source has sent no more bytes than its limit."""
        if self.received.exhausted:
            self.counts["beyond_max_source_megabytes"] += 1
        return not self.received.exhausted

    def has_room_for_page(self, page_count: int) -> bool:
        """Whether another page may be requested after this many."""
        if page_count >= self.source.max_pages:
            self.counts["beyond_max_pages"] += 1
        return bool(page_count < self.source.max_pages) and self.has_room_for_bytes()

    def report_progress(self, last: bool = False) -> None:
        """Write a progress line to standard output, at most one per PROGRESS_SECONDS unless it is the last."""
        now = time.monotonic()
        if not last and now - self._reported < PROGRESS_SECONDS:
            return
        self._reported = now
        host = self.crawler.seedling_rate_limiter.busiest_host()
        send(SpiderProgress(done=self.finished, total=self.total(), host=host))

    def total(self) -> int | None:
        """Return the number of items, if it is known before the end."""
        return None

    def closed(self, reason: str) -> None:
        """Finish the visit, if it found items and nothing failed temporarily. Scrapy calls it last."""
        self.report_progress(last=True)
        if absent := self.store.absent(self.visit):
            self.counts["absent"] = absent
        if reason == "finished" and not self.failed and self.store.count_items(self.visit)[0]:
            self.store.finish(self.visit, self.counts)
        send(SpiderEnd(closed=reason, counts=dict(self.counts), failed=self.failed))


def json_item(
    source: Any, node: Any, origin: str, response: Response, item_id: str
) -> tuple[FoundItem, str, str | None, str | None]:
    """Return the arguments of `SourceSpider.item` for a JSON value."""
    fields = {name: field_text(jmespath.search(path, node)) for name, path in source.fields.items()}
    found: FoundItem = {
        "origin": origin,
        "page": response.url,
        "fields": {name: value for name, value in sorted(fields.items()) if value is not None},
        "license": _stated(source.license, node),
        "attribution": _stated(source.attribution, node),
    }
    text = field_text(jmespath.search(source.text, node)) if source.text else node if isinstance(node, str) else None
    image_url = field_text(jmespath.search(source.image, node)) if source.image else None
    image_address = response.urljoin(image_url) if image_url else None
    return found, item_id, " ".join(text.split()) if text else None, image_address


def _stated(setting: str | None, node: Any) -> str | None:
    """Return a setting of params.yaml: the text itself, or what its JMESPath after an @ finds, as @.license.name."""
    return field_text(jmespath.search(setting, node)) if setting and is_json_path(setting) else setting


REASON_OF_ERROR: dict[type[BaseException], str] = {
    CannotResolveHostError: "no_such_host",
    DownloadTimeoutError: "timeout",
    TimeoutError: "timeout",
    DownloadConnectionRefusedError: "connection_refused",
    ResponseDataLossError: "truncated",
    DownloadCancelledError: "too_many_bytes",
}
BROWSER_FAILURES = {  # words of Playwright's messages, in the order in which they are looked for
    "no usable sandbox": "no_sandbox",
    "executable doesn't exist": "no_browser",
    "failed to launch": "no_browser",
    "wait_for_selector": "never_shown",
    "timeout": "timeout",
}


def _first_match(message: str, reasons: Mapping[str, str]) -> str | None:
    """Return the reason of the first words that the message contains, None if it contains none of them."""
    return next((reason for words, reason in reasons.items() if words in message), None)


def reason_of(failure: Any) -> str:
    """Return a failure's reason code: `http_404`, `robots_txt`, `private_address`, `timeout`, `truncated` and so on."""
    error = failure.value
    if isinstance(error, Refused):
        return str(error)
    if (status := getattr(getattr(error, "response", None), "status", None)) is not None:
        return f"http_{status}"
    for kind, code in REASON_OF_ERROR.items():
        if isinstance(error, kind):
            return code
    message = f"{error} {error.__cause__ or ''}".lower()
    if isinstance(error, IgnoreRequest):
        return _first_match(message, {"robots": "robots_txt", "redirect": "redirect_loop"}) or "too_many_bytes"
    if any(word in message for word in ("ssl", "tls", "certificate")):
        return "tls_failure"
    if "playwright" in type(error).__module__:
        return _first_match(message, BROWSER_FAILURES) or "browser_error"
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower().removesuffix("_error")
