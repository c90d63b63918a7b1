"""A user's folder: `labeled/<class>/*`, `unlabeled/*`, and optional `test`, `validation` and `out_of_scope`."""

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
from seedling.files.ignored_files import is_passed_over
from seedling.scrape.items import Item, tidy_label

ROOTS = {
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
LabelsByFile = Mapping[str, frozenset[str | None]]  # a file, relative to data/ → the labels that tables give it
NO_FILES: LabelsByFile = MappingProxyType({})


def read_folder(
    source: FolderSource,
    data: Path,
    modality: Modality,
    max_bytes: int,
    elsewhere: frozenset[Path] = frozenset(),
    in_tables: LabelsByFile = NO_FILES,
) -> Iterator[Item]:
    """The folder's items, by split and path. Raises InputError where there is no such folder or nothing in it.

    elsewhere: folders that belong to other sources. Where one folder is named like a split, those that are not are
    rejected file by file, so that a class called 'test' does not make the others vanish. in_tables: files that are rows of
    tables, which are given only where their folder's label contradicts the tables', so that validate sees the conflict.
    """
    root = inside(data, source.path)
    if not root.is_dir():
        raise InputError(f"{root} is no folder: put images in {data}/labeled/<class>/ and {data}/unlabeled/.")
    found = False
    together = Pattern(source.group) if source.group else None
    for item in _items(root, data.resolve(), modality, max_bytes, elsewhere, by_class=source.by_class):
        found = True
        labels = in_tables.get(item.file or "")
        if labels is not None and (item.label is None or item.label in labels):
            continue
        yield replace(item, group=_group(together, item.origin)) if together else item
    if not found and not source.may_be_empty:
        raise InputError(f"{root} holds no files: put images in {root}/labeled/<class>/ and {root}/unlabeled/.")


def empty_classes(source: FolderSource, data: Path, elsewhere: frozenset[Path] = frozenset()) -> list[str]:
    """The classes that have a folder in which no file is found."""
    empty, root = [], data.resolve()
    for top, split in _known(inside(data, source.path), elsewhere, by_class=source.by_class):
        if leads_out(top, root):
            continue
        for folder in sorted(top.iterdir()) if split in {"train", "validation", "test"} else ():
            stands_for_one = folder.is_dir() and not is_passed_over(folder.name) and folder.resolve() not in elsewhere
            if stands_for_one and next(_files(folder, root, elsewhere), None) is None:
                empty.append(tidy_label(folder.name) or folder.name)
    return empty


def _group(together: Pattern, origin: str) -> str | None:
    found = together.search(origin)
    return None if found is None else f"name {found[1]}"


def _items(
    root: Path, data: Path, modality: Modality, max_bytes: int, elsewhere: frozenset[Path], *, by_class: bool
) -> Iterator[Item]:
    known = _known(root, elsewhere, by_class=by_class)
    for top, split in known:
        for path, fault in _files(top, data, elsewhere):
            yield _item(path, top, split, data, modality, max_bytes, fault)
    if known[0][0] != root:
        strays = [
            found
            for top in _tops(root, elsewhere)
            if top.name.casefold() not in ROOTS
            for found in _files(top, data, elsewhere)
        ]
        beside = (path for path in sorted(root.iterdir()) if not path.is_dir() and real_path(path) not in elsewhere)
        strays += [(path, fault_of(path, data)) for path in beside]
        for path, fault in strays:
            if not is_passed_over(path.name):
                item = _item(path, root, "pool", data, modality, max_bytes, fault)
                yield replace(item, reason=fault or "outside_known_folders")


def _tops(root: Path, elsewhere: frozenset[Path]) -> list[Path]:
    folders = sorted(top for top in root.iterdir() if top.is_dir() and not is_passed_over(top.name))
    return [top for top in folders if top.resolve() not in elsewhere]


def _known(root: Path, elsewhere: frozenset[Path], *, by_class: bool) -> list[tuple[Path, str]]:
    """The folders that stand for a split, each with it; the root itself where there is none."""
    if by_class:
        return [(root, "train")]
    tops = _tops(root, elsewhere)
    known = [(top, ROOTS[top.name.casefold()]) for top in tops if top.name.casefold() in ROOTS]
    return known or [(root, "train")]  # an ImageFolder as it stands: every folder is a class


def _files(top: Path, data: Path, elsewhere: frozenset[Path]) -> Iterator[tuple[Path, str | None]]:
    """The files below `top` that are not hidden, each with the reason for which it is not read, if any."""

    def enter(folder: Path) -> bool:
        return not is_passed_over(folder.name) and folder.resolve() not in elsewhere

    if leads_out(top, data):
        yield top, OUTSIDE
        return
    for path, fault in files_below(top, data, enter):
        if not is_passed_over(path.name) and not (path.parent == top and real_path(path) in elsewhere):
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
