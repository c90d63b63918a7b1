"""A source on the web: has the spider collect what is new, and hands on all that is remembered, in an order of its own."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import jmespath
from cssselect import SelectorError
from cssselect.xpath import ExpressionError
from jmespath.exceptions import JMESPathError
from lxml import etree
from parsel.csstranslator import HTMLTranslator

from seedling.config.sources import ApiSource, CrawlSource, SequenceSource
from seedling.errors import InputError, SeedlingError, SourceUnreachable
from seedling.faults import explain
from seedling.files.data_files import inside
from seedling.parallel.memory_limit import described_limit
from seedling.progress import Progress
from seedling.scrape.content import PASSING
from seedling.scrape.crawl_store import Memory
from seedling.scrape.items import Item
from seedling.scrape.saved_site import served
from seedling.scrape.secret_values import SecretValues, check_secrets
from seedling.scrape.selecting import is_json_path, is_selector, is_xpath

Web = CrawlSource | SequenceSource | ApiSource
HOW = (
    "name",
    "requests_per_second",
    "fixed_pace",
    "weight",
    "rules",
    "role",
    "tags",
    "rule",
    "group_by_page",
    "saved_site_limit",
    "browser_path",
    "browser_sandbox",
    "allow_env",
)

# Parameters that are newer than some sources' files: at their defaults they change no visit.
LATER = {"max_source_megabytes", "max_page_seconds", "max_page_megabytes", "max_page_memory_megabytes"}

REMEDIES = {
    "private_address": "Its host is not on the public internet: name it in the source's `allow_private_hosts` if it is yours.",
    "robots_txt": "The site's robots.txt asks crawlers to stay away: ask its owner for the data.",
    "no_such_host": "Nobody knows this host: mend the address, or look whether this machine is online.",
    "tls_failure": "The host speaks no TLS that can be trusted: try http://, or mend the address.",
    "no_sandbox": "Chromium finds no sandbox on this machine: allow unprivileged user namespaces (docs/collecting.md), or, where the site is trusted, set `browser_sandbox: false`.",
    "too_much_memory": "Its page takes more memory than `max_page_memory_megabytes`: raise it if the site is trusted.",
    "no_browser": "There is no such browser: name Chromium's path as the source's `browser_path`, or `playwright install chromium`.",
    "http_401": "The site wants a login: an interface with a key in `headers` may be what you need.",
    "http_403": "The site refuses: it may want a login, or no crawler.",
}


@dataclass(frozen=True, slots=True)
class Collected:
    """A source's file, the visit that its items are read up to, and what gave no item and is no error."""

    memory: Path
    visit: int
    counts: dict[str, int]


def name_of(source: Web) -> str:
    """Under which the source is remembered."""
    if source.name:
        return source.name
    address = _address(source)
    digest = hashlib.blake2b(address.encode(), digest_size=4).hexdigest()
    return f"{source.kind}-{urlsplit(address).hostname or 'nowhere'}-{digest}"


def _address(source: Web) -> str:
    if isinstance(source, CrawlSource):
        return source.start[0]
    return source.url


@contextmanager
def collected(
    source: Web, data: Path, remembered: Path | None, as_of: str | None, images: bool, progress: Progress
) -> Iterator[Collected]:
    """Collects what this visit has not got yet; a finished visit asks nothing.

    remembered: the folder of the sources' files; None, and where the site lies in data/: forgotten afterwards.
    Raises InputError for addresses that are none, and where nothing was found; SourceUnreachable where the site gave nothing for now.
    """
    _check(source)
    check_secrets(source)
    check_selectors(source, images)
    with ExitStack() as stack:
        if isinstance(source, CrawlSource) and source.saved_site:
            proxy = stack.enter_context(served(inside(data, source.saved_site), source.saved_site_limit, data))
        else:
            proxy = None
        kept = None if proxy else remembered
        folder = kept or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seedling-web-")))
        path = folder / f"{name_of(source)}.sqlite"
        with Memory(path) as memory:
            _check_order(as_of, memory.visits(), name_of(source))
            visit, finished = memory.visit(as_of, _definition(source, images))
            counts = memory.counts(visit)
        if not finished:
            counts = _run_spider(source, path, visit, proxy, images, progress)
        with Memory(path) as memory:
            if not finished and remembered is not None:
                _write_pace(remembered / f"{name_of(source)}.pace.json", source, memory)
            _check_found(source, memory, visit)
        yield Collected(path, visit, counts)


