"""Compare crawlers on a site with a known rate limit: delivered pages and refused requests.

    python benchmarks/pace.py [--seconds 60] [--limits 5 50 500] [--systems seedling scrapy ...] [--shapes ...]

The server is a separate process on loopback. It answers 404 to robots.txt, and otherwise 200 or 429 with Retry-After
in whole seconds. Shapes of its limit: `bucket` (saves up the tokens of one second), `small_bucket` (of a quarter of a
second), `fixed` and `sliding` windows of one second, `slow` (never refuses, but answers no faster than the limit),
`halves` and `doubles` (a bucket whose limit changes in the middle), `free` (no limit; pages/s).

"of the limit" is the number of delivered pages divided by the number that the limit allows, in all seconds and in
their later half. "refused" is a share of all requests. Scrapy runs with its defaults, with AutoThrottle, and with
DOWNLOAD_DELAY at the true limit. Crawlee's HttpCrawler runs with its defaults. Its packages conflict with those of
this project: install it elsewhere with pip's --target, and name that folder in the environment variable CRAWLEE.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

import psutil
from record import Measurement, write

BODY = b"<html><body><p>a page of a site that has a limit, with a few words on it</p></body></html>"
WINDOW_AFTER_TEN_SECONDS = (9.0, 13.0)  # seconds that count for the metric "after 10 s"
WARM_UP_SECONDS = 10.0


class Limit:
    """A token bucket, a window, or no limit."""

    def __init__(self, shape: str, rate: float, seconds: float) -> None:
        self.shape, self.rate, self.change_at = shape, rate, seconds / 2
        self.room = max(1.0, rate * (0.25 if shape == "small_bucket" else 1.0))
        self.tokens, self.seen = self.room, deque[float]()
        self.last: float | None = None
        self.began: float | None = None
        self.free_at = 0.0

    def ask(self, now: float) -> float:
        """Return 0 if the request is allowed, or else the seconds until one is."""
        if self.began is None or self.last is None:
            self.began = self.last = now
        if self.shape in {"halves", "doubles"} and now - self.began > self.change_at:
            self.rate *= 0.5 if self.shape == "halves" else 2
            self.room, self.shape = max(1.0, self.rate), "bucket"
        if self.shape in {"fixed", "sliding"}:
            if self.shape == "fixed" and self.seen and int(now) != int(self.seen[-1]):
                self.seen.clear()
            while self.seen and self.shape == "sliding" and self.seen[0] <= now - 1:
                self.seen.popleft()
            if len(self.seen) < self.rate:
                self.seen.append(now)
                return 0.0
            return (int(now) + 1 if self.shape == "fixed" else self.seen[0] + 1) - now
        self.tokens = min(self.room, self.tokens + (now - self.last) * self.rate)
        self.last = now
        if self.tokens >= 1:
            self.tokens -= 1
            return 0.0
        return (1 - self.tokens) / self.rate

    def delay(self, now: float) -> float:
        """Return the seconds until a server that only slows down answers."""
        self.free_at = max(self.free_at, now) + 1 / self.rate
        return self.free_at - now


class Server(asyncio.Protocol):
    """A minimal HTTP server that keeps connections alive, so that the server is not the bottleneck."""

    limit: Limit
    log: list[tuple[float, bool]]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept a client."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"The server needs a transport of a stream, not {type(transport).__name__}.")
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        """Parse pipelined requests without a body."""
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
            self.answer(head)

    def answer(self, head: bytes) -> None:
        """Answer one request."""
        if b"/robots.txt" in head[:40]:
            self.send(b"404 Not Found", b"", b"")
            return
        now = time.monotonic()
        if self.limit.shape == "slow":
            asyncio.get_running_loop().call_later(self.limit.delay(now), self.send, b"200 OK", BODY, b"")
            self.log.append((now, True))
            return
        wait = 0.0 if self.limit.shape == "free" else self.limit.ask(now)
        self.log.append((now, wait == 0))
        if wait == 0:
            self.send(b"200 OK", BODY, b"")
        else:
            self.send(b"429 Too Many Requests", b"slow down", b"Retry-After: %d\r\n" % max(1, math.ceil(wait)))

    def send(self, status: bytes, body: bytes, more: bytes) -> None:
        """Send one response."""
        kind = b"Content-Type: text/html; charset=utf-8\r\n"
        self.transport.write(b"HTTP/1.1 %s\r\n%s%sContent-Length: %d\r\n\r\n%s" % (status, kind, more, len(body), body))


def serve(shape: str, rate: float, seconds: float, log: str) -> None:
    """Print the port, answer until SIGTERM, and write the log of requests."""

    async def main_loop() -> None:
        Server.limit, Server.log = Limit(shape, rate, seconds), []
        server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()
        Path(log).write_text(json.dumps(Server.log), encoding="utf-8")

    asyncio.run(main_loop())


def seedling(address: str, folder: Path, addresses: int = 9_000_000) -> list[str]:
    """Return the command of Seedling's spider, with a maximum rate above all limits."""
    source = {
        "kind": "sequence",
        "url": f"{address}/{{1..{addresses}}}",
        "text": "p::text",
        "requests_per_second": 5000,
    }
    source |= {"max_items": addresses, "max_pages": addresses}
    job = {"source": {**source, "allow_private_hosts": True}, "memory": str(folder / "web.sqlite"), "visit": 1}
    (folder / "given.json").write_text(json.dumps({**job, "proxy": None, "images": False}), encoding="utf-8")
    return [sys.executable, "-m", "seedling.scrape.spider"]


