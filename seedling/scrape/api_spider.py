"""A spider for interfaces: JSON over GET or POST, page by page."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlencode

import jmespath
from scrapy.http import Request, Response

from seedling.scrape.base_spider import SourceSpider
from seedling.scrape.politeness import key_of
from seedling.scrape.secret_values import origin_of
from seedling.scrape.selecting import fingerprint_of, parsed


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
        return Request(
            url,
            method="POST" if body is not None or source.method == "POST" else "GET",
            headers={
                "Accept": "application/json",
                **({"Content-Type": "application/json"} if body else {}),
                **source.headers,
            },
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
            self.no_item(response.url, "page_not_json")
            return
        nodes = jmespath.search(self.source.items, values) or []
        if isinstance(values, dict) and values.get("errors") and self.source.graphql:
            self.counts["graphql_errors"] += 1
            if not nodes:  # the chain ends here, and perhaps not the next time
                self.failed += 1
                self.memory.forget_answer(key_of(response.request))
                self.no_item(response.url, "page_graphql_errors")
                return
        self.page_came(response.url)
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
