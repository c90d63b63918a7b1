"""Runs one source's spider on Scrapy, in a process of its own: Twisted's reactor starts only once per process.

    python -m seedling.scrape.spider     with the source and the path of its crawl store as JSON on standard input

A run has its spiders forked by seedling/scrape/spider_server.py instead, which spares the imports of all but the first.

Writes answers and items to the source's crawl store, and progress lines to standard output.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import scrapy
import scrapy.signals
from pydantic import TypeAdapter
from scrapy.crawler import CrawlerProcess
from scrapy.http import Response

from seedling.config.sources import ApiSource, CrawlSource, SequenceSource, Source
from seedling.parallel.pool import end_with
from seedling.scrape.api_spider import ApiSpider
from seedling.scrape.base_spider import SourceSpider
from seedling.scrape.browser import EgressProxy
from seedling.scrape.crawl_store import CrawlStore
from seedling.scrape.downloading import CheckingResolver, Downloads, MaskAnswers
from seedling.scrape.exslt import register_functions
from seedling.scrape.page_spiders import CrawlSpider, SequenceSpider
from seedling.scrape.politeness import HttpCache, PublicHosts, RateLimiter, RevisitPolicy
from seedling.scrape.robots import RobotsTxt

WebSource = CrawlSource | SequenceSource | ApiSource


HANDLERS = {**dict.fromkeys(("file", "ftp", "s3", "data")), "http": Downloads, "https": Downloads}  # by scheme
FIXED_SETTINGS: dict[str, Any] = {  # of every source
    "ROBOTSTXT_OBEY": True,
    "USER_AGENT": "seedling/0.2 (dataset crawler; obeys robots.txt)",
    "DOWNLOAD_DELAY": 0,  # RateLimiter waits instead
    "CONCURRENT_REQUESTS": 64,
    "CONCURRENT_ITEMS": 1,  # items are stored as they are parsed: a hundred tasks per page would only add overhead
    "CONCURRENT_REQUESTS_PER_DOMAIN": 64,
    "DOWNLOAD_WARNSIZE": 0,
    "DOWNLOAD_TIMEOUT": 30,
    "DOWNLOAD_HANDLERS": HANDLERS,
    "TWISTED_DNS_RESOLVER": CheckingResolver,
    "REDIRECT_MAX_TIMES": 5,
    "RETRY_HTTP_CODES": [500, 502, 504, 522, 524, 408],  # RateLimiter retries 429 and 503
    "DOWNLOADER_MIDDLEWARES": {
        PublicHosts: 50,
        "scrapy.downloadermiddlewares.robotstxt.RobotsTxtMiddleware": None,
        RobotsTxt: 100,
        MaskAnswers: 587,
        # Outside compression, so that bytes are stored as they come.
        "scrapy.downloadermiddlewares.httpcache.HttpCacheMiddleware": 585,
        RateLimiter: 950,
    },
    "HTTPCACHE_ENABLED": True,
    "HTTPCACHE_STORAGE": HttpCache,
    "HTTPCACHE_POLICY": RevisitPolicy,
    "LOG_LEVEL": "ERROR",
    "TELNETCONSOLE_ENABLED": False,
    "EXTENSIONS_BASE": {"scrapy.extensions.corestats.CoreStats": 0},  # the others take 0.2 s to import
    "COOKIES_ENABLED": False,
    "URLLENGTH_LIMIT": 4_000,
}


def settings(source: WebSource, visit: int, proxy: str | None = None) -> dict[str, Any]:
    """Return Scrapy's settings for one source. proxy: of a saved site, which answers instead of every host."""
    allowed = source.allow_private_hosts
    private_hosts = tuple(allowed) if isinstance(allowed, list) else allowed or proxy is not None
    scrapy_settings: dict[str, Any] = FIXED_SETTINGS | {
        "SEEDLING_VISIT": visit,
        "SEEDLING_PRIVATE_HOSTS": private_hosts,
        "SEEDLING_REVISIT": source.revisit,
        "DOWNLOAD_MAXSIZE": int(source.max_megabytes * 2**20),
    }
    if isinstance(source, CrawlSource) and source.browser:
        handler = "seedling.scrape.browser_downloads.BrowserDownloads"
        scrapy_settings["DOWNLOAD_HANDLERS"] = HANDLERS | {"http": handler, "https": handler}
        scrapy_settings |= _browser_settings(source)
    return scrapy_settings


def _browser_settings(source: CrawlSource) -> dict[str, Any]:
    heap = f"--js-flags=--max-old-space-size={math.ceil(source.max_page_memory_megabytes)}"
    launch: dict[str, Any] = {"chromium_sandbox": source.browser_sandbox, "args": [heap, *NO_DIRECT_UDP]}
    if source.browser_path:
        launch["executable_path"] = source.browser_path
    return {
        "PLAYWRIGHT_LAUNCH_OPTIONS": launch,
        "PLAYWRIGHT_MAX_PAGES_PER_CONTEXT": 4,
        "CONCURRENT_REQUESTS": 8,
    }


# WebRTC could reach hosts without the proxy that checks addresses. The first switch is that of headless Chromium.
NO_DIRECT_UDP = (
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--webrtc-ip-handling-policy=disable_non_proxied_udp",
)
SPIDERS = {"crawl": CrawlSpider, "sequence": SequenceSpider, "api": ApiSpider}


def not_understood(failure: Any, response: Response, spider: SourceSpider) -> None:
    """Store that a page could not be parsed. Scrapy calls it when a callback raises."""
    spider.not_understood(failure, response)


def main() -> None:
    """Collect the source that standard input describes."""
    collect(json.load(sys.stdin))


def collect(request: dict[str, Any]) -> None:
    """Collect a source. request: `source`, `store`, `visit`, `proxy`, `images`, `leader` (parent process id)."""
    end_with(request.get("leader", os.getppid()))
    register_functions()
    source: Any = TypeAdapter(Source).validate_python(request["source"])
    with CrawlStore(Path(request["store"])) as store:
        scrapy_settings = settings(source, request["visit"], request["proxy"])
        egress_proxy = EgressProxy(scrapy_settings) if source.kind == "crawl" and source.browser else None
        process = CrawlerProcess(scrapy_settings)
        crawler = process.create_crawler(SPIDERS[source.kind])
        if egress_proxy is not None:
            egress_proxy.connect(crawler)
        crawler.signals.connect(not_understood, signal=scrapy.signals.spider_error)
        process.crawl(
            crawler,
            source=source,
            store=store,
            visit=request["visit"],
            proxy=request["proxy"],
            images=request["images"],
        )
        process.start()


if __name__ == "__main__":
    main()
