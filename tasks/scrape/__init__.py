"""scrape: brings folders, tables and sites into one record, with weak labels and provenance.

python -m tasks.scrape
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

from tasks import images, texts
from tasks.errors import InputError
from tasks.generation import GenerationWriter, Row, identify
from tasks.params import CrawlSource, Facts, FolderSource, ScrapeParams
from tasks.progress import Progress, counted, silent
from tasks.scrape.crawl import crawl
from tasks.scrape.folder import read_folder
from tasks.scrape.items import Item
from tasks.scrape.table import read_table

AT_ONCE = 256  # items in memory


def scrape(params: ScrapeParams, facts: Facts, *, data: Path, output: Path, progress: Progress = silent) -> None:
    """Writes `generations/scrape`: every item of every source, kept as it came or rejected with a reason.

    Raises InputError for a source that is not there, cannot be read or holds nothing.
    """
    if not data.is_dir():
        raise InputError(
            f"{data} does not exist: `dvc pull` brings it where it is stored, `seedling init` makes it anew."
        )
    found = 0
    with GenerationWriter(output, stage="scrape", modality=facts.modality) as writer:
        items = counted(_items(params, facts, data, progress), progress, "read")
        seen: dict[tuple[str, str | None], set[str | None]] = {}
        for row, reason in _rows(items, facts):
            found += 1
            labels = seen.setdefault((row.id, row.origin), set())
            if reason or row.label in labels:
                writer.reject(row, reason or "exact_duplicate")
                continue
            # The same thing under the same address with another tag: validate is to see both, and to tell them apart.
            writer.keep(replace(row, origin=f"{row.origin}#{row.label}") if labels else row)
            labels.add(row.label)
        writer.close(rows_in=found, sources=[source.kind for source in params.sources], as_of=params.as_of)


def _items(params: ScrapeParams, facts: Facts, data: Path, progress: Progress) -> Iterator[Item]:
    limit = int(params.max_megabytes * 2**20)
    others = [source.saved_site if isinstance(source, CrawlSource) else source.path for source in params.sources]
    elsewhere = frozenset((data / other).resolve() for other in others if other)
    for source in params.sources:
        if isinstance(source, FolderSource):
            yield from read_folder(source, data, facts.modality, limit, elsewhere)
        elif isinstance(source, CrawlSource):
            yield from crawl(source, data, progress)
        else:
            yield from read_table(source, data, facts.modality, limit)


def _rows(items: Iterable[Item], facts: Facts) -> Iterator[tuple[Row, str | None]]:
    """The rows in the items' order, decoded by as many threads as the machine has cores."""
    remaining = iter(items)
    with ThreadPoolExecutor() as threads:
        while block := list(islice(remaining, AT_ONCE)):
            yield from threads.map(partial(_row, facts=facts), block)


def _row(item: Item, facts: Facts) -> tuple[Row, str | None]:
    payload, content, reason = b"" if facts.modality == "image" else "", b"", item.reason
    if reason is None:
        payload, content, reason = _content(item, facts)
    row = Row(
        id=identify(content or item.origin.encode()),
        split=item.split,
        label=item.label,
        label_source=item.label_source,
        weight=item.weight,
        origin=item.origin,
        licence=item.licence,
        attribution=item.attribution,
        group=item.group,
        payload=payload,
    )
    return row, reason


def _content(item: Item, facts: Facts) -> tuple[bytes | str, bytes, str | None]:
    """Payload, what the id is the hash of, and the reason where the item cannot even be read.

    Bytes that give no picture are kept as they are: whether they may stay is validate's business.
    """
    empty: bytes | str = b"" if facts.modality == "image" else ""
    try:
        loaded = item.load()
    except UnicodeDecodeError:
        return empty, b"", "not_utf8"
    except OSError:
        return empty, b"", "unreadable_file"
    if isinstance(loaded, str):
        return texts.clean(loaded), texts.content(loaded), None
    try:
        return loaded, images.content(images.decode(loaded, facts.max_megapixels)), None
    except images.Undecodable:
        return loaded, loaded, None