def by_scrapy(address: str, chosen: str) -> None:
    """Run Scrapy with these settings."""
    import scrapy
    import scrapy.signals
    from scrapy.crawler import CrawlerProcess

    class Pages(scrapy.Spider):
        name = "pages"

        async def start(self):  # type: ignore[no-untyped-def]
            for number in range(1, 9_000_001):
                if number % 200 == 0:
                    await self.crawler.signals.wait_for(scrapy.signals.scheduler_empty)
                yield scrapy.Request(f"{address}/{number}", dont_filter=True)

        def parse(self, response):  # type: ignore[no-untyped-def]
            " ".join(response.css("p::text").getall())

    settings = {"LOG_LEVEL": "CRITICAL", "TELNETCONSOLE_ENABLED": False, "ROBOTSTXT_OBEY": True, **json.loads(chosen)}
    process = CrawlerProcess(settings)
    process.crawl(Pages)
    process.start()


def by_crawlee(address: str) -> None:
    """Run Crawlee's HttpCrawler; requests are added on demand."""
    from crawlee import ConcurrencySettings
    from crawlee.crawlers import HttpCrawler, HttpCrawlingContext

    async def main_loop() -> None:
        crawler = HttpCrawler(configure_logging=False, concurrency_settings=ConcurrencySettings())
        added = 2000

        @crawler.router.default_handler
        async def page(context: HttpCrawlingContext) -> None:
            nonlocal added
            await context.http_response.read()
            added += 1
            await context.add_requests([f"{address}/{added}"])

        await crawler.run([f"{address}/{number}" for number in range(2000)])

    asyncio.run(main_loop())


