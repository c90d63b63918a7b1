"""Reads a folder of files: `labeled/<class>/*`, `unlabeled/*`, and optional `test`, `validation` and `out_of_scope`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from seedling.config.patterns import Pattern
from seedling.config.sources import FolderSource
from seedling.dataset.generation import Modality
from seedling.errors import InputError
from seedling.files.data_files import (
    OUTSIDE,
    fault_of,
    files_below,
    inside,
    leads_out,
    read_bytes,
    read_text,
    real_path,
)
from seedling.files.ignored_files import is_ignored
from seedling.scrape.items import Item, tidy_label

SPLIT_FOLDERS = {
    "labeled": "train",
    "labelled": "train",
    "train": "train",
    "unlabeled": "pool",
    "unlabelled": "pool",
    "pool": "pool",
    "test": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "out_of_scope": "out_of_scope",
}
TEXT_SUFFIXES = frozenset({".txt"})
LabelsByFile = Mapping[str, frozenset[str | None]]  # file, relative to data/ → the labels that tables give it
NO_FILES: LabelsByFile = MappingProxyType({})


def read_folder(
    source: FolderSource,
    data: Path,
    modality: Modality,
    max_bytes: int,
    elsewhere: frozenset[Path] = frozenset(),
    in_tables: LabelsByFile = NO_FILES,
) -> Iterator[Item]:
    """Yield the folder's items, by split and path. Raises InputError if the folder is missing or empty.

    elsewhere: folders of other sources. If a folder is named like a split, the files of other folders are rejected one
    by one, so that a class named 'test' does not hide the other classes. in_tables: files that are rows of tables; they
    are yielded only if their folder's label contradicts the table's, so that validate sees the conflict.
    """
    root = inside(data, source.path)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: put images in {data}/labeled/<class>/ and {data}/unlabeled/.")
    is_empty = True
    group_pattern = Pattern(source.group) if source.group else None
    for item in _items(root, data.resolve(), modality, max_bytes, elsewhere, by_class=source.by_class):
        is_empty = False
        labels = in_tables.get(item.file or "")
        if labels is not None and (item.label is None or item.label in labels):
            continue
        yield replace(item, group=_group(group_pattern, item.origin)) if group_pattern else item
    if is_empty and not source.may_be_empty:
        raise InputError(f"{root} has no files: put images in {root}/labeled/<class>/ and {root}/unlabeled/.")


def empty_classes(source: FolderSource, data: Path, elsewhere: frozenset[Path] = frozenset()) -> list[str]:
    """Return the classes whose folder has no file."""
    empty, root = [], data.resolve()
    for top, split in _split_folders(inside(data, source.path), elsewhere, by_class=source.by_class):
        if leads_out(top, root):
            continue
        for folder in sorted(top.iterdir()) if split in {"train", "validation", "test"} else ():
            is_class = folder.is_dir() and not is_ignored(folder.name) and folder.resolve() not in elsewhere
            if is_class and next(_files(folder, root, elsewhere), None) is None:
                empty.append(tidy_label(folder.name) or folder.name)
    return empty


def _group(pattern: Pattern, origin: str) -> str | None:
    match = pattern.search(origin)
    return None if match is None else f"name {match[1]}"


def _items(
    root: Path, data: Path, modality: Modality, max_bytes: int, elsewhere: frozenset[Path], *, by_class: bool
) -> Iterator[Item]:
    split_folders = _split_folders(root, elsewhere, by_class=by_class)
    for top, split in split_folders:
        for path, fault in _files(top, data, elsewhere):
            yield _item(path, top, split, data, modality, max_bytes, fault)
    if split_folders[0][0] != root:
        strays = [
            file
            for top in _tops(root, elsewhere)
            if top.name.casefold() not in SPLIT_FOLDERS
            for file in _files(top, data, elsewhere)
        ]
        beside = (path for path in sorted(root.iterdir()) if not path.is_dir() and real_path(path) not in elsewhere)
        strays += [(path, fault_of(path, data)) for path in beside]
        for path, fault in strays:
            if not is_ignored(path.name):
                item = _item(path, root, "pool", data, modality, max_bytes, fault)
                yield replace(item, reason=fault or "outside_known_folders")


def _tops(root: Path, elsewhere: frozenset[Path]) -> list[Path]:
    folders = sorted(top for top in root.iterdir() if top.is_dir() and not is_ignored(top.name))
    return [top for top in folders if top.resolve() not in elsewhere]


def _split_folders(root: Path, elsewhere: frozenset[Path], *, by_class: bool) -> list[tuple[Path, str]]:
    """Return (folder, split) of each folder that is named like a split; the root itself if there is none."""
    if by_class:
        return [(root, "train")]
    tops = _tops(root, elsewhere)
    split_folders = [(top, SPLIT_FOLDERS[top.name.casefold()]) for top in tops if top.name.casefold() in SPLIT_FOLDERS]
    return split_folders or [(root, "train")]  # an ImageFolder: each folder is a class


def _files(top: Path, data: Path, elsewhere: frozenset[Path]) -> Iterator[tuple[Path, str | None]]:
    """Yield the files below `top` that are not hidden, each with the reason why it is not read, or None."""

    def enter(folder: Path) -> bool:
        return not is_ignored(folder.name) and folder.resolve() not in elsewhere

    if leads_out(top, data):
        yield top, OUTSIDE
        return
    for path, fault in files_below(top, data, enter):
        if not is_ignored(path.name) and not (path.parent == top and real_path(path) in elsewhere):
            yield path, fault


def _item(path: Path, top: Path, split: str, data: Path, modality: Modality, max_bytes: int, fault: str | None) -> Item:
    inner = path.relative_to(top).parts
    label = tidy_label(inner[0]) if len(inner) > 1 and split not in {"pool", "out_of_scope"} else None
    relative = path.relative_to(data).as_posix()
    return Item(
        origin=relative,
        load=lambda: read_bytes(path, data) if modality == "image" else read_text(path, data),
        split=split,
        label=label,
        label_source="human" if label else None,
        reason=fault or _reason(path, split, label, modality, max_bytes),
        file=relative,
    )


def _reason(path: Path, split: str, label: str | None, modality: Modality, max_bytes: int) -> str | None:
    if modality == "text" and path.suffix.lower() not in TEXT_SUFFIXES:
        return "not_a_text"
    if path.stat().st_size > max_bytes:
        return "too_many_bytes"
    if label is None and split not in {"pool", "out_of_scope"}:
        return "outside_class_folder"
    return None
