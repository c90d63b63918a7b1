"""What every spider does: it asks, takes items down with their faults, and says how far it is."""

from __future__ import annotations

import json
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

from seedling.scrape.content import PASSING, fault_of
from seedling.scrape.crawl_store import Memory
from seedling.scrape.downloading import Refused
from seedling.scrape.limits import ReceivedBytes
from seedling.scrape.politeness import key_of
from seedling.scrape.secret_values import SecretValues
from seedling.scrape.selecting import is_json_path, scalar

SAID_EVERY = 0.5  # seconds
MOST_CHARACTERS = 1_000_000  # of a text


class SourceSpider(scrapy.Spider):  # type: ignore[misc]
    """What every kind of source does: asks, takes items down, and says how far it is."""

    name = "seedling"

    def __init__(self, source: Any, memory: Memory, visit: int, proxy: str | None, images: bool) -> None:
        super().__init__()
        self.source, self.memory, self.visit, self.proxy, self.images = source, memory, visit, proxy, images
        self.secrets = SecretValues.of(source)
        self.received = ReceivedBytes(int(source.max_source_megabytes * 2**20), memory.stored_bytes(visit))
        self.counts: Counter[str] = Counter()
        self.failed = self.found = self.finished = self.pages = 0
        self._said = 0.0

    def write(self, line: Mapping[str, Any], page: str, place: str, body: str | None = None) -> None:
        """Takes an item down, or the reason why it is none."""
        if self.secrets:
            line, page, place = (
                self.secrets.masked_values(dict(line)),
                self.secrets.masked(page),
                self.secrets.masked(place),
            )
        self.memory.keep_item(line, self.visit, page=page, place=place, body=body)
        self.finished += 1
        self.say()

    def item(self, known: dict[str, Any], place: str, text: str | None, image_url: str | None) -> Iterator[Request]:
        """An item whose text is there, or whose image is to be fetched. known: its origin, page, fields, license and attribution."""
        page = known["page"]
        if not self.images:
            fault = "empty" if not text else "too_many_characters" if len(text) > MOST_CHARACTERS else None
            self.write({**known, **({"reason": fault} if fault else {"text": text})}, page, place)
        elif not image_url:
            self.write({**known, "reason": "no_image"}, page, place)
        elif not image_url.startswith(("http://", "https://")):
            self.write({**known, "reason": "not_http"}, page, place)
        else:
            request = Request(
                image_url,
                callback=self.content,
                errback=self.no_content,
                cb_kwargs={"known": known, "place": place},
                meta={"content": True},
                dont_filter=True,
            )
            request.cb_kwargs["address"] = request.url  # as it is asked for, before any redirect
            yield request

    def content(self, response: Response, known: dict[str, Any], place: str, address: str | None = None) -> None:
        """An image's bytes came: judged by what they begin with, whatever they are called. address: under which it was asked for."""
        line = {**known, "origin": address or response.url}
        fault = fault_of(response.body)
        if fault:
            self.write({**line, "reason": fault}, known["page"], place)
            return
        key = key_of(response.request)
        if line["origin"] != response.url:  # a redirect led here, elsewhere perhaps the next time
            asked, found = key_of(Request(line["origin"])), key
            self.memory.keep_answer_as(asked, line["origin"], found)
            key = asked
        self.write(line, known["page"], place, body=key)

    def no_content(self, failure: Any) -> None:
        """An image could not be had."""
        given = failure.request.cb_kwargs
        line = {**given["known"], "origin": given["address"], "reason": reason_of(failure)}
        self.failed += bool(PASSING.match(line["reason"]))
        self.write(line, given["known"]["page"], given["place"])

    def no_page(self, failure: Any) -> None:
        """A page could not be had: what it leads to is missing, and the rest goes on."""
        url, reason = failure.request.url, f"page_{reason_of(failure)}"
        self.failed += bool(PASSING.match(reason))
        self.no_item(url, reason)

    def no_item(self, url: str, reason: str, place: str = "page") -> None:
        """A page holds nothing that could be an item."""
        self.write({"origin": url, "page": url, "reason": reason}, url, place)

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
        self.no_item(response.url, f"page_not_understood_{type(failure.value).__name__.lower()}")

    def room(self) -> bool:
        """Whether another item is wanted."""
        self.found += 1
        if self.found > self.source.max_items:
            self.counts["beyond_max_items"] += 1
        return bool(self.found <= self.source.max_items) and self.room_for_bytes()

    def room_for_bytes(self) -> bool:
        """Whether the source has brought no more bytes than it may."""
        if self.received.exhausted:
            self.counts["beyond_max_source_megabytes"] += 1
        return not self.received.exhausted

    def another_page(self, so_far: int) -> bool:
        """Whether another page may be asked for."""
        if so_far >= self.source.max_pages:
            self.counts["beyond_max_pages"] += 1
        return bool(so_far < self.source.max_pages) and self.room_for_bytes()

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
        """Scrapy's last call: the visit is finished where it brought something, and nothing failed that may come next time."""
        self.say(last=True)
        if absent := self.memory.absent(self.visit):
            self.counts["absent"] = absent
        if reason == "finished" and not self.failed and self.memory.how_many(self.visit)[0]:
            self.memory.finish(self.visit, self.counts)
        print(json.dumps({"closed": reason, "counts": self.counts, "failed": self.failed}), flush=True)


def json_item(
    source: Any, node: Any, origin: str, response: Response, place: str
) -> tuple[dict[str, Any], str, str | None, str | None]:
    """What `SourceSpider.item` wants to know of a JSON value."""
    fields = {name: scalar(jmespath.search(path, node)) for name, path in source.fields.items()}
    known = {
        "origin": origin,
        "page": response.url,
        "fields": {name: value for name, value in sorted(fields.items()) if value is not None},
        "license": _stated(source.license, node),
        "attribution": _stated(source.attribution, node),
    }
    text = scalar(jmespath.search(source.text, node)) if source.text else node if isinstance(node, str) else None
    image_url = scalar(jmespath.search(source.image, node)) if source.image else None
    return known, place, " ".join(text.split()) if text else None, response.urljoin(image_url) if image_url else None


def _stated(given: str | None, node: Any) -> str | None:
    """A value of params: words, or a JMESPath behind an @, such as @.license.name."""
    return scalar(jmespath.search(given, node)) if given and is_json_path(given) else given


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
        if "no usable sandbox" in said:
            return "no_sandbox"
        if "executable doesn't exist" in said or "failed to launch" in said:
            return "no_browser"
        return "never_shown" if "wait_for_selector" in said else "timeout" if "timeout" in said else "browser_error"
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower().removesuffix("_error")
