"""Pages in Chromium under limits: the time, the bytes and the memory that one page may take. A page's script may never end, and may open others."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

import psutil
from scrapy.http import Request, Response
from scrapy_playwright.handler import ScrapyPlaywrightDownloadHandler

from seedling.scrape.downloading import Limited, Refused

CLOSING_SECONDS = 5.0  # a page that takes longer to close goes with its process
WATCH_SECONDS = 0.5  # between two looks at the processes' memory
MAX_SLOW_PAGES = 10  # in a row; then nothing more is asked in this visit
TIMEOUT, TOO_MANY_BYTES, TOO_MUCH_MEMORY, CRASHED = "timeout", "too_many_bytes", "too_much_memory", "crashed"


class OpenPage:
    """One page while it is open: what it loaded, and the limit that it exceeded."""

    def __init__(self, max_bytes: int) -> None:
        self.page: Any = None
        self.opened, self.over = asyncio.Event(), asyncio.Event()
        self.reason, self._bytes, self._max_bytes = "", 0, max_bytes

    def exceed(self, reason: str) -> None:
        """The page is ended."""
        self.reason = self.reason or reason
        self.over.set()

    def received(self, event: dict[str, Any]) -> None:
        """Counts what the network brought, as Chromium tells of it."""
        frame = event.get("response", {}).get("payloadData", "")
        self._bytes += max(event.get("encodedDataLength", 0), event.get("dataLength", 0)) + len(frame)
        if self._bytes > self._max_bytes:
            self.exceed(TOO_MANY_BYTES)


class BrowserDownloads(Limited, ScrapyPlaywrightDownloadHandler):  # type: ignore[misc]
    """scrapy-playwright's handler, with the limits."""

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
        """Raises Refused with the reason for a page that exceeds a limit; it is closed then, if need be with its process."""
        if self._slow_pages >= MAX_SLOW_PAGES:
            raise Refused(TIMEOUT)
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch_memory())
        shown = self._open[id(request)] = OpenPage(self._max_page_bytes)
        work = asyncio.ensure_future(super()._download_request(request, spider))
        try:
            await _first_of(work, shown.opened.wait())  # pages wait for one another, which is not the page's fault
            await _first_of(work, shown.over.wait(), timeout=self._max_seconds)
            if not work.done():
                shown.exceed(TIMEOUT)
            if shown.reason:
                raise Refused(shown.reason)
            response: Response = work.result()
        except Exception as error:
            if "crash" in str(error).lower():
                raise Refused(shown.reason or CRASHED) from error
            if "timeout" in str(error).lower():
                shown.reason = TIMEOUT
            raise
        finally:
            del self._open[id(request)]
            self._slow_pages = self._slow_pages + 1 if shown.reason == TIMEOUT else 0
            await _ended(work)
            await self._closed(shown.page)
        if len(response.body) > self._max_body_bytes:
            raise Refused(TOO_MANY_BYTES)
        return response

    async def _create_page(self, request: Request, spider: Any) -> Any:
        """The page, its network counted; pages that it opens are closed."""
        page = await super()._create_page(request, spider)
        shown = self._open[id(request)]
        shown.page = page
        page.on("crash", lambda _: self._crashed(shown))
        page.on("popup", lambda popup: asyncio.ensure_future(self._closed(popup)))
        page.on("framenavigated", lambda frame: asyncio.ensure_future(_count(page, frame, shown)))
        await _count(page, page, shown)
        shown.opened.set()
        return page

    async def _closed(self, page: Any) -> None:
        """Closes a page. Where that takes too long, the processes of all pages end, and the browser is started anew."""
        if page is None or page.is_closed():
            return
        try:
            await asyncio.wait_for(page.close(), CLOSING_SECONDS)
        except Exception:  # noqa: BLE001  (whatever went wrong, the page must not stay)
            for process in await asyncio.to_thread(browser_processes, "--type=renderer"):
                with contextlib.suppress(psutil.Error):
                    process.kill()

    async def _watch_memory(self) -> None:
        """Ends each process of the browser that takes too much."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for process in await asyncio.to_thread(browser_processes, "--type="):
                with contextlib.suppress(psutil.Error):
                    if process.memory_info().rss > self._max_memory_bytes:
                        self._killed_at = asyncio.get_running_loop().time()
                        process.kill()

    def _crashed(self, shown: OpenPage) -> None:
        """A page's process is gone: ended by the watch just before, or by itself."""
        just_killed = asyncio.get_running_loop().time() - self._killed_at < CLOSING_SECONDS
        shown.exceed(TOO_MUCH_MEMORY if just_killed else CRASHED)

    async def close(self) -> None:
        """Scrapy's last call."""
        if self._watching is not None:
            self._watching.cancel()
        await super().close()


async def _first_of(work: asyncio.Future[Any], other: Any, timeout: float | None = None) -> None:
    waiting = asyncio.ensure_future(other)
    await asyncio.wait({work, waiting}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


async def _ended(work: asyncio.Future[Any]) -> None:
    if not work.done():
        work.cancel()
    await asyncio.wait({work}, timeout=CLOSING_SECONDS)
    if work.done() and not work.cancelled():
        work.exception()  # it is told of elsewhere


async def _count(page: Any, target: Any, shown: OpenPage) -> None:
    """Counts what a page, or a frame with a process of its own, loads."""
    with contextlib.suppress(Exception):  # a frame without a process of its own is counted with its page
        session = await page.context.new_cdp_session(target)
        for event in ("Network.dataReceived", "Network.webSocketFrameReceived"):
            session.on(event, shown.received)
        await session.send("Network.enable")


def browser_processes(kind: str) -> list[psutil.Process]:
    """The processes of this process's browser whose command line has the word."""
    found = []
    for process in psutil.Process(os.getpid()).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(word.startswith(kind) for word in process.cmdline()):
                found.append(process)
    return found