def _check(source: Web) -> None:
    for address in source.start if isinstance(source, CrawlSource) else [source.url]:
        if not address.startswith(("http://", "https://")):
            raise InputError(f"params.yaml: scrape.sources: '{address}' is no http:// or https:// address.")
        if isinstance(source, CrawlSource) and source.saved_site and not address.startswith("http://"):
            raise InputError(
                f"params.yaml: a saved site is served without TLS: write start as http://, not '{address}'."
            )


def check_selectors(source: Web, images: bool) -> None:
    """Raises InputError for a selector that cannot be read, and a source that has nothing for this modality."""
    json_paths = isinstance(source, ApiSource) or (isinstance(source, SequenceSource) and source.format == "json")
    found = is_json_path if json_paths else is_selector
    names = ("follow", "item", "image", "text", "tag", "items", "id", "next", "more", "license", "attribution")
    for name, given in [*((one, getattr(source, one, None)) for one in names), *source.fields.items()]:
        for selector in given if isinstance(given, list) else [given]:
            if not selector or (name in {"license", "attribution"} and not found(selector)):
                continue
            if fault := _fault(selector, json_paths):
                raise InputError(f"params.yaml: scrape.sources: {name}: '{selector}' cannot be read: {fault}.")
    wanted = "image" if images else "text"
    if isinstance(source, ApiSource) and getattr(source, wanted) is None:
        raise InputError(
            f"params.yaml: scrape.sources: the source at {source.url} needs `{wanted}`, where an item has it."
        )
    if isinstance(source, CrawlSource) and source.browser and source.browser_sandbox and os.geteuid() == 0:
        raise InputError(
            f"Chromium has no sandbox for root, so no page of {source.start[0]} is opened: run Seedling as another user, or, where the site is "
            "trusted or the machine is thrown away, set `browser_sandbox: false` for this source in params.yaml."
        )
    if isinstance(source, CrawlSource) and source.saved_site and source.browser:
        raise InputError(
            "params.yaml: scrape.sources: a saved site is served to the crawler alone: leave `browser` or `saved_site` out."
        )
    if images and isinstance(source, CrawlSource) and source.text:
        raise InputError(
            "params.yaml: scrape.sources: `text` is given, but modality is image: name `image`, the image's address, instead."
        )


def _fault(selector: str, json_path: bool) -> str | None:
    try:
        if json_path:
            jmespath.compile(selector)
        elif is_xpath(selector):
            etree.XPath(selector)
        else:
            HTMLTranslator().css_to_xpath(selector)
    except (JMESPathError, etree.XPathError, SelectorError, ExpressionError) as error:
        return str(error).splitlines()[0]
    return None


def _check_order(as_of: str | None, visits: list[str], name: str) -> None:
    """An old revision's rows lie in DVC's cache: the web of today is not what it was then."""
    days = [day for one in visits if (day := _day(one))]
    if (as_of or "") in visits[:-1]:
        raise InputError(
            f"scrape.as_of is {as_of}, but source '{name}' was visited again since: bring the generation of then back with `dvc checkout` or "
            "`dvc pull`, or name a new word."
        )
    if as_of and as_of not in visits and (asked := _day(as_of)) and days and asked < max(days):
        raise InputError(
            f"scrape.as_of is {as_of}, but source '{name}' was collected on {max(days)} already and not on that day: bring the generation of "
            "then back with `dvc checkout` or `dvc pull`, or name a later day."
        )


def _day(name: str) -> date | None:
    try:
        return date.fromisoformat(name[:10])
    except ValueError:
        return None


def _definition(source: Web, images: bool) -> str:
    """What the source asks for, not how fast or under which labels."""
    asked = {name: value for name, value in source.model_dump().items() if name not in HOW}
    for name in LATER & source.model_dump().keys():
        if asked[name] == type(source).model_fields[name].default:
            del asked[name]
    told = json.dumps([asked, images], sort_keys=True)
    return hashlib.blake2b(told.encode(), digest_size=8).hexdigest()


