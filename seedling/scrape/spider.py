"""The collecting itself, on Scrapy, in a process of its own (Twisted's reactor starts only once in a process).

    python -m seedling.scrape.spider     with the source and where it is remembered as JSON on standard input

Writes answers and items to the source's memory, and says on standard output how far it is.
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
from seedling.scrape.browser import Gate
from seedling.scrape.crawl_store import Memory
from seedling.scrape.downloading import Downloads, JudgingResolver, MaskAnswers
from seedling.scrape.page_spiders import CrawlSpider, SequenceSpider
from seedling.scrape.politeness import Pace, PublicHosts, Revisit, Shelf
from seedling.scrape.robots import RobotsTxt

WebSource = CrawlSource | SequenceSource | ApiSource


def settings(source: WebSource, visit: int, proxy: str | None = None) -> dict[str, Any]:
    """Scrapy's settings for one source. proxy: of a saved site, which answers in every host's stead."""
    allowed = source.allow_private_hosts
    private_hosts = tuple(allowed) if isinstance(allowed, list) else allowed or proxy is not None
    most = int(source.max_megabytes * 2**20)
    chosen: dict[str, Any] = {
        "SEEDLING_VISIT": visit,
        "SEEDLING_PRIVATE_HOSTS": private_hosts,
        "SEEDLING_REVISIT": source.revisit,
        "ROBOTSTXT_OBEY": True,
        "USER_AGENT": "seedling/0.1 (dataset crawler; obeys robots.txt)",
        "DOWNLOAD_DELAY": 0,  # the pace is Pace's business
        "CONCURRENT_REQUESTS": 64,
        "CONCURRENT_ITEMS": 1,  # what a page gives is written down as it comes: a hundred tasks a page would take most of the time
        "CONCURRENT_REQUESTS_PER_DOMAIN": 64,
        "DOWNLOAD_MAXSIZE": most,
        "DOWNLOAD_WARNSIZE": 0,
        "DOWNLOAD_TIMEOUT": 30,
        "DOWNLOAD_HANDLERS": {**dict.fromkeys(("file", "ftp", "s3", "data")), "http": Downloads, "https": Downloads},
        "TWISTED_DNS_RESOLVER": JudgingResolver,
        "REDIRECT_MAX_TIMES": 5,
        "RETRY_HTTP_CODES": [500, 502, 504, 522, 524, 408],  # 429 and 503 are asked again by Pace
        "DOWNLOADER_MIDDLEWARES": {
            PublicHosts: 50,
            "scrapy.downloadermiddlewares.robotstxt.RobotsTxtMiddleware": None,
            RobotsTxt: 100,
            MaskAnswers: 587,
            "scrapy.downloadermiddlewares.httpcache.HttpCacheMiddleware": 585,  # outside compression: bytes are kept as they are
            Pace: 950,
        },
        "HTTPCACHE_ENABLED": True,
        "HTTPCACHE_STORAGE": Shelf,
        "HTTPCACHE_POLICY": Revisit,
        "LOG_LEVEL": "ERROR",
        "TELNETCONSOLE_ENABLED": False,
        "COOKIES_ENABLED": False,
        "URLLENGTH_LIMIT": 4_000,
    }
    if isinstance(source, CrawlSource) and source.browser:
        handler = "seedling.scrape.browser_downloads.BrowserDownloads"
        heap = f"--js-flags=--max-old-space-size={math.ceil(source.max_page_memory_megabytes)}"
        launch: dict[str, Any] = {"chromium_sandbox": source.browser_sandbox, "args": [heap, *NO_DIRECT_UDP]}
        if source.browser_path:
            launch["executable_path"] = source.browser_path
        chosen["DOWNLOAD_HANDLERS"] |= {"http": handler, "https": handler}
        chosen |= {"PLAYWRIGHT_LAUNCH_OPTIONS": launch, "PLAYWRIGHT_MAX_PAGES_PER_CONTEXT": 4, "CONCURRENT_REQUESTS": 8}
    return chosen


# WebRTC would reach hosts past the proxy that judges addresses. The first switch is that of headless Chromium.
NO_DIRECT_UDP = (
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--webrtc-ip-handling-policy=disable_non_proxied_udp",
)
KINDS = {"crawl": CrawlSpider, "sequence": SequenceSpider, "api": ApiSpider}


def not_understood(failure: Any, response: Response, spider: SourceSpider) -> None:
    """Scrapy's signal for a page that broke its reader."""
    spider.not_understood(failure, response)


def main() -> None:
    """Collects the source on standard input."""
    given = json.load(sys.stdin)
    end_with(given.get("leader", os.getppid()))
    source: Any = TypeAdapter(Source).validate_python(given["source"])
    with Memory(Path(given["memory"])) as memory:
        chosen = settings(source, given["visit"], given["proxy"])
        gate = Gate(chosen) if source.kind == "crawl" and source.browser else None
        process = CrawlerProcess(chosen)
        crawler = process.create_crawler(KINDS[source.kind])
        if gate is not None:
            gate.watch(crawler)
        crawler.signals.connect(not_understood, signal=scrapy.signals.spider_error)
        process.crawl(
            crawler,
            source=source,
            memory=memory,
            visit=given["visit"],
            proxy=given["proxy"],
            images=given["images"],
        )
        process.start()


if __name__ == "__main__":
    main()
