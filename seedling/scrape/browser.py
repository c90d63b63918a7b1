"""Pages that a browser renders: which actions they need, and which hosts they may reach."""

from __future__ import annotations

import asyncio
from typing import Any

import scrapy
import scrapy.signals

from seedling.config.sources import CrawlSource
from seedling.scrape.egress_proxy import listener, serve

CALM_MILLISECONDS = (300, 5_000)  # without a change, and at most
CLICK_MILLISECONDS = 3_000
MAX_CALM_SECONDS = 15.0  # for a page whose scripts never pause


def in_browser(source: CrawlSource) -> dict[str, Any]:
    """Return the request's meta that makes Chromium fetch the page and perform the source's actions."""
    from scrapy_playwright.page import PageMethod

    return {"playwright": True, "playwright_page_methods": [PageMethod(perform_actions, source=source)]}


CALM = """([calm, most]) => new Promise(done => {
    let timer = setTimeout(done, calm);
    new MutationObserver(() => { clearTimeout(timer); timer = setTimeout(done, calm); })
        .observe(document, {childList: true, subtree: true, characterData: true});
    setTimeout(done, most);
})"""


async def perform_actions(page: Any, source: CrawlSource) -> None:
    """Wait for the source's `wait_for`, click each `click` selector until it is gone, and wait for a calm page."""
    from playwright.async_api import TimeoutError as PlaywrightTimeoutError

    if source.wait_for:
        await page.wait_for_selector(source.wait_for)
    await _wait_until_calm(page)
    for selector in source.click:
        for _ in range(source.max_clicks):
            button = page.locator(selector).first
            if not await page.locator(selector).count() or not await button.is_visible():
                break
            try:
                await button.click(timeout=CLICK_MILLISECONDS)
            except PlaywrightTimeoutError:  # the button has disappeared
                break
            await page.wait_for_load_state("networkidle")
            await _wait_until_calm(page)


async def _wait_until_calm(page: Any) -> None:
    """Wait until the page stops changing. Raises TimeoutError if a script blocks it."""
    await asyncio.wait_for(page.evaluate(CALM, CALM_MILLISECONDS), MAX_CALM_SECONDS)


class EgressProxy:
    """Restricts the requests of a browser's pages: by scheme before they are sent, and by host in the egress proxy."""

    def __init__(self, scrapy_settings: dict[str, Any]) -> None:
        """Change the settings, before the crawler is created and copies them."""
        self._port, address = listener()
        launch = scrapy_settings["PLAYWRIGHT_LAUNCH_OPTIONS"]
        proxy = {"server": address, "bypass": "<-loopback>"}
        scrapy_settings["PLAYWRIGHT_LAUNCH_OPTIONS"] = {**launch, "proxy": proxy}
        scrapy_settings["PLAYWRIGHT_ABORT_REQUEST"] = is_forbidden

    def connect(self, crawler: Any) -> None:
        """Start the proxy when the crawler starts."""

        async def start_proxy(**_: Any) -> None:
            self._server = await serve(self._port, crawler.seedling_hosts.address_of, crawler.spider.received.add)

        self._start = start_proxy  # signals hold weak references
        crawler.signals.connect(start_proxy, signal=scrapy.signals.spider_opened)


def is_forbidden(request: Any) -> bool:
    """Whether a page requests something that is not on the web, such as a file."""
    return not request.url.startswith(("http://", "https://", "data:", "blob:", "about:"))
