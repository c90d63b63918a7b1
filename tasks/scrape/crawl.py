"""A crawl as a source: starts the spider in its own process, and hands on what it found in an order of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tasks.errors import InputError, SourceUnreachable
from tasks.params import CrawlSource
from tasks.progress import Progress
from tasks.scrape.items import Item, inside, tidy_label
from tasks.scrape.saved_site import served

# A page that fails so may answer next time; a crawl without it must not be recorded as whole.
PASSING = re.compile(
    r"page_(http_5..|http_429|rate_limited|.*timeout.*|.*connection.*|.*lost.*|response_never_received)"
)


def crawl(source: CrawlSource, data: Path, progress: Progress) -> Iterator[Item]:
    """The site's items by address, whatever order they came in; pages and refusals go to the progress' last word.

    Raises InputError where the start page cannot be had or no item was found.
    """
    if not source.start.startswith(("http://", "https://")):
        raise InputError(f"params.yaml: scrape.sources: start '{source.start}' is no http:// or https:// address.")
    if source.saved_site and not source.start.startswith("http://"):
        raise InputError(
            f"params.yaml: a saved site is served without TLS: write start as http://, not '{source.start}'."
        )
    with ExitStack() as stack:
        spool = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seedling-crawl-")))
        proxy = None
        if source.saved_site:
            proxy = stack.enter_context(served(inside(data, source.saved_site), source.saved_site_limit))
        _run_spider(source, proxy, spool, progress)
        lines = [json.loads(line) for line in (spool / "items.jsonl").read_text(encoding="utf-8").splitlines()]
        if failed := [line for line in lines if PASSING.match(line.get("reason", ""))]:
            raise SourceUnreachable(
                f"{len(failed)} pages of {source.start} did not answer ({failed[0]['origin']}: {failed[0]['reason']}), so what "
                "they lead to is missing: run it again later."
            )
        if not any("reason" not in line for line in lines):
            reasons = ", ".join(sorted({line["reason"] for line in lines})) or f"no '{source.item}' on the pages"
            raise InputError(
                f"The crawl of {source.start} brought nothing ({reasons}): mend the source in params.yaml."
            )
        for line in sorted(lines, key=lambda one: (one["origin"], json.dumps(one, sort_keys=True))):
            yield _item(line, source, spool)


def _run_spider(source: CrawlSource, proxy: str | None, spool: Path, progress: Progress) -> None:
    given = json.dumps({"source": source.model_dump(), "proxy": proxy})
    command = [sys.executable, "-m", "tasks.scrape.spider", str(spool)]
    with (spool / "errors.txt").open("w+", encoding="utf-8") as errors:
        spider = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)  # noqa: S603
        try:
            assert spider.stdin is not None  # noqa: S101  (asked for two lines above)
            assert spider.stdout is not None  # noqa: S101
            spider.stdin.write(given)
            spider.stdin.close()
            for line in spider.stdout:
                if line.startswith("{"):
                    said: dict[str, Any] = json.loads(line)
                    progress("crawl", said["done"], None)
            spider.wait()
        finally:
            if spider.poll() is None:
                spider.kill()
                spider.wait()
        if not (spool / "finished.json").is_file():
            errors.seek(0)
            raise SourceUnreachable(
                f"The crawl of {source.start} broke off: {errors.read()[-500:].strip()}. Run it again."
            )


def _item(line: dict[str, Any], source: CrawlSource, spool: Path) -> Item:
    label = tidy_label(line.get("label"))
    # Read now: the spool is gone once the last item is handed on.
    content = (spool / line["file"]).read_bytes() if "file" in line else str(line.get("text", ""))
    return Item(
        origin=line["origin"],
        load=lambda: content,
        split="train" if label else "pool",
        label=label,
        label_source=f"weak:{source.rule}" if label else None,
        weight=source.weight if label else 1.0,
        licence=line.get("licence"),
        attribution=line.get("attribution"),
        group=f"page {line['page']}" if source.group_by_page and "page" in line else None,
        reason=line.get("reason"),
    )
