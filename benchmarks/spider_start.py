"""Time a crawl of one page whose spider is forked from a running spider server, beside one that starts its own.

    python benchmarks/spider_start.py [--repeats 20]

The page is an API on loopback with one text, and each crawl has a crawl store of its own. The two kinds of crawl
alternate. A crawl starts its own server, which imports Scrapy, if a variable that Scrapy reads has changed.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from record import Measurement, mean_with_interval, write

from seedling.config.sources import ApiSource
from seedling.progress import silent
from seedling.scrape.web import collect

CONTENT = b'{"items": [{"id": 1, "note": "a text"}]}'
VARIABLE = "SCRAPY_BENCHMARK"  # the start of its name is that of variables which Scrapy reads
SETTING = "a crawl of one page on loopback"


class OneItem(BaseHTTPRequestHandler):
    """Answers robots.txt with an empty file, and every other address with one item."""

    def do_GET(self) -> None:
        """Send the answer."""
        is_robots = self.path == "/robots.txt"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain" if is_robots else "application/json")
        self.end_headers()
        self.wfile.write(b"" if is_robots else CONTENT)

    def log_message(self, *_: object) -> None:
        """Write no log."""


def seconds_of_crawl(address: str, folder: Path) -> float:
    """Return the elapsed time of one crawl. folder: of its crawl store."""
    source = ApiSource.model_validate(
        {
            "kind": "api",
            "url": f"{address}/items",
            "items": "items",
            "id": "id",
            "text": "note",
            "allow_private_hosts": ["127.0.0.1"],
            "requests_per_second": 1000,
        }
    )
    started = time.perf_counter()
    with collect(source, folder, folder, None, images=False, progress=silent):
        pass
    return time.perf_counter() - started


def main() -> None:
    """Time both kinds of crawl in turn and write results/spider_start.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args().repeats
    server = ThreadingHTTPServer(("127.0.0.1", 0), OneItem)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    own: list[float] = []
    shared: list[float] = []
    with tempfile.TemporaryDirectory() as temporary:
        for repeat in range(repeats):
            os.environ[VARIABLE] = str(repeat)
            for name, seconds in (("own", own), ("shared", shared)):
                folder = Path(temporary, f"{name}-{repeat}")
                folder.mkdir()
                seconds.append(seconds_of_crawl(address, folder))
    server.shutdown()
    ratios = [of_shared / of_own for of_shared, of_own in zip(shared, own, strict=True)]
    command = f"python benchmarks/spider_start.py --repeats {repeats}"
    rows = [
        ("a server of its own", "time", own, "s"),
        ("forked from a running server", "time", shared, "s"),
        ("forked from a running server", "time, ratio to a server of its own, paired", ratios, "ratio"),
    ]
    write(
        "spider_start",
        [
            Measurement(SETTING, system, metric, *mean_with_interval(values), unit, repeats, command)
            for system, metric, values, unit in rows
        ],
    )


if __name__ == "__main__":
    main()
