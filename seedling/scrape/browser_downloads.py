"""Limits the time, the bytes and the memory of a page in Chromium: its scripts may never end, or open other pages."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

import psutil
from scrapy.http import Request, Response
from scrapy_playwright.handler import ScrapyPlaywrightDownloadHandler

from seedling.scrape.downloading import Limited, Refused

CLOSING_SECONDS = 5.0  # a page that takes longer to close is killed with its process
WATCH_SECONDS = 0.5  # between two checks of the processes' memory
MAX_SLOW_PAGES = 10  # in a row; after them no page is requested in this visit
TIMEOUT, TOO_MANY_BYTES, TOO_MUCH_MEMORY, CRASHED = "timeout", "too_many_bytes", "too_much_memory", "crashed"


class OpenPage:
    """An open page: how many bytes it has loaded, and the limit that it has exceeded."""

    def __init__(self, max_bytes: int) -> None:
        self.page: Any = None
        self.opened, self.exceeded = asyncio.Event(), asyncio.Event()
        self.reason, self._bytes, self._max_bytes = "", 0, max_bytes

    def exceed(self, reason: str) -> None:
        """Note the first limit that the page has exceeded."""
        self.reason = self.reason or reason
        self.exceeded.set()

    def received(self, event: dict[str, Any]) -> None:
        """Count the bytes of a network event of Chromium."""
        frame = event.get("response", {}).get("payloadData", "")
        self._bytes += max(event.get("encodedDataLength", 0), event.get("dataLength", 0)) + len(frame)
        if self._bytes > self._max_bytes:
            self.exceed(TOO_MANY_BYTES)


class BrowserDownloads(Limited, ScrapyPlaywrightDownloadHandler):  # type: ignore[misc]
    """The download handler of scrapy-playwright, with limits."""

    def __init__(self, crawler: Any) -> None:
        super().__init__(crawler)
        source = crawler.spider.source
        self._max_seconds: float = source.max_page_seconds
        self._max_page_bytes = int(source.max_page_megabytes * 2**20)
        self._max_body_bytes = int(source.max_megabytes * 2**20)
        self._max_memory_bytes = int(source.max_page_memory_megabytes * 2**20)
        self._open: dict[int, OpenPage] = {}  # by the request's identity
        self._slow_pages, self._killed_at = 0, float("-inf")
        self._watching: asyncio.Task[None] | None = None

    async def _download_request(self, request: Request, spider: Any = None) -> Response:
        """Return the page. Raises Refused with the reason for a page that exceeds a limit, after closing it."""
        if self._slow_pages >= MAX_SLOW_PAGES:
            raise Refused(TIMEOUT)
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch_memory())
        open_page = self._open[id(request)] = OpenPage(self._max_page_bytes)
        download = asyncio.ensure_future(super()._download_request(request, spider))
        try:
            await _first_of(download, open_page.opened.wait())  # waiting for other pages does not count
            await _first_of(download, open_page.exceeded.wait(), timeout=self._max_seconds)
            if not download.done():
                open_page.exceed(TIMEOUT)
            if open_page.reason:
                raise Refused(open_page.reason)
            response: Response = download.result()
        except Exception as error:
            if "crash" in str(error).lower():
                raise Refused(open_page.reason or CRASHED) from error
            if "timeout" in str(error).lower():
                open_page.reason = TIMEOUT
            raise
        finally:
            del self._open[id(request)]
            self._slow_pages = self._slow_pages + 1 if open_page.reason == TIMEOUT else 0
            await _end(download)
            await self._close_page(open_page.page)
        if len(response.body) > self._max_body_bytes:
            raise Refused(TOO_MANY_BYTES)
        return response

    async def _create_page(self, request: Request, spider: Any) -> Any:
        """Create the page, count its network bytes, and close pages that it opens."""
        page = await super()._create_page(request, spider)
        open_page = self._open[id(request)]
        open_page.page = page
        page.on("crash", lambda _: self._crashed(open_page))
        page.on("popup", lambda popup: asyncio.ensure_future(self._close_page(popup)))
        page.on("framenavigated", lambda frame: asyncio.ensure_future(_count(page, frame, open_page)))
        await _count(page, page, open_page)
        open_page.opened.set()
        return page

    async def _close_page(self, page: Any) -> None:
        """Close a page. If that takes too long, kill the processes of all pages; the browser is then started again."""
        if page is None or page.is_closed():
            return
        try:
            await asyncio.wait_for(page.close(), CLOSING_SECONDS)
        except Exception:  # noqa: BLE001  (whatever the error, the page must not stay open)
            for process in await asyncio.to_thread(browser_processes, "--type=renderer"):
                with contextlib.suppress(psutil.Error):
                    process.kill()

    async def _watch_memory(self) -> None:
        """Kill each process of the browser that uses too much memory."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for process in await asyncio.to_thread(browser_processes, "--type="):
                with contextlib.suppress(psutil.Error):
                    if process.memory_info().rss > self._max_memory_bytes:
                        self._killed_at = asyncio.get_running_loop().time()
                        process.kill()

    def _crashed(self, open_page: OpenPage) -> None:
        """Note that a page's process has ended: it was killed for its memory just before, or it crashed."""
        just_killed = asyncio.get_running_loop().time() - self._killed_at < CLOSING_SECONDS
        open_page.exceed(TOO_MUCH_MEMORY if just_killed else CRASHED)

    async def close(self) -> None:
        """Stop watching the memory. Scrapy calls it last."""
        if self._watching is not None:
            self._watching.cancel()
        await super().close()


async def _first_of(download: asyncio.Future[Any], event: Any, timeout: float | None = None) -> None:
    waiting = asyncio.ensure_future(event)
    await asyncio.wait({download, waiting}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


async def _end(download: asyncio.Future[Any]) -> None:
    if not download.done():
        download.cancel()
    await asyncio.wait({download}, timeout=CLOSING_SECONDS)
    if download.done() and not download.cancelled():
        download.exception()  # retrieved, so that asyncio does not log it; it is reported elsewhere


async def _count(page: Any, target: Any, open_page: OpenPage) -> None:
    """Count the bytes of a page, or of a frame that has a process of its own."""
    with contextlib.suppress(Exception):  # a frame without a process of its own is counted with its page
        session = await page.context.new_cdp_session(target)
        for event in ("Network.dataReceived", "Network.webSocketFrameReceived"):
            session.on(event, open_page.received)
        await session.send("Network.enable")


def browser_processes(kind: str) -> list[psutil.Process]:
    """Return the processes of this process's browser that have an argument beginning with `kind`."""
    matching = []
    for process in psutil.Process(os.getpid()).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(argument.startswith(kind) for argument in process.cmdline()):
                matching.append(process)
    return matching
