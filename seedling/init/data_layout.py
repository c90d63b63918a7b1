"""Decides for `seedling init` how to read a folder that has both tables and folders of images or texts.

Nothing is left out silently: tables and files that are not read are reported.
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
from seedling.files.ignored_files import is_ignored, is_ignored_folder
from seedling.media import images
from seedling.scrape.folder import SPLIT_FOLDERS, TEXT_SUFFIXES, read_folder
from seedling.scrape.image_paths import NO_IMAGE_THERE
from seedling.scrape.image_tables import holds_images
from seedling.scrape.items import Item
from seedling.scrape.table import Table, read_table

MIN_CLASSES = 2
# Names of splits that are also used for classes.
SPLITS_OR_CLASSES = frozenset({"train", "pool", "test", "validation", "valid", "val"})


@dataclass(frozen=True)
class Layout:
    """The tables to read, whether to read the folders beside them, and notices for the user about everything else."""

    tables: Sequence[TableSource]
    folders: bool
    notices: Sequence[str] = ()


def lay_out(
    source: Path, tables: Sequence[TableSource], folders: Sequence[Path], modality: Modality, *, named_columns: bool
) -> Layout:
    """Decide how to read a folder with these tables and folders.

    named_columns: whether the user named the tables' columns; then a table that lacks one is an error.
    Raises InputError for a table that cannot be read if there is nothing else to read.
    """
    if not tables or not folders:
        return Layout(tables, bool(folders))
    if modality == "text":
        return _beside_texts(source, tables, folders, named_columns=named_columns)
    return _beside_images(source, tables, named_columns=named_columns)


def check_split_names(folders: Sequence[Path]) -> None:
    """Raise InputError if top folders named test, train, valid or pool may be classes or splits.

    This is unclear if none of the folders has class folders, and at least two of them have files.
    """
    ambiguous = [path.name for path in folders if path.name.casefold() in SPLITS_OR_CLASSES]
    certain = [path for path in folders if path.name.casefold() in set(SPLIT_FOLDERS) - SPLITS_OR_CLASSES]
    flat = [path.name for path in folders if _has_files(path)]
    has_classes = any(
        _has_files(subfolder)
        for path in folders
        if path.name.casefold() in SPLIT_FOLDERS
        for subfolder in path.iterdir()
        if subfolder.is_dir() and not is_ignored_folder(subfolder)
    )
    if ambiguous and not certain and not has_classes and len(flat) >= MIN_CLASSES:
        raise InputError(
            f"{', '.join(sorted(flat)[:6])}: is each of these folders a class, or is '{sorted(ambiguous)[0]}' a split? "
            "Use --by-class if they are classes; otherwise put class folders into it, as in train/<class>/ and "
            "test/<class>/, and images without a label into unlabeled/."
        )


def _has_files(folder: Path) -> bool:
    return any(path.is_file() and not is_ignored(path.name) for path in folder.iterdir())


def _beside_texts(
    source: Path, tables: Sequence[TableSource], folders: Sequence[Path], *, named_columns: bool
) -> Layout:
    has_texts = any(
        path.suffix.lower() in TEXT_SUFFIXES
        for folder in folders
        for path, fault in files_below(folder, source.resolve(), lambda path: not is_ignored_folder(path))
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
    has_roots = any(path.is_dir() and path.name.casefold() in SPLIT_FOLDERS for path in source.iterdir())
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
        if rows and not named_columns and readable_alone and (fault := _fault_of_rows(rows, class_count)):
            notices.append(_not_read(table, fault))
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
        cause = ", because the folders' names are not the tables' labels" if unnamed else ""
        notices.append(
            f"{len(ignored):,} files are in no table, {ignored[0].file} the first, and are ignored{cause}: put them "
            "into unlabeled/ to use them without labels, or into the tables."
        )
    return Layout(kept, False, notices)


def _fault_of_rows(rows: Sequence[Item], class_count: int) -> str | None:
    """Why a table is not read beside class folders, or None."""
    if all(row.reason in NO_IMAGE_THERE for row in rows):
        return f"None of its images exists, the first is {rows[0].origin}."
    if class_count >= MIN_CLASSES and not any(row.label for row in rows):
        return "It has no labels; the folders' names are the classes."
    return None


def _items_of_folders(source: Path) -> list[Item]:
    try:
        return list(read_folder(FolderSource(kind="folder"), source, "image", sys.maxsize))
    except InputError:  # the folders have no files
        return []


def _rows_of(source: TableSource, folder: Path) -> list[Item]:
    """Return the table's rows; only the first one if the table contains the images themselves."""
    table = Table(source, folder, "image")
    rows = table.items(sys.maxsize)
    return [next(rows)] if holds_images(table) else list(rows)


def _folders_are_classes(items: Sequence[Item], unnamed: Sequence[Item], labels: Mapping[str, set[str | None]]) -> bool:
    """Whether the folders' names are labels like those of the tables.

    They are if each file of a table is in the folder of its label, and each other file is unlabeled, or in a folder
    that is named like a label of the tables.
    """
    in_tables = [(item.label, labels[item.file or ""]) for item in items if item.label and item.file in labels]
    for folder_label, table_labels in in_tables:
        if folder_label and folder_label.casefold() not in {str(label).casefold() for label in table_labels}:
            return False
    classes = {label.casefold() for table_labels in labels.values() for label in table_labels if label}
    return bool(in_tables) or all(item.label is None or item.label.casefold() in classes for item in unnamed)


def _not_read(table: TableSource, cause: str) -> str:
    return f"Not read: {table.path}. {cause}"
