"""The preview that `seedling init` prints: the columns' roles, five rows, the classes, and all rejected rows."""

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
from seedling.workspace import Workspace

MAX_ROWS_SHOWN = 5
MAX_CLASSES_SHOWN = 20
MAX_NAMES_SHOWN = 5
MAX_CELL_CHARACTERS = 60


@dataclass
class DataPreview:
    """Counts over all sources."""

    lines: list[str] = field(default_factory=list)
    splits: Counter[str] = field(default_factory=Counter)
    classes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))  # class → split → rows
    reasons: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # reason → origins
    # class → folders in its folder
    folders_below: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    files_read: set[str] = field(default_factory=set)  # relative to data/

    def count(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the same items, and count them."""
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
    """Return the lines to print. Raises InputError if a source cannot be read, or if no image of a table exists."""
    params, data = load(workspace), Workspace(workspace).data
    counts = DataPreview()
    sources = params.scrape.sources
    tables = labels_by_file(sources, data, params.modality)
    elsewhere = frozenset((data / source.path).resolve() for source in sources if isinstance(source, TableSource))
    folders = [(data / source.path).resolve() for source in sources if isinstance(source, FolderSource)]
    for source in sources:
        if isinstance(source, TableSource):
            _preview_table(source, data, params.modality, counts)
        elif isinstance(source, FolderSource):
            others = frozenset({*elsewhere, *(path for path in folders if path != (data / source.path).resolve())})
            items = read_folder(source, data, params.modality, sys.maxsize, others, tables)
            rows = _first_rows(counts.count(items), params.modality)
            counts.lines += [f"{_folder_name(source)}: a folder of files.", *_aligned(rows)]
    ignored = count_files(data, sources, frozenset(counts.files_read)).ignored
    return [*counts.lines, *_totals(counts, params.review.classes), *_ignored(ignored)]


def _folder_name(source: FolderSource) -> str:
    return "The folder" if source.path == "." else f"The folder {printable(source.path)}"


def _preview_table(source: TableSource, data: Path, modality: Modality, counts: DataPreview) -> None:
    table = Table(source, data, modality)
    rejected_before = sum(map(len, counts.reasons.values()))
    images_missing: list[Item] = []

    def watched() -> Iterator[Item]:
        for item in table.items(sys.maxsize):
            if item.reason in NO_IMAGE_THERE:
                images_missing.append(item)
            yield item

    kept_before = counts.splits.total()
    rows = _first_rows(counts.count(watched()), modality)
    kept = counts.splits.total() - kept_before
    rejected = sum(map(len, counts.reasons.values())) - rejected_before
    if images_missing and not kept:
        raise InputError(
            f"{table.path}: none of its images exists (the first is {printable(images_missing[0].origin)}, "
            f"{images_missing[0].reason}): name the folder that has both the table and the images, and write their "
            "paths relative to the table."
        )
    counts.lines += [
        f"{printable(source.path)}: {kept + rejected:,} rows, {rejected:,} of them rejected; "
        f"{table.files[0].described}. {_columns_line(table, source, modality)}",
        *_aligned(rows),
    ]
    if table.changes:
        changes = ", ".join(f"{printable(change)} ({rows:,})" for change, rows in sorted(table.changes.items()))
        counts.lines.append(f"  Label values: {changes}.")
    if table.dropped_labels:
        counts.lines.append(
            f"  {table.dropped_labels:,} rows of the pool or out of scope have a label, which is not used."
        )


def _columns_line(table: Table, source: TableSource, modality: Modality) -> str:
    """Describe the columns' roles, and list the columns that are not read."""
    columns = table.columns[0]
    used = columns.used()
    roles = [
        f"{modality if role == 'content' else role} from the column '{printable(name)}'" for role, name in used.items()
    ]
    if "label" not in used:
        roles.append("no column of labels (--column label=NAME names it)")
    splits = {table.default_split(file) for file in table.files} - {None}
    if splits:
        by = "" if source.default_split else " by the file's name"
        roles.append(
            f"split {', '.join(sorted(map(str, splits)))}{by}" + (" where its cell is blank" if "split" in used else "")
        )
    if source.image_folder:
        roles.append(f"images in {printable(source.image_folder)}")
    others = [printable(name) for name in table.files[0].columns if name and name not in used.values()]
    rest = (
        f" Not read: {', '.join(others[:10])}{' …' if len(others) > 10 else ''}."
        if others and not columns.exported
        else ""
    )
    return f"Read: {'; '.join(roles)}.{rest}"


def _first_rows(items: Iterable[Item], modality: Modality) -> list[tuple[str, str, str]]:
    """Return the first rows, and read all items."""
    rows: list[tuple[str, str, str]] = []
    for item in items:
        if len(rows) < MAX_ROWS_SHOWN and item.reason is None:
            rows.append((_cut(_content(item, modality)), _cut(item.label or "—"), item.split))
    return rows


def _content(item: Item, modality: Modality) -> str:
    try:
        return str(item.load()) if modality == "text" else item.file or item.origin
    except (OSError, ValueError):  # becomes the row's reason later, when it is read
        return item.origin


def _aligned(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip_longest(*rows, fillvalue="")]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _cut(text: str) -> str:
    line = printable(" ".join(text[: 2 * MAX_CELL_CHARACTERS].split()))
    return line if len(line) <= MAX_CELL_CHARACTERS else line[: MAX_CELL_CHARACTERS - 1] + "…"


def _totals(counts: DataPreview, named_classes: Sequence[str]) -> Iterator[str]:
    """Yield the classes, splits and rejected rows. named_classes: `review.classes`, which no row need have."""
    by_rows = sorted(counts.classes, key=lambda label: (-counts.classes[label].total(), label))
    labels = by_rows or list(named_classes)
    listed = [_cut(label) + (f" {counts.classes[label].total():,}" if by_rows else "") for label in labels]
    more = f" and {len(labels) - MAX_CLASSES_SHOWN:,} more" if len(labels) > MAX_CLASSES_SHOWN else ""
    classes = ", ".join(listed[:MAX_CLASSES_SHOWN]) + more
    yield f"Classes: {classes}." if by_rows else f"Classes: {classes or 'none'}; no row has a label."
    splits = ", ".join(f"{split} {rows:,}" for split, rows in sorted(counts.splits.items()))
    yield f"Splits: {splits or 'none'}." + (" Rows in the pool have no label." if counts.splits["pool"] else "")
    for reason, origins in sorted(counts.reasons.items()):
        names = ", ".join(printable(origin) for origin in origins[:MAX_NAMES_SHOWN])
        yield f"Rejected, {reason}: {len(origins):,} ({names}{' …' if len(origins) > MAX_NAMES_SHOWN else ''})."
    yield from _warnings(counts)


def _ignored(ignored: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield a line per reason why files of data/ are not read; placeholders that keep empty folders are omitted."""
    names_by_reason = defaultdict(list)
    for name, reason in ignored:
        names_by_reason[reason].append(name)
    for reason, names in sorted(names_by_reason.items()):
        if reason != PLACEHOLDER:
            listed = ", ".join(printable(shown_name(name)) for name in names[:MAX_NAMES_SHOWN])
            more = " …" if len(names) > MAX_NAMES_SHOWN else ""
            yield f"Ignored, {reason.replace('_', ' ')}: {len(names):,} ({listed}{more})."


def _warnings(counts: DataPreview) -> Iterator[str]:
    """Yield what may be unintended: a single class, spellings of one class, and labels that may stand for no label."""
    if len(counts.classes) == 1:
        (label,) = counts.classes
        folders = sorted(counts.folders_below[label])
        listed = f"{', '.join(map(_cut, folders[:MAX_NAMES_SHOWN]))}{' …' if len(folders) > MAX_NAMES_SHOWN else ''}"
        hint = f" The folder '{_cut(label)}' has {listed}: if these are the classes, give `seedling init` that folder."
        yield "Training needs at least two classes." + (hint if len(folders) > 1 else "")
    spellings = defaultdict(list)
    for label in sorted(counts.classes):
        spellings[label.casefold()].append(label)
    for labels in spellings.values():
        if len(labels) > 1:
            listed = " and ".join(f"'{_cut(label)}'" for label in labels)
            yield f"{listed} differ only in case and are one class; validate.merge_case: false keeps them apart."
    for digit, word in (("1", "true"), ("0", "false")):
        words = [label for label in sorted(counts.classes) if label.casefold() == word]
        if words and digit in counts.classes:
            yield f"'{words[0]}' and '{digit}' are two classes; if they mean the same, write one of them in the table."
    for label in sorted(counts.classes):
        if label.casefold() in MAYBE_NO_LABEL:
            yield (
                f"'{_cut(label)}' ({counts.classes[label].total():,} rows) is a class; use --no-label '{_cut(label)}' "
                "if it stands for no label."
            )