def _check_found(source: Web, memory: Memory, visit: int) -> None:
    if memory.how_many(visit)[0]:
        return
    reasons = Counter(str(line["reason"]) for line, _ in memory.items(visit))
    told = ", ".join(f"{reason} ({many})" for reason, many in sorted(reasons.items())) or _nothing_there(source)
    if any(PASSING.match(reason) for reason in reasons):
        hint = (
            " (or mend `wait_for`, which names nothing that came)"
            if any("never_shown" in one for one in reasons)
            else ""
        )
        raise SourceUnreachable(f"{_address(source)} gave nothing for now: {told}. Run it again later{hint}.")
    remedy = next(
        (said for reason, said in REMEDIES.items() if any(reason in one for one in reasons)),
        "Mend the source in params.yaml; or, where the site answered badly for a while, run it again under a new `scrape.as_of`.",
    )
    raise InputError(f"Collecting {_address(source)} brought nothing: {told}. {remedy}")


def _nothing_there(source: Web) -> str:
    if isinstance(source, ApiSource):
        return f"nothing at items: {source.items}"
    return f"no '{source.item}' on the pages" if source.item else "no page is there"


def _run_spider(
    source: Web, memory: Path, visit: int, proxy: str | None, images: bool, progress: Progress
) -> dict[str, int]:
    given = {"source": source.model_dump(), "memory": str(memory), "visit": visit, "proxy": proxy, "images": images}
    given["leader"] = os.getpid()
    command = [sys.executable, "-P", "-m", "seedling.scrape.spider"]
    closed: dict[str, Any] | None = None
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        spider = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)  # noqa: S603
        try:
            assert spider.stdin is not None  # noqa: S101  (asked for two lines above)
            assert spider.stdout is not None  # noqa: S101
            spider.stdin.write(json.dumps(given))
            spider.stdin.close()
            for line in spider.stdout:
                if line.startswith("{"):
                    said: dict[str, Any] = json.loads(line)
                    if "closed" in said:
                        closed = said
                    else:
                        progress(told(name_of(source), said), said["done"], said["total"])
            spider.wait()
        finally:
            if spider.poll() is None:
                spider.kill()
                spider.wait()
        if closed is None:
            raise _broke_off(source, spider.returncode, _last(SecretValues.of(source), errors), memory)
    counts: dict[str, int] = closed["counts"]
    return counts


def _write_pace(path: Path, source: Web, memory: Memory) -> None:
    """For the report: how fast each host was asked, beside the memory and not in any generation's bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {"source": name_of(source), "ceiling": source.requests_per_second, "points": memory.pace()}
    path.write_text(json.dumps(told), encoding="utf-8")


def _broke_off(source: Web, returncode: int, last: str, memory: Path) -> SeedlingError:
    """Why the process that collects ended before its time. Only what another try may mend is SourceUnreachable."""
    if returncode == -signal.SIGKILL:
        return SeedlingError(
            f"The process that collects {_address(source)} was killed, most likely out of memory ({described_limit()}): "
            "close other programs or raise the limit, and run again; what is there is kept."
        )
    if known := explain(sqlite3.DatabaseError(last), writing=memory, database=memory):
        return known
    return SourceUnreachable(f"Collecting {_address(source)} broke off: {last}. Run it again: what is there is kept.")


def _last(secrets: SecretValues, errors: IO[str]) -> str:
    """The end of what the spider wrote, masked before it is cut: a secret that is cut would not be known."""
    errors.seek(0)
    said = secrets.masked(errors.read())
    if "Executable doesn't exist" in said or "No module named 'scrapy_playwright'" in said:
        return "there is no browser: pip install 'seedling-ml[browser]', and name Chromium's path as `browser_path`"
    return said[-500:].strip()


def told(name: str, said: dict[str, Any]) -> str:
    """The live line: which source, its pace, the bracket of its limit, and how often it was refused."""
    if not said.get("rate"):
        return name
    pace = f"{name} {said['rate']:.3g}/s"
    if said.get("high"):
        pace += f" (limit {said['low']:.3g} to {said['high']:.3g})"
    return pace + (f", {said['refusals']} refused" if said["refusals"] else "")


def items_of(source: Web, from_web: Collected) -> Iterator[Item]:
    """All items of the source, by address, whatever order they came in."""
    grouped = isinstance(source, CrawlSource) and source.group_by_page
    with Memory(from_web.memory) as memory:
        for line, body in memory.items(from_web.visit):
            content: bytes | str = body if body is not None else str(line.get("text", ""))
            yield Item(
                origin=line["origin"],
                load=lambda content=content: content,  # type: ignore[misc]
                weight=source.weight,
                license=line.get("license"),
                attribution=line.get("attribution"),
                group=f"page {line['page']}" if grouped and "reason" not in line else None,
                fields={**line.get("fields", {}), "page": line["page"]},
                reason=line.get("reason"),
            )
