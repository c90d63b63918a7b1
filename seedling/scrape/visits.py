"""Visits to the sources on the web: their names, and whether a visit brought rows."""

from __future__ import annotations

import filecmp
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from seedling.config.sources import Source, visited_sources
from seedling.dataset.generation import read_rejected
from seedling.scrape.content import PASSING
from seedling.scrape.crawl_store import Memory
from seedling.scrape.web import name_of
from seedling.terminal.notices import state_once


def rename_visit(sources: Sequence[Source], folder: Path, old: str, new: str | None) -> None:
    """Gives the last visit of each source, of the name `old`, the name `new`, in place of an earlier visit of that name.

    folder: of the sources' files. For a visit that brought nothing: it and the one before it stand for the same rows.
    """
    for source in visited_sources(sources):
        path = folder / f"{name_of(source)}.sqlite"
        if path.is_file():
            with Memory(path) as memory:
                memory.rename_visit(old, new or "")


def same_rows(visited: Path, output: Path) -> bool:
    """Whether a visit brought the rows that scrape's output has, but for what could not be reached just now.

    visited, output: two generations of scrape. What could not be reached is stated: the next visit asks for it again.
    """
    names, names_before = ({path.name for path in folder.glob("part-*.parquet")} for folder in (visited, output))
    if names != names_before or not output.is_dir():
        return False
    if not all(filecmp.cmp(visited / name, output / name, shallow=False) for name in names):
        return False
    reasons, reasons_before = (_reasons(folder) for folder in (visited, output))
    unreachable = {(origin, reason) for origin, reason in reasons if PASSING.match(reason)}
    lasting_before = {(origin, reason) for origin, reason in reasons_before if not PASSING.match(reason)}
    if reasons - unreachable != lasting_before:
        return False
    if unreachable:
        counts = Counter(reason for _, reason in unreachable)
        listed = ", ".join(f"{reason} ({count})" for reason, count in sorted(counts.items()))
        state_once(f"The visit brought no new rows, and part of the sources could not be reached: {listed}.")
    return True


def _reasons(folder: Path) -> set[tuple[str, str]]:
    rejected = read_rejected(folder, ["origin", "reason"])
    return set(zip(rejected["origin"].astype(str), rejected["reason"].astype(str), strict=True))
