"""Decides for `seedling init` what a folder with tables beside folders of images or texts is read as.

Nothing is left out without a word: a table that is not read, and images that nothing reads, are stated.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from seedling.config.sources import FolderSource, TableSource
from seedling.dataset.generation import Modality
from seedling.errors import InputError, MissingColumn
from seedling.files.data_files import files_below
from seedling.files.ignored_files import hidden_folder, is_passed_over
from seedling.media import images
from seedling.scrape.folder import ROOTS, TEXT_SUFFIXES, read_folder
from seedling.scrape.image_paths import NO_IMAGE_THERE
from seedling.scrape.image_tables import holds_images
from seedling.scrape.items import Item
from seedling.scrape.table import Table, read_table

MIN_CLASSES = 2
SPLITS_OR_CLASSES = frozenset(
    {"train", "pool", "test", "validation", "valid", "val"}
)  # words that are also used for classes


@dataclass(frozen=True)
class Layout:
    """Which of the tables are read, whether the folders beside them are, and what the user is told of the rest."""

    tables: Sequence[TableSource]
    folders: bool
    notices: Sequence[str] = ()


def lay_out(
    source: Path, tables: Sequence[TableSource], folders: Sequence[Path], modality: Modality, *, named_columns: bool
) -> Layout:
    """What is read of a folder with these tables and folders.

    named_columns: whether the user said which columns the tables have, so that one that cannot be read so is an error.
    Raises InputError for a table that cannot be read where there is nothing else to read.
    """
    if not tables or not folders:
        return Layout(tables, bool(folders))
    if modality == "text":
        return _beside_texts(source, tables, folders, named_columns=named_columns)
    return _beside_images(source, tables, named_columns=named_columns)


def check_split_names(folders: Sequence[Path]) -> None:
    """Raises InputError where the top folders may be classes of which one is named like a split, such as test, train, valid or pool.

    They are classes or splits: nothing tells where none of them holds folders of classes and at least two hold files.
    """
    named = [path.name for path in folders if path.name.casefold() in SPLITS_OR_CLASSES]
    certain = [path for path in folders if path.name.casefold() in set(ROOTS) - SPLITS_OR_CLASSES]
    flat = [path.name for path in folders if _holds_files(path)]
    has_classes = any(
        _holds_files(below)
        for path in folders
        if path.name.casefold() in ROOTS
        for below in path.iterdir()
        if below.is_dir() and not hidden_folder(below)
    )
    if named and not certain and not has_classes and len(flat) >= MIN_CLASSES:
        raise InputError(
            f"{', '.join(sorted(flat)[:6])}: is each of these folders a class, or does '{sorted(named)[0]}' name a split? Say --by-class if they are "
            "classes; else put class folders into it, as in train/<class>/ and test/<class>/, and images without a label into unlabeled/."
        )


def _holds_files(folder: Path) -> bool:
    return any(path.is_file() and not is_passed_over(path.name) for path in folder.iterdir())


def _beside_texts(
    source: Path, tables: Sequence[TableSource], folders: Sequence[Path], *, named_columns: bool
) -> Layout:
    has_texts = any(
        path.suffix.lower() in TEXT_SUFFIXES
        for folder in folders
        for path, fault in files_below(folder, source.resolve(), lambda path: not hidden_folder(path))
        if fault is None
    )
    kept, notices = [], []
    for table in tables:
        try:
            next(read_table(table, source, "text", sys.maxsize), None)
        except MissingColumn as error:
            if named_columns or not has_texts:
                raise
            notices.append(_not_read(table, str(error)))
        else:
            kept.append(table)
    return Layout(kept, bool(has_texts or not kept), notices)


def _beside_images(source: Path, tables: Sequence[TableSource], *, named_columns: bool) -> Layout:
    files = [item for item in _items_of_folders(source) if item.file is not None]
    items = [item for item in files if item.reason is None]
    image_items = [item for item in items if Path(item.file or "").suffix.lower() in images.SUFFIXES]
    class_count = len({item.label for item in image_items if item.label})
    has_roots = any(path.is_dir() and path.name.casefold() in ROOTS for path in source.iterdir())
    readable_alone = class_count >= MIN_CLASSES or (has_roots and bool(image_items))
    kept, notices = [], []
    labels: dict[str, set[str | None]] = defaultdict(set)
    for table in tables:
        try:
            rows = _rows_of(table, source)
        except InputError as error:
            if named_columns or not readable_alone:
                raise
            notices.append(_not_read(table, str(error)))
            continue
        if rows and not named_columns and readable_alone:
            if all(row.reason in NO_IMAGE_THERE for row in rows):
                notices.append(
                    _not_read(table, f"None of the images that it names is there, {rows[0].origin} the first.")
                )
                continue
            if class_count >= MIN_CLASSES and not any(row.label for row in rows):
                notices.append(_not_read(table, "It has no labels; the folders' names are the classes."))
                continue
        kept.append(table)
        for row in rows:
            if row.file is not None:
                labels[row.file].add(row.label)
    if not kept:
        return Layout([], True, notices)
    unnamed = [item for item in items if item.file not in labels]
    if unnamed and _folders_are_classes(items, unnamed, labels):
        return Layout(kept, True, notices)
    table_paths = {table.path for table in tables}
    ignored = [item for item in files if item.file not in labels and item.file not in table_paths]
    if ignored:
        why = ", since the folders' names are not the tables' labels" if unnamed else ""
        notices.append(
            f"{len(ignored):,} files are in no table, {ignored[0].file} the first, and are ignored{why}: put them into unlabeled/ to use them "
            "without labels, or into the tables."
        )
    return Layout(kept, False, notices)


def _items_of_folders(source: Path) -> list[Item]:
    try:
        return list(read_folder(FolderSource(kind="folder"), source, "image", sys.maxsize))
    except InputError:  # nothing lies in the folders
        return []


def _rows_of(source: TableSource, folder: Path) -> list[Item]:
    """The table's rows; only the first of one that holds the images themselves."""
    table = Table(source, folder, "image")
    rows = table.items(sys.maxsize)
    return [next(rows)] if holds_images(table) else list(rows)


def _folders_are_classes(items: Sequence[Item], unnamed: Sequence[Item], labels: Mapping[str, set[str | None]]) -> bool:
    """Whether the folders' names can be taken for labels beside those of the tables.

    They are where each file that tables name lies in the folder of its label, and where files that they do not name are unlabeled,
    or in a folder that is named like a label of the tables.
    """
    named = [(item.label, labels[item.file or ""]) for item in items if item.label and item.file in labels]
    if any(label.casefold() not in {str(one).casefold() for one in given} for label, given in named if label):
        return False
    known = {label.casefold() for given in labels.values() for label in given if label}
    return bool(named) or all(item.label is None or item.label.casefold() in known for item in unnamed)


def _not_read(table: TableSource, why: str) -> str:
    return f"Not read: {table.path}. {why}"
