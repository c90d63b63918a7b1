"""Visits to web sources: renames them, and compares the rows of two visits."""

from __future__ import annotations

import filecmp
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from seedling.config.sources import Source, visited_sources
from seedling.dataset.generation import read_rejected
from seedling.scrape.content import TEMPORARY_FAILURE
from seedling.scrape.crawl_store import CrawlStore
from seedling.scrape.web import name_of
from seedling.terminal.notices import state_once
from seedling.workspace import PARTS, crawl_store_file


def rename_visit(sources: Sequence[Source], folder: Path, old: str, new: str | None) -> None:
    """Rename the last visit of each source from `old` to `new`, and replace an earlier visit of that name.

    Use it for a visit that found nothing new: it and the visit before it stand for the same rows.
    folder: with the sources' crawl stores.
    """
    for source in visited_sources(sources):
        path = folder / crawl_store_file(name_of(source))
        if path.is_file():
            with CrawlStore(path) as store:
                store.rename_visit(old, new or "")


def same_rows(visited: Path, output: Path) -> bool:
    """Whether a visit found the rows that scrape's output has, except for temporary failures.

    visited, output: two generations of scrape. Temporary failures are reported: the next visit requests them again.
    """
    names, names_before = ({path.name for path in folder.glob(PARTS)} for folder in (visited, output))
    if names != names_before or not output.is_dir():
        return False
    if not all(filecmp.cmp(visited / name, output / name, shallow=False) for name in names):
        return False
    reasons, reasons_before = (_reasons(folder) for folder in (visited, output))
    unreachable = {(origin, reason) for origin, reason in reasons if TEMPORARY_FAILURE.match(reason)}
    lasting_before = {(origin, reason) for origin, reason in reasons_before if not TEMPORARY_FAILURE.match(reason)}
    if reasons - unreachable != lasting_before:
        return False
    if unreachable:
        counts = Counter(reason for _, reason in unreachable)
        listed = ", ".join(f"{reason} ({count})" for reason, count in sorted(counts.items()))
        state_once(f"The visit found no new rows, and part of the sources could not be reached: {listed}.")
    return True


def _reasons(folder: Path) -> set[tuple[str, str]]:
    rejected = read_rejected(folder, ["origin", "reason"])
    return set(zip(rejected["origin"].astype(str), rejected["reason"].astype(str), strict=True))
