"""Pages that a browser renders: how they are worked, and what they may reach."""

from __future__ import annotations

import asyncio
from typing import Any

import scrapy
import scrapy.signals

from seedling.config.sources import CrawlSource
from seedling.scrape.egress_proxy import listener, serve

CALM_MILLISECONDS = (300, 5_000)  # without a change, and at most
CLICK_MILLISECONDS = 3_000
ANSWER_SECONDS = 15.0  # of a page whose scripts end


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
    await _calm(page)
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
            await _calm(page)


async def _calm(page: Any) -> None:
    """Waits until the page is calm. Raises TimeoutError where a script holds it."""
    await asyncio.wait_for(page.evaluate(CALM, CALM_MILLISECONDS), ANSWER_SECONDS)


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
            self._server = await serve(self._port, crawler.seedling_hosts.address_of, crawler.spider.received.add)

        self._open = open_gateway  # signals hold what they call weakly
        crawler.signals.connect(open_gateway, signal=scrapy.signals.spider_opened)


def not_asked(request: Any) -> bool:
    """What is no page of the web, such as a file, is not asked for by a page in the browser."""
    return not request.url.startswith(("http://", "https://", "data:", "blob:", "about:"))
