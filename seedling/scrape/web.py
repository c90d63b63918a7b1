"""A web source: runs the spider for what is new, and yields all stored items in a fixed order."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from seedling.config.sources import ApiSource, CrawlSource, SequenceSource
from seedling.errors import InputError, SeedlingError, SourceUnreachable
from seedling.extras import install_command, require
from seedling.faults import explain
from seedling.files.data_files import inside
from seedling.parallel.memory_limit import described_limit
from seedling.progress import Progress
from seedling.records.crawl_rates import CrawlRates
from seedling.scrape.content import TEMPORARY_FAILURE
from seedling.scrape.crawl_store import CrawlStore
from seedling.scrape.items import Item
from seedling.scrape.saved_site import serve_folder
from seedling.scrape.secret_values import SecretValues, check_secrets
from seedling.scrape.selecting import is_json_path, is_selector, is_xpath
from seedling.scrape.spider_messages import HostRate, SpiderEnd, receive
from seedling.scrape.spider_process import spider_process
from seedling.workspace import crawl_rates_file, crawl_store_file

Web = CrawlSource | SequenceSource | ApiSource
OTHER_SETTINGS = (  # that do not change what is requested
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

# Parameters that are newer than some sources' files: at their defaults they do not change the definition.
LATER_PARAMETERS = {"max_source_megabytes", "max_page_seconds", "max_page_megabytes", "max_page_memory_megabytes"}

REMEDIES = {
    "private_address": "Its host is not on the public internet: add it to the source's `allow_private_hosts` if it is "
    "yours.",
    "robots_txt": "The site's robots.txt asks crawlers to stay away: ask its owner for the data.",
    "no_such_host": "The host name cannot be resolved: check the address and your network connection.",
    "tls_failure": "The host has no valid TLS certificate: try http://, or fix the address.",
    "no_sandbox": "Chromium finds no sandbox on this machine: allow unprivileged user namespaces (docs/collecting.md), "
    "or, if you trust the site, set `browser_sandbox: false`.",
    "too_much_memory": "Its page takes more memory than `max_page_memory_megabytes`: raise it if you trust the site.",
    "no_browser": "There is no such browser: set the source's `browser_path` to Chromium's path, or run "
    "`playwright install chromium`.",
    "http_401": "The site requires a login: an API with a key in `headers` may have the data.",
    "http_403": "The site refuses: it may require a login, or forbid crawlers.",
}


@dataclass(frozen=True, slots=True)
class Crawl:
    """A source's crawl store, the visit up to which items are read, and reason → pages without items (not errors)."""

    store: Path
    visit: int
    counts: dict[str, int]


def name_of(source: Web) -> str:
    """Return the name of the source's crawl store."""
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
def collect(
    source: Web, data: Path, crawl_stores: Path | None, as_of: str | None, images: bool, progress: Progress
) -> Iterator[Crawl]:
    """Collect what this visit has not yet collected; a finished visit sends no requests.

    crawl_stores: the folder of the sources' crawl stores; None, and for a saved site: the store is temporary.
    Raises InputError for invalid addresses, and if nothing was found; SourceUnreachable after temporary failures;
    MissingExtra without the extra `crawl`, or without `browser` for a source that needs it.
    """
    require("crawl", f"A source of kind {source.kind}")
    if isinstance(source, CrawlSource) and source.browser:
        require("browser", "A source with `browser: true`")
    _check(source)
    check_secrets(source)
    check_selectors(source, images)
    with ExitStack() as stack:
        if isinstance(source, CrawlSource) and source.saved_site:
            proxy = stack.enter_context(serve_folder(inside(data, source.saved_site), source.saved_site_limit, data))
        else:
            proxy = None
        persistent = None if proxy else crawl_stores
        folder = persistent or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seedling-web-")))
        path = folder / crawl_store_file(name_of(source))
        with CrawlStore(path) as store:
            _check_order(as_of, store.visits(), name_of(source))
            visit, finished = store.visit(as_of, _definition(source, images))
            counts = store.counts(visit)
        if not finished:
            counts = _run_spider(source, path, visit, proxy, images, progress)
        with CrawlStore(path) as store:
            if not finished and crawl_stores is not None:
                _write_rates(crawl_stores / crawl_rates_file(name_of(source)), source, store)
            _check_items(source, store, visit)
        yield Crawl(path, visit, counts)