def start_server(shape: str, rate: float, seconds: float, log: Path) -> tuple[subprocess.Popen[str], str]:
    """Start a server and return it with its address."""
    command = [sys.executable, __file__, "--serve", shape, str(rate), str(seconds), str(log)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    return server, f"http://127.0.0.1:{int((server.stdout or sys.stdin).readline())}"


def run(system: str, shape: str, rate: float, seconds: float) -> list[tuple[float, bool]]:
    """Return the server's log of these seconds, from the first request on."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.json"
        server, address = start_server(shape, rate, seconds, log)
        settings: dict[str, dict[str, object]] = {"autothrottle": {"AUTOTHROTTLE_ENABLED": True}}
        settings["fixed_delay"] = {"DOWNLOAD_DELAY": 1 / rate, "RANDOMIZE_DOWNLOAD_DELAY": False}
        if system == "seedling":
            command, job_file = seedling(address, Path(folder)), Path(folder) / "given.json"
        else:
            name = "--crawlee" if system == "crawlee" else "--scrapy"
            command = [
                sys.executable,
                __file__,
                name,
                address,
                *([] if system == "crawlee" else [json.dumps(settings.get(system, {}))]),
            ]
            job_file = Path(os.devnull)
        with job_file.open() as job_stream:
            client = subprocess.Popen(
                command,
                stdin=job_stream,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env=_paths(*([os.environ["CRAWLEE"]] if system == "crawlee" and "CRAWLEE" in os.environ else [])),
            )
        time.sleep(seconds + 8)  # time for imports
        client.kill()
        client.wait()
        server.terminate()
        server.wait()
        log_entries = [(when, bool(let)) for when, let in json.loads(log.read_text(encoding="utf-8"))]
    return (
        [(when - log_entries[0][0], let) for when, let in log_entries if when - log_entries[0][0] <= seconds]
        if log_entries
        else []
    )


def metrics_of(log: list[tuple[float, bool]], shape: str, rate: float, seconds: float) -> dict[str, float]:
    """Return the metrics of one run."""

    def allowed(first: float, last: float) -> float:
        if shape in {"halves", "doubles"}:
            late = max(0.0, last - max(first, seconds / 2))
            return rate * ((last - first) - late) + rate * (0.5 if shape == "halves" else 2) * late
        return rate * (last - first)

    def share(first: float, last: float) -> float:
        return sum(let and first <= when < last for when, let in log) / allowed(first, last)

    if shape == "free":
        later = sum(when >= WARM_UP_SECONDS for when, _ in log) / max(1.0, seconds - WARM_UP_SECONDS)
        return {"pages/s": len(log) / seconds, "pages/s after 10 s": later}
    row = longest = 0
    for _, let in log:
        row = 0 if let else row + 1
        longest = max(longest, row)
    return {
        "of the limit": share(0, seconds),
        "later half": share(seconds / 2 + (WARM_UP_SECONDS if shape in {"halves", "doubles"} else 0), seconds),
        "after 10 s": share(*WINDOW_AFTER_TEN_SECONDS),
        "refused": sum(not let for _, let in log) / max(1, len(log)),
        "refused in a row": float(longest),
    }


def main() -> None:
    """Run all combinations, one at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--limits", type=float, nargs="*", default=[5, 50, 500])
    parser.add_argument(
        "--systems", nargs="+", default=["seedling", "scrapy", "autothrottle", "fixed_delay", "crawlee"]
    )
    parser.add_argument("--shapes", nargs="+", default=["bucket"])
    parser.add_argument(
        "--own-shapes", nargs="*", default=["small_bucket", "fixed", "sliding", "slow", "halves", "doubles"]
    )
    parser.add_argument("--own-limits", type=float, nargs="*", default=[50])
    parser.add_argument("--free", type=int, default=5, help="pairs of runs without a limit")
    parser.add_argument(
        "--addresses", type=int, default=0, help="length of a sequence, to measure the crawler's memory; 0: omit it"
    )
    parser.add_argument("--fetches", type=int, default=0, help="number of addresses to fetch; 0: all")
    parser.add_argument("--name", default="pace")
    args = parser.parse_args()
    command = "PYTHONPATH=. python " + " ".join(["benchmarks/pace.py", *sys.argv[1:]])
    runs = [(shape, limit, system) for shape in args.shapes for limit in args.limits for system in args.systems]
    runs += [(shape, limit, "seedling") for shape in args.own_shapes for limit in args.own_limits]
    measurements: list[Measurement] = []
    for shape, limit, system in runs:
        metrics = metrics_of(run(system, shape, limit, args.seconds), shape, limit, args.seconds)
        setting = f"{shape.replace('_', ' ')}, {limit:g}/s"
        for metric, value in metrics.items():
            unit = {"refused in a row": "requests"}.get(metric, "share")
            measurements.append(Measurement(setting, system, metric, value, value, value, unit, 1, command))
        print(setting, system, metrics, flush=True)
    measurements += memory_of(args.addresses, args.fetches or args.addresses, command) if args.addresses else []
    measurements += without_limit(args.free, args.seconds, command)
    write(args.name, measurements)


def without_limit(pairs: int, seconds: float, command: str) -> list[Measurement]:
    """Return pages per second without a limit. Systems take turns, and ratios are of consecutive runs."""
    metrics_by_system: dict[str, list[dict[str, float]]] = {"seedling": [], "scrapy": []}
    for _ in range(pairs):
        for system, of_system in metrics_by_system.items():
            of_system.append(metrics_of(run(system, "free", 1.0, seconds), "free", 1.0, seconds))
            print("no limit", system, of_system[-1], flush=True)
    lines = []
    for metric in metrics_by_system["seedling"][0] if pairs else ():
        ours, theirs = ([metrics[metric] for metrics in metrics_by_system[system]] for system in metrics_by_system)
        lines += [("seedling", metric, ours, "1/s"), ("scrapy", metric, theirs, "1/s")]
        ratios = [our_rate / their for our_rate, their in zip(ours, theirs, strict=True)]
        lines.append(("seedling / scrapy", metric, ratios, "ratio"))
    return [
        Measurement(
            "no limit", system, metric, statistics.median(values), min(values), max(values), unit, pairs, command
        )
        for system, metric, values, unit in lines
    ]


def memory_of(addresses: int, addresses_to_fetch: int, command: str) -> list[Measurement]:
    """Return the memory of the crawler's process after 1 %, 10 %, 50 % and all of the addresses."""
    marks, memory_at_marks, done = (
        [addresses_to_fetch // 100, addresses_to_fetch // 10, addresses_to_fetch // 2, addresses_to_fetch],
        list[float](),
        0,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        server, address = start_server("free", 1.0, 1.0, folder / "log.json")
        crawl, began = seedling(address, folder, addresses), time.monotonic()
        with (folder / "given.json").open() as job_stream:
            client = subprocess.Popen(
                crawl, stdin=job_stream, stdout=subprocess.PIPE, text=True, cwd=folder, env=_paths()
            )
        for line in client.stdout or ():
            done = json.loads(line).get("done", done)
            while len(memory_at_marks) < len(marks) and done >= marks[len(memory_at_marks)]:
                memory_at_marks.append(psutil.Process(client.pid).memory_info().rss / 2**20)
                print(f"{done:,} of {addresses:,}: {memory_at_marks[-1]:.0f} MiB", flush=True)
            if len(memory_at_marks) == len(marks):
                break
        seconds = time.monotonic() - began
        client.kill()
        client.wait()
        server.terminate()
        server.wait()
    memory_rows = [(f"memory after {mark:,}", value, "MiB") for mark, value in zip(marks, memory_at_marks, strict=True)]
    setting = f"a sequence of {addresses:,} addresses"
    return [
        Measurement(setting, "seedling", metric, value, value, value, unit, 1, command)
        for metric, value, unit in [*memory_rows, (f"time of {addresses_to_fetch:,}", seconds, "s")]
    ]


def _paths(*more: str) -> dict[str, str]:
    """Return the environment in which this process's packages are importable."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*more, *sys.path])}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], float(sys.argv[3]), float(sys.argv[4]), sys.argv[5])
    elif sys.argv[1:2] == ["--scrapy"]:
        by_scrapy(sys.argv[2], sys.argv[3])
    elif sys.argv[1:2] == ["--crawlee"]:
        by_crawlee(sys.argv[2])
    else:
        main()
