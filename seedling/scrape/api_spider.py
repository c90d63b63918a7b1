"""A spider for APIs: JSON over GET or POST, page by page."""

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
from seedling.scrape.selecting import fingerprint_of, parse_json


class ApiSpider(SourceSpider):
    """Requests an API's items, page by page."""

    async def start(self) -> AsyncIterator[Request]:
        """Yield the request for the first page."""
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
        """Yield the requests for a page's images, and for the next page."""
        values = parse_json(response)
        if values is None:
            self.no_item(response.url, "page_not_json")
            return
        nodes = jmespath.search(self.source.items, values) or []
        if isinstance(values, dict) and values.get("errors") and self.source.graphql:
            self.counts["graphql_errors"] += 1
            if not nodes:  # the chain of pages ends here, perhaps for this time only
                self.failed += 1
                self.store.forget_answer(key_of(response.request))
                self.no_item(response.url, "page_graphql_errors")
                return
        self.page_arrived(response.url)
        for node in nodes if isinstance(nodes, list) else [nodes]:
            if not self.has_room_for_item():
                return
            api_id = jmespath.search(self.source.id, node) if self.source.id else None
            item_id = str(api_id) if api_id is not None else fingerprint_of(json.dumps(node, sort_keys=True))
            yield from self.json_item(node, f"{self.source.url}#{item_id}", response, item_id)
        yield from self._next(values, response, page)
        self.report_progress()

    def _next(self, values: Any, response: Response, page: int) -> Iterator[Request]:
        source = self.source
        following = jmespath.search(source.next, values) if source.next else None
        if (
            following is None
            or following is False
            or following == ""
            or (source.more and not jmespath.search(source.more, values))
        ):
            return
        if not self.has_room_for_page(page + 1):
            return
        if source.cursor is None:
            url = response.urljoin(str(following))
            if origin_of(url) == origin_of(source.url):
                yield self._request({}, page + 1, url)
            else:
                self.counts["next_page_elsewhere"] += 1
            return
        part, _, name = source.cursor.partition(".")  # part: query, body or variables
        yield self._request({part: {name: following}}, page + 1)