def _check(source: Web) -> None:
    for address in source.start if isinstance(source, CrawlSource) else [source.url]:
        if not address.startswith(("http://", "https://")):
            raise InputError(f"params.yaml: scrape.sources: '{address}' is not an http:// or https:// address.")
        if isinstance(source, CrawlSource) and source.saved_site and not address.startswith("http://"):
            raise InputError(
                f"params.yaml: a saved site is served without TLS: start its address with http://, not '{address}'."
            )


def check_selectors(source: Web, images: bool) -> None:
    """Raise InputError for an invalid selector, and for a source without content of this modality."""
    json_paths = isinstance(source, ApiSource) or (isinstance(source, SequenceSource) and source.format == "json")
    is_path = is_json_path if json_paths else is_selector
    names = ("follow", "item", "image", "text", "tag", "items", "id", "next", "more", "license", "attribution")
    for name, setting in [*((name, getattr(source, name, None)) for name in names), *source.fields.items()]:
        for selector in setting if isinstance(setting, list) else [setting]:
            if not selector or (name in {"license", "attribution"} and not is_path(selector)):
                continue
            if fault := _fault(selector, json_paths):
                raise InputError(f"params.yaml: scrape.sources: {name}: '{selector}' cannot be read: {fault}.")
    content = "image" if images else "text"
    if isinstance(source, ApiSource) and getattr(source, content) is None:
        raise InputError(
            f"params.yaml: scrape.sources: the source at {source.url} needs `{content}`: the path to an item's "
            f"{content}."
        )
    if isinstance(source, CrawlSource):
        _check_crawl(source, images)


def _check_crawl(source: CrawlSource, images: bool) -> None:
    if source.browser and source.browser_sandbox and os.geteuid() == 0:
        raise InputError(
            f"Chromium has no sandbox for root, so no page of {source.start[0]} is opened: run Seedling as another "
            "user, or, if you trust the site or the machine is disposable, set `browser_sandbox: false` for this "
            "source in params.yaml."
        )
    if source.saved_site and source.browser:
        raise InputError(
            "params.yaml: scrape.sources: a saved site is served only to the crawler, not to a browser: remove "
            "`browser` or `saved_site`."
        )
    if images and source.text:
        raise InputError(
            "params.yaml: scrape.sources: `text` is set, but the modality is image: set `image`, the selector of the "
            "image's address, instead."
        )


def _fault(selector: str, json_path: bool) -> str | None:
    import jmespath
    from cssselect import SelectorError
    from cssselect.xpath import ExpressionError
    from jmespath.exceptions import JMESPathError
    from lxml import etree
    from parsel.csstranslator import HTMLTranslator

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
    """Raise InputError for a visit in the past: DVC's cache has its rows, and the web has changed since."""
    days = [day for visit in visits if (day := _day(visit))]
    if (as_of or "") in visits[:-1]:
        raise InputError(
            f"scrape.as_of is {as_of}, but source '{name}' was visited again since: restore the generation of that "
            "visit with `dvc checkout` or `dvc pull`, or set a new value."
        )
    if as_of and as_of not in visits and (day := _day(as_of)) and days and day < max(days):
        raise InputError(
            f"scrape.as_of is {as_of}, but source '{name}' was collected on {max(days)} and not on that day: restore "
            "the generation of that day with `dvc checkout` or `dvc pull`, or set a later day."
        )


def _day(name: str) -> date | None:
    try:
        return date.fromisoformat(name[:10])
    except ValueError:
        return None


def _definition(source: Web, images: bool) -> str:
    """Return a hash of what the source requests; it does not depend on rate limits or labels."""
    settings = {name: value for name, value in source.model_dump().items() if name not in OTHER_SETTINGS}
    for name in LATER_PARAMETERS & source.model_dump().keys():
        if settings[name] == type(source).model_fields[name].default:
            del settings[name]
    settings_json = json.dumps([settings, images], sort_keys=True)
    return hashlib.blake2b(settings_json.encode(), digest_size=8).hexdigest()


