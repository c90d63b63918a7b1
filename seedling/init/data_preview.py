"""What `seedling init` says of the data before anything is made of it: what was taken for what, five rows, the classes, and every rejection."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from seedling.config.params import load
from seedling.config.sources import FolderSource, TableSource
from seedling.dataset.generation import Modality
from seedling.errors import InputError
from seedling.files.ignored_files import PLACEHOLDER, count_files, shown_name
from seedling.scrape.folder import read_folder
from seedling.scrape.image_paths import NO_IMAGE_THERE
from seedling.scrape.image_tables import labels_by_file
from seedling.scrape.items import Item
from seedling.scrape.label_values import MAYBE_NO_LABEL
from seedling.scrape.table import Table
from seedling.terminal.printable import printable

ROWS_SHOWN = 5
CLASSES_SHOWN = 20
NAMES_SHOWN = 5
MAX_CELL_CHARACTERS = 60


@dataclass
class DataPreview:
    """What was counted over all sources."""

    lines: list[str] = field(default_factory=list)
    splits: Counter[str] = field(default_factory=Counter)
    classes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))  # class → split → rows
    reasons: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # reason → origins
    folders_below: dict[str, set[str]] = field(
        default_factory=lambda: defaultdict(set)
    )  # class → folders in its folder
    files_read: set[str] = field(default_factory=set)  # relative to data/

    def count(self, items: Iterable[Item]) -> Iterator[Item]:
        """The same items, counted."""
        for item in items:
            if item.file is not None:
                self.files_read.add(item.file)
            if item.reason is not None:
                self.reasons[item.reason].append(item.origin)
            else:
                self.splits[item.split] += 1
                if item.label is not None:
                    self.classes[item.label][item.split] += 1
                    parts = item.origin.split("/")
                    if len(parts) > 2 and parts[-3] == item.label:
                        self.folders_below[item.label].add(parts[-2])
            yield item


def preview(workspace: Path) -> list[str]:
    """The lines that are printed. Raises InputError where a source cannot be read, or where no image of a table is there."""
    params, data = load(workspace), workspace / "data"
    found = DataPreview()
    sources = params.scrape.sources
    tables = labels_by_file(sources, data, params.modality)
    elsewhere = frozenset((data / source.path).resolve() for source in sources if isinstance(source, TableSource))
    folders = [(data / source.path).resolve() for source in sources if isinstance(source, FolderSource)]
    for source in sources:
        if isinstance(source, TableSource):
            _of_table(source, data, params.modality, found)
        elif isinstance(source, FolderSource):
            others = frozenset({*elsewhere, *(path for path in folders if path != (data / source.path).resolve())})
            items = read_folder(source, data, params.modality, sys.maxsize, others, tables)
            rows = _shown(found.count(items), params.modality)
            found.lines += [f"{_folder_name(source)}: a folder of files.", *_rows(rows)]
    ignored = count_files(data, sources, frozenset(found.files_read)).ignored
    return [*found.lines, *_totals(found), *_ignored(ignored)]


def _folder_name(source: FolderSource) -> str:
    return "The folder" if source.path == "." else f"The folder {printable(source.path)}"


def _of_table(source: TableSource, data: Path, modality: Modality, found: DataPreview) -> None:
    table = Table(source, data, modality)
    before = sum(map(len, found.reasons.values()))
    images_missing: list[Item] = []

    def watched() -> Iterator[Item]:
        for item in table.items(sys.maxsize):
            if item.reason in NO_IMAGE_THERE:
                images_missing.append(item)
            yield item

    rows_before = found.splits.total()
    rows = _shown(found.count(watched()), modality)
    kept = found.splits.total() - rows_before
    rejected = sum(map(len, found.reasons.values())) - before
    if images_missing and not kept:
        raise InputError(
            f"{table.path}: none of its images is there ({images_missing[0].reason}, {printable(images_missing[0].origin)} the first): name the "
            "folder that holds both the table and the images, and write their paths relative to the table."
        )
    path = printable(source.path)
    found.lines += [
        f"{path}: {kept + rejected:,} rows, {rejected:,} of them rejected; {table.files[0].described}. {_taken(table, source, modality)}",
        *_rows(rows),
    ]
    if table.changes:
        changes = ", ".join(f"{printable(change)} ({rows:,})" for change, rows in sorted(table.changes.items()))
        found.lines.append(f"  Label values: {changes}.")
    if table.dropped_labels:
        found.lines.append(
            f"  {table.dropped_labels:,} rows of the pool or out of scope have a label, which is not used."
        )


def _taken(table: Table, source: TableSource, modality: Modality) -> str:
    """Which column was taken for what, and which are not read."""
    columns = table.columns[0]
    used = columns.used()
    taken = [
        f"{modality if role == 'content' else role} from the column '{printable(name)}'" for role, name in used.items()
    ]
    if "label" not in used:
        taken.append("no column of labels (--column label=NAME names it)")
    splits = {table.default_split(file) for file in table.files} - {None}
    if splits:
        by = "" if source.default_split else " by the file's name"
        taken.append(
            f"split {', '.join(sorted(map(str, splits)))}{by}" + (" where its cell is blank" if "split" in used else "")
        )
    if source.image_folder:
        taken.append(f"images in {printable(source.image_folder)}")
    others = [printable(name) for name in table.files[0].columns if name and name not in used.values()]
    rest = (
        f" Not read: {', '.join(others[:10])}{' …' if len(others) > 10 else ''}."
        if others and not columns.exported
        else ""
    )
    return f"Taken: {'; '.join(taken)}.{rest}"


def _shown(items: Iterable[Item], modality: Modality) -> list[tuple[str, str, str]]:
    """The first rows; all items are read."""
    rows: list[tuple[str, str, str]] = []
    for item in items:
        if len(rows) < ROWS_SHOWN and item.reason is None:
            rows.append((_cut(_content(item, modality)), _cut(item.label or "—"), item.split))
    return rows


def _content(item: Item, modality: Modality) -> str:
    try:
        return str(item.load()) if modality == "text" else item.file or item.origin
    except (OSError, ValueError):  # said as the row's reason, where it is read
        return item.origin


def _rows(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip_longest(*rows, fillvalue="")]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _cut(text: str) -> str:
    shown = printable(" ".join(text[: 2 * MAX_CELL_CHARACTERS].split()))
    return shown if len(shown) <= MAX_CELL_CHARACTERS else shown[: MAX_CELL_CHARACTERS - 1] + "…"


def _totals(found: DataPreview) -> Iterator[str]:
    by_rows = sorted(found.classes, key=lambda label: (-found.classes[label].total(), label))
    shown = [f"{_cut(label)} {found.classes[label].total():,}" for label in by_rows[:CLASSES_SHOWN]]
    more = f" and {len(by_rows) - CLASSES_SHOWN:,} more" if len(by_rows) > CLASSES_SHOWN else ""
    yield f"Classes: {', '.join(shown) + more if shown else 'none, as no row has a label'}."
    splits = ", ".join(f"{split} {rows:,}" for split, rows in sorted(found.splits.items()))
    yield f"Splits: {splits or 'none'}." + (" Rows in the pool have no label." if found.splits["pool"] else "")
    for reason, origins in sorted(found.reasons.items()):
        names = ", ".join(printable(origin) for origin in origins[:NAMES_SHOWN])
        yield f"Rejected, {reason}: {len(origins):,} ({names}{' …' if len(origins) > NAMES_SHOWN else ''})."
    yield from _doubts(found)


def _ignored(ignored: Sequence[tuple[str, str]]) -> Iterator[str]:
    """One line per reason why files in data/ are not read; placeholders that keep an empty folder in git are not listed."""
    names_by_reason = defaultdict(list)
    for name, reason in ignored:
        names_by_reason[reason].append(name)
    for reason, names in sorted(names_by_reason.items()):
        if reason != PLACEHOLDER:
            shown = ", ".join(printable(shown_name(name)) for name in names[:NAMES_SHOWN])
            more = " …" if len(names) > NAMES_SHOWN else ""
            yield f"Ignored, {reason.replace('_', ' ')}: {len(names):,} ({shown}{more})."


def _doubts(found: DataPreview) -> Iterator[str]:
    """What may not be meant: one class alone, spellings of one class, and words that may stand for no label."""
    if len(found.classes) == 1:
        (label,) = found.classes
        folders = sorted(found.folders_below[label])
        shown = f"{', '.join(map(_cut, folders[:NAMES_SHOWN]))}{' …' if len(folders) > NAMES_SHOWN else ''}"
        within = (
            f" The folder '{_cut(label)}' holds {shown}: if these are the classes, give `seedling init` that folder."
        )
        yield "Training needs at least two classes." + (within if len(folders) > 1 else "")
    spellings = defaultdict(list)
    for label in sorted(found.classes):
        spellings[label.casefold()].append(label)
    for labels in spellings.values():
        if len(labels) > 1:
            shown = " and ".join(f"'{_cut(label)}'" for label in labels)
            yield f"{shown} differ in case alone and are one class; validate.merge_case: false keeps them apart."
    for digit, word in (("1", "true"), ("0", "false")):
        words = [label for label in sorted(found.classes) if label.casefold() == word]
        if words and digit in found.classes:
            yield f"'{words[0]}' and '{digit}' are two classes; write one of them for both in the table if they mean the same."
    for label in sorted(found.classes):
        if label.casefold() in MAYBE_NO_LABEL:
            yield f"'{_cut(label)}' ({found.classes[label].total():,} rows) is a class; say --no-label '{_cut(label)}' if it stands for no label."