def _check_items(source: Web, store: CrawlStore, visit: int) -> None:
    if store.count_items(visit)[0]:
        return
    reasons = Counter(str(record["reason"]) for record, _ in store.items(visit))
    listed = ", ".join(f"{reason} ({count})" for reason, count in sorted(reasons.items())) or _nothing_there(source)
    if any(TEMPORARY_FAILURE.match(reason) for reason in reasons):
        hint = (
            " (or fix `wait_for`: no page has an element that it matches)"
            if any("never_shown" in reason for reason in reasons)
            else ""
        )
        raise SourceUnreachable(
            f"{_address(source)} returned no items because of temporary failures: {listed}. Run again later{hint}."
        )
    remedy = next(
        (remedy for code, remedy in REMEDIES.items() if any(code in reason for reason in reasons)),
        "Fix the source in params.yaml; or, if the site had a temporary fault, run again with a new `scrape.as_of`.",
    )
    raise InputError(f"Collecting {_address(source)} found no items: {listed}. {remedy}")


def _nothing_there(source: Web) -> str:
    if isinstance(source, ApiSource):
        return f"nothing at items: {source.items}"
    return f"no '{source.item}' on the pages" if source.item else "no pages"


def _run_spider(
    source: Web, store: Path, visit: int, proxy: str | None, images: bool, progress: Progress
) -> dict[str, int]:
    request = {"source": source.model_dump(), "store": str(store), "visit": visit, "proxy": proxy, "images": images}
    end: SpiderEnd | None = None
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        with spider_process(request, errors) as spider:
            for line in spider.output:
                message = receive(line)
                if isinstance(message, SpiderEnd):
                    end = message
                elif message is not None:
                    progress(progress_line(name_of(source), message.host), message.done, message.total)
            exit_code = spider.wait()
        if end is None:
            raise _broke_off(source, exit_code, _last_error(SecretValues.of(source), errors), store)
    return end.counts


def _write_rates(path: Path, source: Web, store: CrawlStore) -> None:
    """Write the request rates per host for the report, beside the crawl store: a generation's bytes have no times."""
    CrawlRates(source=name_of(source), ceiling=source.requests_per_second, points=store.rates()).write(path)


def _broke_off(source: Web, returncode: int, last: str, store: Path) -> SeedlingError:
    """Return why the spider's process ended early: SourceUnreachable only if another run may succeed."""
    if returncode == -signal.SIGKILL:
        return SeedlingError(
            f"The process that collects {_address(source)} was killed, most likely out of memory "
            f"({described_limit()}): close other programs or raise the limit, and run again; what has "
            "been collected is kept."
        )
    if explained := explain(sqlite3.DatabaseError(last), writing=store, database=store):
        return explained
    return SourceUnreachable(
        f"Collecting {_address(source)} ended early: {last}. Run again: what has been collected is kept."
    )


def _last_error(secrets: SecretValues, errors: IO[str]) -> str:
    """Return the end of the spider's standard error, masked before it is cut: part of a secret would not be found."""
    errors.seek(0)
    text = secrets.masked(errors.read())
    if "Executable doesn't exist" in text or "No module named 'scrapy_playwright'" in text:
        return f"there is no browser: {install_command('browser')}, and set `browser_path` to Chromium's path"
    return text[-500:].strip()


def progress_line(name: str, host: HostRate | None) -> str:
    """Return the live line: the source, its request rate, the bounds of its limit, and how often it was refused."""
    if host is None or not host.rate:
        return name
    line = f"{name} {host.rate:.3g}/s"
    if host.high:
        line += f" (limit {host.low or 0:.3g} to {host.high:.3g})"
    return line + (f", {host.refusals} refused" if host.refusals else "")


def items_of(source: Web, crawl: Crawl) -> Iterator[Item]:
    """Yield all items of the source, ordered by address."""
    grouped = isinstance(source, CrawlSource) and source.group_by_page
    with CrawlStore(crawl.store) as store:
        for record, body in store.items(crawl.visit):
            content: bytes | str = body if body is not None else str(record.get("text", ""))
            yield Item(
                origin=record["origin"],
                load=lambda content=content: content,  # type: ignore[misc]
                weight=source.weight,
                license=record.get("license"),
                attribution=record.get("attribution"),
                group=f"page {record['page']}" if grouped and "reason" not in record else None,
                fields={**record.get("fields", {}), "page": record["page"]},
                reason=record.get("reason"),
            )
